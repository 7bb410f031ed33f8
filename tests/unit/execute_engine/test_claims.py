from __future__ import annotations

from contract.message import UnitMessage
from execute_engine.claims import FED_SECONDS, QUIET_SECONDS, TAKEN_SECONDS, Claims
from execute_engine.slots import Room
from execute_engine.subscription import Delivery

ROOM = Room(60, alone=False, runner_free=True)
FULL = Room(0, alone=False, runner_free=True)


def delivery(unit_id: int = 1) -> Delivery:
    return Delivery(UnitMessage(unit_id, "t", "adhoc", 1, 30), partition=0, offset=5)


def fed_at_10() -> Claims:
    """Of an engine that has its partitions, and has found nothing in the database at 10.0."""
    claims = Claims(has_kafka=True)
    claims.next(ROOM, 10.0)
    claims.nothing(10.0, fed=True)
    return claims


def test_one_search_at_a_time_and_none_without_room() -> None:
    claims = Claims(has_kafka=False)
    assert claims.next(FULL, 0.0) is None
    assert claims.next(ROOM, 0.0) is not None
    assert claims.next(ROOM, 0.0) is None
    assert claims.due_at(ROOM) is None


def test_an_idle_engine_looks_again_after_a_pause() -> None:
    claims = Claims(has_kafka=False)
    claims.next(ROOM, 10.0)
    assert claims.nothing(10.0, fed=False) is None
    assert claims.next(ROOM, 10.0 + QUIET_SECONDS / 2) is None
    assert claims.next(ROOM, 10.0 + QUIET_SECONDS) is not None


def test_an_idle_engine_that_has_its_partitions_looks_less_often_and_takes_a_message_at_once() -> None:
    claims = fed_at_10()
    assert claims.next(ROOM, 10.0 + QUIET_SECONDS) is None
    assert claims.due_at(ROOM) == 10.0 + FED_SECONDS
    claims.message(delivery())
    assert claims.next(ROOM, 10.0 + QUIET_SECONDS) is not None


def test_after_a_find_the_next_search_is_at_once_where_the_database_is_the_queue() -> None:
    embedded, with_kafka = Claims(has_kafka=False), Claims(has_kafka=True)
    for claims in (embedded, with_kafka):
        claims.next(ROOM, 10.0)
        claims.found(10.0, 30, fed=False)
    assert embedded.next(ROOM, 10.0) is not None
    assert with_kafka.next(ROOM, 10.0) is None  # the next message may be on its way
    assert with_kafka.next(ROOM, 10.0 + QUIET_SECONDS) is not None


def test_who_has_looked_and_found_a_unit_looks_for_more() -> None:
    claims = Claims(has_kafka=True)
    claims.next(ROOM, 10.0)
    claims.found(10.0, 30, fed=True)
    assert claims.due_at(ROOM) == 10.0 + QUIET_SECONDS


def test_no_flow_of_messages_puts_off_the_look_for_what_others_have_no_room_for() -> None:
    claims = Claims(has_kafka=True)
    looks = []
    for second in range(31):
        claims.message(delivery(second))
        for moment in (second, second + 0.5):
            search = claims.next(ROOM, moment)
            if search is not None and search.delivery is None:
                looks.append(moment)
                claims.nothing(moment, fed=True)
            elif search is not None:
                claims.found(moment, 30, fed=True)
    assert looks == [0.5 + FED_SECONDS * number for number in range(16)]


def test_an_engine_that_was_full_and_has_room_again_soon_looks_for_what_others_have_too_much_of() -> None:
    claims = fed_at_10()
    claims.message(delivery())
    claims.next(ROOM, 10.0)
    claims.found(10.0, 30, fed=True)
    claims.next(Room(30, alone=False, runner_free=True), 10.1)
    assert claims.due_at(ROOM) == 10.0 + FED_SECONDS, "there was room for another one all the time"
    claims.next(Room(29, alone=False, runner_free=True), 10.2)
    claims.next(Room(30, alone=False, runner_free=True), 10.3)
    assert claims.due_at(ROOM) == 10.3 + QUIET_SECONDS
    claims.next(ROOM, 10.5)
    claims.left(10.5)  # on their way to another engine, so far
    assert claims.due_at(ROOM) == 10.5 + QUIET_SECONDS


