"""The dispatcher on SQLite and on MariaDB: what goes out and when, what is over, dead engines, and who leads."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from contract import migrations
from contract.config import Config, DatabaseSettings
from contract.database import Database
from contract.errors import DatabaseAway
from contract.states import EngineState, TaskState, UnitState
from contract.tables import task
from contract.units import settle
from distribute import dead_engines, dispatcher, leadership, outbox
from distribute.dead_engines import DeadEngines
from distribute.store import dispatch
from distribute.store.dispatch import Leader
from tests.daemons import ROOT, Backend
from tests.integration.databases import create
from tests.integration.dispatching import (
    RememberingPublisher,
    add_engine,
    add_task,
    beat,
    change,
    config_of,
    dispatch_rounds,
    dispatching,
    engine_state,
    give_result,
    nothing,
    task_state_of,
    units_in,
)
from tests.integration.published import host_rows, unit_row
from tests.servers.mariadb import MariaDB
from tests.servers.process import Process, wait_for

WAITING, PUBLISHED, RUNNING = UnitState.WAITING, UnitState.PUBLISHED, UnitState.RUNNING
LEASE_SECONDS = 30
LOOK_SECONDS = 2.0


class Clock:
    """In the place of the module `time` where somebody asks it for a monotonic moment."""

    def __init__(self) -> None:
        self.moment = 1000.0

    def monotonic(self) -> float:
        return self.moment

    def pass_(self, seconds: float) -> None:
        self.moment += seconds


@pytest.fixture
def config(database_settings: DatabaseSettings) -> Config:
    return config_of(database_settings)


@pytest.fixture
def publisher() -> RememberingPublisher:
    return RememberingPublisher()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (dead_engines, dispatcher, leadership):
        monkeypatch.setattr(module, "time", clock)
    return clock


def claim(database: Database, incarnation: str, unit_ids: list[int]) -> None:
    change(database, unit_ids, state=RUNNING, incarnation=incarnation)


def leader_row(database: Database) -> Leader:
    row = database.read(dispatch.leader_row)
    assert row is not None
    return row


# --- the window


def test_units_go_out_as_long_as_the_live_engines_have_slots_for_their_hosts(
    database: Database, config: Config
) -> None:
    incarnation = add_engine(database, slots=50)
    add_engine(database, slots=25, engine_id="engine-2")
    units = add_task(database, hosts=300, unit_hosts=30)
    dispatch_rounds(config, *[nothing] * 5)
    assert units_in(database, PUBLISHED) == units[:2]  # 60 of 75 hosts
    claim(database, incarnation, units[:1])
    dispatch_rounds(config, *[nothing] * 5)
    assert units_in(database, PUBLISHED) == units[1:3]
    assert unit_row(database, units[2]).published_at is not None
    assert unit_row(database, units[3]).published_at is None


@pytest.mark.parametrize("state", [None, EngineState.DRAINING, EngineState.STOPPED, EngineState.DEAD])
def test_without_a_live_engine_one_unit_is_out(database: Database, config: Config, state: EngineState | None) -> None:
    if state is not None:
        add_engine(database, slots=100, state=state)
    units = add_task(database, hosts=6, unit_hosts=2)
    add_task(database, hosts=1, unit_hosts=1)
    dispatch_rounds(config, *[nothing] * 5)
    assert units_in(database, PUBLISHED) == units[:1]


def test_a_unit_that_is_larger_than_all_slots_goes_out_alone(database: Database, config: Config) -> None:
    incarnation = add_engine(database, slots=10)
    small, large = add_task(database, hosts=4, unit_hosts=4), add_task(database, hosts=60, unit_hosts=30)
    dispatch_rounds(config, *[nothing] * 5)
    assert units_in(database, PUBLISHED) == small
    claim(database, incarnation, small)
    dispatch_rounds(config, *[nothing] * 5)
    assert units_in(database, PUBLISHED) == large[:1]


def test_small_units_do_not_keep_a_large_one_waiting(database: Database, config: Config) -> None:
    """It is larger than what is left of the window: nothing goes out before it."""
    incarnation = add_engine(database, slots=10)
    first, large = add_task(database, hosts=8, unit_hosts=8), add_task(database, hosts=9, unit_hosts=9)
    small = add_task(database, hosts=6, unit_hosts=1)

    def expect(*published: int) -> None:
        assert units_in(database, PUBLISHED) == list(published)

    def claim_first() -> None:
        expect(*first)
        claim(database, incarnation, first)

    dispatch_rounds(config, nothing, nothing, claim_first, nothing, lambda: expect(*large, small[0]))


def test_a_window_is_shared_by_turns(database: Database, config: Config, publisher: RememberingPublisher) -> None:
    add_engine(database, slots=8)
    first, second = add_task(database, hosts=20, unit_hosts=2), add_task(database, hosts=20, unit_hosts=2)
    dispatch_rounds(config, nothing, nothing, publisher=publisher)
    assert publisher.sent_ids == [first[0], second[0], first[1], second[1]]


def test_tasks_take_turns(database: Database, config: Config, publisher: RememberingPublisher) -> None:
    """A task of one unit does not stand behind one of many that came before it."""
    incarnation = add_engine(database, slots=4)
    first = add_task(database, hosts=20, unit_hosts=2)

    def submit_more() -> None:
        assert publisher.sent_ids == first[:2]
        more.extend(add_task(database, hosts=4, unit_hosts=2) + add_task(database, hosts=2, unit_hosts=2))

    def claim_one() -> None:
        claim(database, incarnation, units_in(database, PUBLISHED)[:1])

    more: list[int] = []
    dispatch_rounds(config, nothing, submit_more, *[claim_one] * 6, publisher=publisher)
    second, third = more[:2], more[2]
    assert publisher.sent_ids == [first[0], first[1], second[0], third, first[2], second[1], first[3]]


def test_tasks_that_may_have_no_more_do_not_hide_those_behind_them(
    database: Database, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "TASKS_A_TURN", 2)
    add_engine(database, slots=100)
    firsts = [add_task(database, hosts=4, unit_hosts=2, parallel=2)[0] for _ in range(5)]
    dispatch_rounds(config, *[nothing] * 8)
    last = add_task(database, hosts=2, unit_hosts=2)
    dispatch_rounds(config, *[nothing] * 3)
    assert units_in(database, PUBLISHED) == [*firsts, *last]


def test_a_task_has_at_most_parallel_hosts_out(database: Database, config: Config) -> None:
    incarnation = add_engine(database, slots=100)
    units = add_task(database, hosts=12, unit_hosts=2, parallel=5)
    dispatch_rounds(config, *[nothing] * 5)
    assert units_in(database, PUBLISHED) == units[:2]
    claim(database, incarnation, units[:2])
    dispatch_rounds(config, *[nothing] * 5)
    assert units_in(database, PUBLISHED) == []
    change(database, units[:1], state=UnitState.FINISHED)
    dispatch_rounds(config, *[nothing] * 5)
    assert units_in(database, PUBLISHED) == units[2:3]


def test_a_unit_that_is_larger_than_parallel_runs_alone(database: Database, config: Config) -> None:
    add_engine(database, slots=100)
    units = add_task(database, hosts=8, unit_hosts=4, parallel=3)
    dispatch_rounds(config, *[nothing] * 5)
    assert units_in(database, PUBLISHED) == units[:1]


def test_a_task_without_a_limit_has_that_of_the_configuration(
    database: Database, database_settings: DatabaseSettings
) -> None:
    add_engine(database, slots=100)
    units, others = add_task(database, hosts=8, unit_hosts=2), add_task(database, hosts=8, unit_hosts=2, parallel=6)
    dispatch_rounds(config_of(database_settings, parallel=4), *[nothing] * 5)
    assert units_in(database, PUBLISHED) == [*units[:2], *others[:3]]


def test_of_two_that_publish_the_same_units_one_gets_them(
    database: Database, database_settings: DatabaseSettings
) -> None:
    """Whoever has not won them must not tell Kafka either."""
    units = add_task(database, hosts=4, unit_hosts=1)
    other = Database(database_settings)

    def publish(connection: sa.Connection) -> set[int]:
        won = dispatch.publish(connection, units[:3])
        late.append(pool.submit(other.write, partial(dispatch.publish, unit_ids=units)))
        wait({late[0]}, timeout=1)  # it waits for the end of this transaction
        return won

    late: list[Future[set[int]]] = []
    with ThreadPoolExecutor(1) as pool:
        assert database.write(publish) == set(units[:3])
    assert late[0].result() == {units[3]}
    other.close()


# --- what Kafka is told


def test_a_unit_is_published_for_all_to_see_before_its_message_is_sent(
    database: Database, config: Config, publisher: RememberingPublisher
) -> None:
    units = add_task(database, hosts=2, unit_hosts=2)
    seen: list[str] = []
    publisher.on_send = lambda message: seen.append(unit_row(database, message.unit_id).state)
    dispatch_rounds(config, nothing, nothing, publisher=publisher)
    assert seen == [PUBLISHED]
    (message,) = publisher.sent
    assert (message.unit_id, message.type, message.attempt, message.hosts) == (units[0], "adhoc", 1, 2)


def test_while_kafka_is_away_units_wait(database: Database, config: Config, publisher: RememberingPublisher) -> None:
    units = add_task(database, hosts=2, unit_hosts=2)
    publisher.trouble = "waiting for Kafka"

    def come_back() -> None:
        assert units_in(database, WAITING) == units
        publisher.trouble = ""

    lifeline = dispatch_rounds(config, nothing, nothing, come_back, nothing, publisher=publisher)
    assert any("waiting for Kafka" in told for told in lifeline.told)
    assert publisher.sent_ids == units_in(database, PUBLISHED) == units


def test_a_message_that_was_not_sent_is_sent_again(
    database: Database, config: Config, publisher: RememberingPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "OUTBOX_SECONDS", 0)
    (unit_id,) = add_task(database, hosts=2, unit_hosts=2)
    publisher.succeeds = False

    def succeed() -> None:
        publisher.succeeds = True

    dispatch_rounds(config, nothing, nothing, succeed, *[nothing] * 4, publisher=publisher)
    assert publisher.sent_ids == [unit_id] * 4


def test_a_new_leader_tells_of_every_unit_that_is_published_and_not_claimed(
    database: Database, config: Config, publisher: RememberingPublisher
) -> None:
    units = add_task(database, hosts=8, unit_hosts=2)
    change(database, units[:3], state=PUBLISHED)
    claim(database, add_engine(database, slots=4), units[:1])
    dispatch_rounds(config, *[nothing] * 3, publisher=publisher)
    assert publisher.sent_ids == units[1:3]


def test_who_leads_again_knows_nothing_of_what_it_told_before(
    database: Database, config: Config, publisher: RememberingPublisher, clock: Clock
) -> None:
    (unit_id,) = add_task(database, hosts=2, unit_hosts=2)

    def lose() -> None:
        assert publisher.sent_ids == [unit_id]
        assert database.write(partial(dispatch.take_over, seen=leader_row(database), holder="other"))
        clock.pass_(leadership.BEAT_SECONDS)

    def lead_again() -> None:
        database.write(partial(dispatch.resign, holder="other"))
        clock.pass_(leadership.LOOK_SECONDS)

    dispatch_rounds(config, nothing, lose, nothing, lead_again, nothing, publisher=publisher)
    assert publisher.sent_ids == [unit_id] * 2


def test_a_unit_that_nobody_claims_is_told_again_while_an_engine_has_room(
    database: Database, config: Config, publisher: RememberingPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "OUTBOX_SECONDS", 0)
    monkeypatch.setattr(outbox, "RESEND_SECONDS", 0)
    incarnation = add_engine(database, slots=4)
    units = add_task(database, hosts=4, unit_hosts=2)

    def claim_first() -> None:
        assert publisher.sent_ids.count(units[1]) > 1
        claim(database, incarnation, units[:1])
        sent.extend(publisher.sent_ids)

    sent: list[int] = []
    dispatch_rounds(config, *[nothing] * 3, claim_first, *[nothing] * 3, publisher=publisher)
    assert publisher.sent_ids.count(units[0]) == sent.count(units[0])
    assert publisher.sent_ids.count(units[1]) > sent.count(units[1])


# --- the end of tasks


@pytest.mark.parametrize("last", [state for state in UnitState if state != UnitState.FINISHED])
def test_a_task_is_finished_when_all_its_units_have_ended(database: Database, config: Config, last: UnitState) -> None:
    units, others = add_task(database, hosts=6, unit_hosts=2), add_task(database, hosts=2, unit_hosts=2)
    incarnation = add_engine(database, slots=2)
    change(database, units[:2], state=UnitState.FINISHED)
    change(database, units[2:], state=last, incarnation=incarnation)
    change(database, others, state=RUNNING, incarnation=incarnation)
    dispatch_rounds(config, nothing, nothing)
    ended = last == UnitState.CANCELLED
    assert task_state_of(database, units[0]) == (TaskState.FINISHED if ended else TaskState.QUEUED)
    change(database, units[2:], state=UnitState.FINISHED)
    dispatch_rounds(config, nothing, nothing)
    assert task_state_of(database, units[0]) == TaskState.FINISHED
    assert task_state_of(database, others[0]) == TaskState.QUEUED
    finished_at = sa.select(task.c.finished_at.is_not(None)).order_by(task.c.key)
    assert database.read(lambda connection: list(connection.scalars(finished_at))) == [True, False]


def test_a_cancelled_task_stays_cancelled(database: Database, config: Config) -> None:
    units = add_task(database, hosts=2, unit_hosts=2)
    change(database, units, state=UnitState.CANCELLED)
    database.write(lambda connection: connection.execute(sa.update(task).values(state=TaskState.CANCELLED)))
    dispatch_rounds(config, nothing, nothing)
    assert task_state_of(database, units[0]) == TaskState.CANCELLED


# --- dead engines


def look_for(engines: DeadEngines, clock: Clock, seconds: float, between: Callable[[], object] = nothing) -> int:
    """Look as often as it is due; returns how many live at the end."""
    live = engines.look()
    for _ in range(int(seconds / LOOK_SECONDS)):
        clock.pass_(LOOK_SECONDS)
        between()
        live = engines.look()
    return live


def test_the_units_of_an_engine_whose_beat_stands_still_are_settled_after_the_lease(
    database: Database, clock: Clock
) -> None:
    gone, beating = add_engine(database, slots=10), add_engine(database, slots=10, engine_id="engine-2")
    claimed, begun, of_the_other = add_task(database, hosts=9, unit_hosts=3)
    claim(database, gone, [claimed, begun])
    claim(database, beating, [of_the_other])
    change(database, [begun, of_the_other], begun_at=sa.func.now())
    give_result(database, begun, 1)
    engines = DeadEngines(database, LEASE_SECONDS)

    assert look_for(engines, clock, LEASE_SECONDS - LOOK_SECONDS, partial(beat, database, beating)) == 2
    assert engine_state(database, gone) == EngineState.LIVE
    assert unit_row(database, claimed).state == RUNNING

    assert look_for(engines, clock, LOOK_SECONDS, partial(beat, database, beating)) == 1
    assert engine_state(database, gone) == EngineState.DEAD
    assert engine_state(database, beating) == EngineState.LIVE
    back = unit_row(database, claimed)
    assert (back.state, back.incarnation, back.published_at) == (WAITING, None, None)
    assert {row.status for row in host_rows(database, claimed)} == {"queued"}
    ended = unit_row(database, begun)
    assert (ended.state, ended.success, ended.lost) == (UnitState.FINISHED, 1, 2)
    kept, *lost = host_rows(database, begun)
    assert (kept.status, kept.stdout, kept.blame) == ("success", "kept", None)
    for row in lost:
        assert (row.status, row.stopped_on_host) == ("lost", "unknown")
        assert row.msg == row.blame
        assert f"engine-1 on machine-1 gave no sign of life for {LEASE_SECONDS} s" in row.blame
        assert row.finished_at is not None
    assert unit_row(database, of_the_other).state == RUNNING


def test_an_engine_that_beats_in_the_last_moment_is_not_dead(
    database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the declaration."""
    incarnation = add_engine(database, slots=10)
    (unit_id,) = add_task(database, hosts=3, unit_hosts=3)
    claim(database, incarnation, [unit_id])
    declare = dispatch.declare_dead
    asked = []

    def declare_late(connection: sa.Connection, found: str, seen_beat: int) -> bool:
        asked.append(found)
        connection.execute(sa.text("UPDATE engine SET beat = beat + 1"))
        return declare(connection, found, seen_beat)

    monkeypatch.setattr(dispatch, "declare_dead", declare_late)
    assert look_for(DeadEngines(database, LEASE_SECONDS), clock, LEASE_SECONDS) == 1
    assert asked == [incarnation]
    assert engine_state(database, incarnation) == EngineState.LIVE
    assert unit_row(database, unit_id).state == RUNNING


