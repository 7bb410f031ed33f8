"""Which published units have to be told to Kafka, and when they are told again."""

from __future__ import annotations

from contract.message import UnitMessage
from distribute.outbox import RESEND_SECONDS, Outbox

FREE = [(100, 100)]
BUSY = [(0, 100), (20, 100)]


def message(unit_id: int, hosts: int = 30) -> UnitMessage:
    return UnitMessage(unit_id, "t", "adhoc", 1, hosts)


ONE, TWO = message(1), message(2)


def sent(outbox: Outbox, moment: float, *messages: UnitMessage) -> None:
    outbox.given(messages)
    for one in messages:
        outbox.ended(one.unit_id, True, moment)


def test_a_unit_that_we_know_of_no_message_for_is_due_however_busy_the_engines_are() -> None:
    """The process that published it died before the send."""
    assert Outbox().due([ONE, TWO], BUSY, 0.0) == [ONE, TWO]
    assert Outbox().due([ONE, TWO], [], 0.0) == [ONE, TWO]


def test_what_is_on_its_way_is_not_due() -> None:
    outbox = Outbox()
    outbox.given([ONE])
    assert outbox.on_their_way == 1
    assert outbox.due([ONE, TWO], FREE, 1e9) == [TWO]


def test_a_send_that_failed_is_due_at_once() -> None:
    outbox = Outbox()
    outbox.given([ONE])
    outbox.ended(1, False, 10.0)
    assert outbox.on_their_way == 0
    assert outbox.due([ONE], BUSY, 10.0) == [ONE]


def test_a_failed_second_send_is_due_at_once_too() -> None:
    outbox = Outbox()
    sent(outbox, 10.0, ONE)
    outbox.given([ONE])
    outbox.ended(1, False, 41.0)
    assert outbox.due([ONE], BUSY, 41.0) == [ONE]


def test_a_unit_that_nobody_claims_though_there_is_room_is_sent_again_after_a_while() -> None:
    outbox = Outbox()
    sent(outbox, 10.0, ONE)
    assert outbox.due([ONE], FREE, 10.0 + RESEND_SECONDS - 0.1) == []
    assert outbox.due([ONE], FREE, 10.0 + RESEND_SECONDS) == [ONE]
    sent(outbox, 50.0, ONE)
    assert outbox.due([ONE], FREE, 50.0 + RESEND_SECONDS - 0.1) == []


def test_while_every_engine_is_busy_more_messages_would_only_pile_up() -> None:
    outbox = Outbox()
    sent(outbox, 0.0, ONE, message(3, hosts=20))
    published = [ONE, message(3, hosts=20)]
    assert outbox.due(published, BUSY, 1e9) == [message(3, hosts=20)]
    assert outbox.due(published, [], 1e9) == []


def test_a_free_engine_has_room_for_a_unit_of_any_size() -> None:
    outbox = Outbox()
    large = message(1, hosts=1000)
    sent(outbox, 0.0, large)
    assert outbox.due([large], [(9, 10)], 1e9) == []
    assert outbox.due([large], [(9, 10), (10, 10)], 1e9) == [large]


def test_what_was_claimed_is_forgotten_and_due_when_it_is_published_again() -> None:
    outbox = Outbox()
    sent(outbox, 0.0, ONE)
    assert outbox.due([], FREE, 1.0) == []
    assert outbox.due([ONE], BUSY, 2.0) == [ONE]


def test_an_outcome_that_nobody_waits_for_does_no_harm() -> None:
    outbox = Outbox()
    outbox.ended(7, False, 1.0)
    assert outbox.on_their_way == 0