def test_room_that_comes_during_a_look_makes_the_next_one_come_soon() -> None:
    claims, moment = Claims(has_kafka=True), 0.0
    for _ in range(6):
        claims.next(ROOM, moment)
        claims.left(moment)
        moment += FED_SECONDS
    assert claims.next(ROOM, moment) is not None
    claims.next(FULL, moment)
    claims.next(ROOM, moment)
    claims.left(moment)
    assert claims.due_at(ROOM) == moment + QUIET_SECONDS


def test_units_that_are_always_on_their_way_to_others_are_looked_at_more_and_more_rarely() -> None:
    claims = Claims(has_kafka=True)
    moment, pauses = 0.0, []
    for _ in range(6):
        assert claims.next(ROOM, moment) is not None
        claims.left(moment)
        due_at = claims.due_at(ROOM)
        assert due_at is not None
        pauses.append(round(due_at - moment, 3))
        moment = due_at
    assert pauses == [0.2, 0.4, 0.8, 1.6, FED_SECONDS, FED_SECONDS]


def test_an_engine_with_a_message_at_hand_looks_for_nothing_else_when_it_has_room_again() -> None:
    claims = fed_at_10()
    claims.message(delivery())
    claims.next(FULL, 10.0)
    search = claims.next(ROOM, 10.1)
    assert search is not None
    assert search.delivery == delivery()
    claims.found(10.1, 30, fed=True)
    assert claims.due_at(ROOM) == 10.0 + FED_SECONDS


def test_a_slot_that_became_free_brings_nothing_where_there_was_nothing() -> None:
    claims = Claims(has_kafka=True)
    claims.next(Room(5, alone=False, runner_free=True), 10.0)
    claims.nothing(10.0, fed=True)
    assert claims.next(Room(6, alone=False, runner_free=True), 10.0) is None


def test_what_had_no_room_is_tried_again_when_it_has_and_after_a_while() -> None:
    claims = Claims(has_kafka=False)
    claims.next(Room(5, alone=False, runner_free=True), 10.0)
    claims.no_room(10.0, hosts=7)
    assert claims.due_at(Room(6, alone=False, runner_free=True)) == 10.0 + TAKEN_SECONDS
    assert claims.next(Room(7, alone=False, runner_free=True), 10.0) is not None


def test_a_message_is_looked_up_at_once_and_done_with_after_its_claim() -> None:
    claims = fed_at_10()
    claims.message(delivery())
    search = claims.next(ROOM, 10.0)
    assert search is not None
    assert search.delivery == delivery()
    assert not claims.wants_message
    assert claims.found(10.0, 30, fed=True) == delivery()
    assert claims.wants_message


def test_a_message_whose_unit_is_not_to_be_had_is_done_with_too() -> None:
    claims = Claims(has_kafka=True)
    claims.message(delivery())
    claims.next(ROOM, 10.0)
    assert claims.nothing(10.0, fed=True) == delivery()


def test_a_message_without_room_is_kept_and_nothing_is_claimed_before_it() -> None:
    claims = Claims(has_kafka=True)
    claims.message(delivery())
    claims.next(ROOM, 10.0)
    claims.no_room(10.0, hosts=61)
    assert not claims.wants_message
    search = claims.next(ROOM, 10.0 + TAKEN_SECONDS)
    assert search is not None
    assert search.delivery == delivery()


def test_a_message_that_comes_during_a_scan_is_not_done_with_by_it() -> None:
    claims = Claims(has_kafka=True)
    claims.next(ROOM, 10.0)
    claims.message(delivery())
    assert claims.found(10.0, 30, fed=True) is None
    search = claims.next(ROOM, 10.0)
    assert search is not None
    assert search.delivery == delivery()