def test_who_was_kept_from_looking_begins_the_wait_again(database: Database, clock: Clock) -> None:
    incarnation = add_engine(database, slots=10)
    engines = DeadEngines(database, LEASE_SECONDS)
    look_for(engines, clock, LEASE_SECONDS - LOOK_SECONDS)
    clock.pass_(1000)  # this process was stopped, or the database hung
    assert look_for(engines, clock, LEASE_SECONDS - LOOK_SECONDS) == 1
    assert engine_state(database, incarnation) == EngineState.LIVE
    assert look_for(engines, clock, LOOK_SECONDS) == 0
    assert engine_state(database, incarnation) == EngineState.DEAD


def test_after_an_outage_of_the_database_the_wait_begins_again(
    database: Database, config: Config, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    incarnation = add_engine(database, slots=10)
    look = partial(clock.pass_, LOOK_SECONDS)
    states: list[EngineState] = []
    glance = dispatch.glance

    def be_away() -> None:
        look()
        monkeypatch.setattr(dispatch, "glance", away)

    def away(connection: sa.Connection) -> dispatch.Glance:
        monkeypatch.setattr(dispatch, "glance", glance)
        raise DatabaseAway("a test said so")

    def note() -> None:
        look()
        states.append(engine_state(database, incarnation))

    whole = int(LEASE_SECONDS / LOOK_SECONDS)
    lifeline = dispatch_rounds(config, *[look] * (whole - 3), be_away, look, *[note] * (whole + 1))
    assert "waiting for the database for 0 s: a test said so" in lifeline.told
    assert states == [EngineState.LIVE] * whole + [EngineState.DEAD]


def test_units_of_an_engine_that_was_stopped_are_settled_at_once(database: Database, clock: Clock) -> None:
    incarnation = add_engine(database, slots=10, state=EngineState.STOPPED)
    claimed, begun = add_task(database, hosts=4, unit_hosts=2)
    claim(database, incarnation, [claimed, begun])
    change(database, [begun], begun_at=sa.func.now())
    DeadEngines(database, LEASE_SECONDS).look()
    assert unit_row(database, claimed).state == WAITING
    assert unit_row(database, begun).lost == 2
    assert {"was stopped before it had a result" in row.blame for row in host_rows(database, begun)} == {True}


def test_a_settlement_that_died_half_way_is_finished_by_the_next_look(
    database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    incarnation = add_engine(database, slots=10)
    held = add_task(database, hosts=6, unit_hosts=2)
    claim(database, incarnation, held)
    engines = DeadEngines(database, LEASE_SECONDS)
    settled: list[int] = []

    def settle_one(connection: sa.Connection, unit_id: int, *arguments: Any) -> None:
        if settled:
            raise DatabaseAway("died")
        settled.append(unit_id)
        settle(connection, unit_id, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr("contract.units.settle", settle_one)
        with pytest.raises(DatabaseAway):
            look_for(engines, clock, LEASE_SECONDS)
    assert units_in(database, WAITING) == settled
    DeadEngines(database, LEASE_SECONDS).look()
    assert units_in(database, WAITING) == held


@contextmanager
def beating(settings: DatabaseSettings, incarnation: str, may_beat: threading.Event) -> Iterator[None]:
    """An engine that lives as long as the block, and beats while it may; an absent database is tried again."""
    own, over = Database(settings, answer_timeout_seconds=1), threading.Event()

    def live() -> None:
        while not over.wait(0.1):
            if may_beat.is_set():
                try:
                    beat(own, incarnation)
                except DatabaseAway:
                    continue

    thread = threading.Thread(target=live)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(60)
        own.close()


def test_a_dispatcher_at_work_takes_a_dead_engine_s_unit_and_gives_it_to_others(
    database: Database, database_settings: DatabaseSettings
) -> None:
    gone, living = add_engine(database, slots=10), add_engine(database, slots=10, engine_id="engine-2")
    claimed, begun = add_task(database, hosts=4, unit_hosts=2)
    claim(database, gone, [claimed, begun])
    change(database, [begun], begun_at=sa.func.now())
    may_beat = threading.Event()
    may_beat.set()
    with (
        beating(database_settings, living, may_beat),
        dispatching(config_of(database_settings, lease_seconds=3)) as lifeline,
    ):
        wait_for("the unit to be published again", lambda: units_in(database, PUBLISHED) == [claimed])
        wait_for("the begun one to end", lambda: unit_row(database, begun).state == UnitState.FINISHED)
        wait_for("the status", lambda: lifeline.last.endswith(", engines live: 1"))
    assert (engine_state(database, gone), engine_state(database, living)) == (EngineState.DEAD, EngineState.LIVE)


def test_a_server_that_hung_for_longer_than_a_lease_kills_no_engine(server_directory: Path) -> None:
    server = MariaDB(server_directory)
    server.start()
    try:
        settings = create(server)
        database = Database(settings)
        migrations.upgrade(database)
        incarnation = add_engine(database, slots=10)
        may_beat = threading.Event()
        may_beat.set()
        with beating(settings, incarnation, may_beat), dispatching(config_of(settings, lease_seconds=6)) as lifeline:
            wait_for("the engine to be seen", lambda: lifeline.last.endswith(", engines live: 1"))
            may_beat.clear()
            server.pause()
            wait_for("the outage to be noticed", lambda: lifeline.last.startswith("waiting for the database"))
            threading.Event().wait(2.0)  # more than what is left of the lease
            server.resume()
            led = leader_row(database).beat
            wait_for("the dispatcher to work on", lambda: leader_row(database).beat >= led + 2)
            may_beat.set()
            led = leader_row(database).beat
            wait_for("some looks", lambda: leader_row(database).beat >= led + 2)
            assert engine_state(database, incarnation) == EngineState.LIVE
        database.close()
    finally:
        server.stop()


# --- who leads


def test_of_several_dispatchers_one_leads_and_another_one_when_it_resigns(database: Database, config: Config) -> None:
    add_engine(database, slots=10)
    with dispatching(config) as second_line:
        with dispatching(config) as first_line:
            wait_for("a leader", lambda: {first_line.last[:6], second_line.last[:6]} == {"leads;", "stands"})
            holder = leader_row(database).holder
            beats = leader_row(database).beat
            wait_for("some beats", lambda: leader_row(database).beat >= beats + 2)
            assert leader_row(database).holder == holder
            assert [line.last[:5] for line in (first_line, second_line)].count("leads") == 1
        wait_for("the other one to lead", lambda: second_line.last.startswith("leads"))
        units = add_task(database, hosts=2, unit_hosts=2)
        wait_for("the unit to be published", lambda: units_in(database, PUBLISHED) == units)
    assert leader_row(database).holder == ""


def test_a_leader_whose_beat_goes_on_is_not_replaced(
    database: Database, database_settings: DatabaseSettings, clock: Clock, config: Config
) -> None:
    """The one who stands by sees another beat each time; it takes over when it has seen the same one for long."""
    database.write(dispatch.add_leader_row)
    assert database.write(partial(dispatch.take_over, seen=Leader("", 0), holder="other"))

    def beat_on() -> None:
        clock.pass_(leadership.LOOK_SECONDS)
        assert database.write(partial(dispatch.beat, holder="other"))

    def be_silent() -> None:
        clock.pass_(leadership.LOOK_SECONDS)
        holders.append(leader_row(database).holder)

    holders: list[str] = []
    seconds = leadership.TAKEOVER_SECONDS[1]
    dispatch_rounds(config, *[beat_on] * int(3 * seconds), *[be_silent] * int(seconds + 2))
    assert holders[: int(leadership.TAKEOVER_SECONDS[0])] == ["other"] * int(leadership.TAKEOVER_SECONDS[0])
    assert holders[-1] not in ("other", "")


def test_a_former_leader_publishes_nothing(
    database: Database, config: Config, publisher: RememberingPublisher, clock: Clock
) -> None:
    """Its own beat is not due yet, so it believes to lead: the transaction that publishes begins with a fence."""

    def take_over_and_submit() -> None:
        seen = leader_row(database)
        assert database.write(partial(dispatch.take_over, seen=seen, holder="other"))
        units.extend(add_task(database, hosts=4, unit_hosts=2))

    units: list[int] = []
    lifeline = dispatch_rounds(config, nothing, take_over_and_submit, nothing, nothing, publisher=publisher)
    assert units_in(database, WAITING) == units
    assert publisher.sent == []
    assert lifeline.last == "stands by: another dispatcher leads"
    assert leader_row(database).holder == "other"  # it has not resigned in the other's name


def test_a_take_over_of_what_was_not_seen_last_fails(database: Database) -> None:
    database.write(dispatch.add_leader_row)
    database.write(dispatch.add_leader_row)  # there already
    seen = leader_row(database)
    assert seen == Leader("", 0)
    assert database.write(partial(dispatch.take_over, seen=seen, holder="first"))
    assert not database.write(partial(dispatch.take_over, seen=seen, holder="second"))
    seen = leader_row(database)
    assert database.write(partial(dispatch.beat, holder="first"))
    assert not database.write(partial(dispatch.take_over, seen=seen, holder="second"))
    assert not database.write(partial(dispatch.beat, holder="second"))
    database.write(partial(dispatch.resign, holder="second"))
    assert leader_row(database) == Leader("first", 2)


@pytest.fixture
def processes(tmp_path: Path, topic: str, database_settings: DatabaseSettings) -> Iterator[list[Process]]:
    """Two dispatcher processes on one database; the first one leads."""
    backend = Backend("alone", tmp_path, topic, database_settings)
    argv = [sys.executable, "-m", "distribute", "dispatcher", "--config", str(backend.config_file())]
    started = [Process(tmp_path, f"dispatcher-{number}") for number in (1, 2)]
    for process in started:
        process.start(argv, {**os.environ, "PYTHONPATH": str(ROOT)})
        process.wait_until(lambda process=started[0]: "this dispatcher leads" in process.log())  # type: ignore[misc]
    yield started
    for process in started:
        process.stop()


def test_when_the_leading_process_is_killed_another_one_goes_on(database: Database, processes: list[Process]) -> None:
    first, second = processes
    first.stop(first=signal.SIGKILL)
    second.wait_until(lambda: "this dispatcher leads" in second.log())
    units = add_task(database, hosts=2, unit_hosts=2)
    second.wait_until(lambda: units_in(database, PUBLISHED) == units)


def test_a_leading_process_that_was_paused_finds_another_one_leading_and_changes_nothing(
    database: Database, processes: list[Process]
) -> None:
    first, second = processes
    beats = leader_row(database).beat
    wait_for("a beat", lambda: leader_row(database).beat > beats)
    first.pause()  # between two of its transactions: the next beat is two seconds away
    second.wait_until(lambda: "this dispatcher leads" in second.log())
    holder = leader_row(database).holder
    units = add_task(database, hosts=4, unit_hosts=2)
    second.wait_until(lambda: units_in(database, PUBLISHED) == units[:1])
    published_at = unit_row(database, units[0]).published_at
    first.send(signal.SIGCONT)
    first.wait_until(lambda: "another dispatcher has taken over" in first.log())
    beats = leader_row(database).beat
    wait_for("some beats", lambda: leader_row(database).beat >= beats + 2)
    assert leader_row(database).holder == holder
    assert unit_row(database, units[0]).published_at == published_at
    assert units_in(database, WAITING) == units[1:]
