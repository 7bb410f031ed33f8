"""Expired tasks are deleted, on SQLite and on MariaDB: which of them, how much at a time, and by whom."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from contract.config import DatabaseSettings
from contract.database import Database, now
from contract.states import ENDED_TASKS, OPEN_STATUSES, HostStatus, TaskState, UnitState
from contract.tables import host_result, task, unit
from distribute import retention
from distribute.errors import NotLeading
from distribute.retention import BATCH, Retention, SteadyClock
from distribute.store import retention as store
from tests.integration.dispatching import add_task, change, config_of, dispatch_rounds, dispatching, nothing
from tests.integration.rest import Rest, counts
from tests.servers.process import wait_for

DAYS = 7
OLD, YOUNG = timedelta(days=DAYS, minutes=1), timedelta(days=DAYS) - timedelta(minutes=1)


class Clock:
    """Goes on when it is told to, and shows the wrong time when it is told to."""

    def __init__(self) -> None:
        self._passed = 0.0
        self.ahead = timedelta()

    def monotonic(self) -> float:
        return self._passed

    def wall(self) -> datetime:
        return now() + timedelta(seconds=self._passed) + self.ahead

    def pass_(self, seconds: float) -> None:
        self._passed += seconds


def no_fence(_: sa.Connection) -> None:
    """Who looks leads."""


def keeper(database: Database) -> Retention:
    """Whose clock is believed at its first look."""
    return Retention(database, DAYS, SteadyClock(steady_seconds=0))


def delete_all(database: Database) -> int:
    """Returns how many batches it took."""
    expired, batches = keeper(database), 0
    while expired.look(no_fence):
        batches += 1
        assert batches < 1000
    return batches


def add_ended(
    database: Database, age: timedelta | None = OLD, state: TaskState = TaskState.FINISHED, hosts: int = 5
) -> str:
    """A task of two units that was finished so long ago, or has no such time; returns its id."""
    units = add_task(database, hosts=hosts, unit_hosts=-(-hosts // 2))
    change(database, units, state=UnitState.FINISHED)
    task_key = sa.select(unit.c.task_key).where(unit.c.id == units[0]).scalar_subquery()
    finished_at = None if age is None else now() - age
    end = sa.update(task).where(task.c.key == task_key)
    database.write(lambda connection: connection.execute(end.values(state=state, finished_at=finished_at)))
    return newest_id(database)


def newest_id(database: Database) -> str:
    return kept_ids(database)[-1]


@contextmanager
def listening(database: Database, listener: Callable[..., None]) -> Iterator[None]:
    """The listener hears of each statement before it is sent."""
    sa.event.listen(database.engine, "before_cursor_execute", listener)
    yield
    sa.event.remove(database.engine, "before_cursor_execute", listener)


def kept_ids(database: Database) -> list[str]:
    query = sa.select(task.c.id).order_by(task.c.key)
    return database.read(lambda connection: list(connection.scalars(query)))


# --- which of them


@pytest.mark.parametrize("state", ENDED_TASKS)
def test_an_ended_task_that_is_older_than_the_days_goes_with_all_its_rows(database: Database, state: TaskState) -> None:
    young = add_ended(database, YOUNG, state)
    assert delete_all(database) == 0
    add_ended(database, OLD, state)
    add_ended(database, 10 * OLD, state)
    assert counts(database) == (3, 6, 15)
    delete_all(database)
    assert kept_ids(database) == [young]
    assert counts(database) == (1, 2, 5)
    assert delete_all(database) == 0


@pytest.mark.parametrize("state", [state for state in TaskState if state not in ENDED_TASKS])
def test_a_task_that_has_not_ended_stays_however_old_it_is(database: Database, state: TaskState) -> None:
    add_ended(database, 10 * OLD, state)
    assert delete_all(database) == 0
    assert counts(database) == (1, 2, 5)


def test_a_task_that_does_not_say_when_it_ended_stays(database: Database) -> None:
    add_ended(database, None)
    assert delete_all(database) == 0


def test_a_task_that_ended_late_hides_no_other_one(database: Database) -> None:
    late = add_ended(database, YOUNG)
    add_ended(database, OLD)
    delete_all(database)
    assert kept_ids(database) == [late]


def test_tasks_whose_end_is_in_the_future_hide_no_other_one(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock was a year ahead when they ended."""
    monkeypatch.setattr(store, "FIRST_TASKS", 2)
    ahead = [add_ended(database, timedelta(days=-365)) for _ in range(3)]
    add_ended(database, OLD)
    delete_all(database)
    assert kept_ids(database) == ahead


def test_a_look_reads_a_few_tasks_however_many_are_kept(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than its limit, and by an index; those behind them wait for the first ones to go."""
    monkeypatch.setattr(store, "FIRST_TASKS", 2)
    plans: list[str] = []

    def explain(connection: sa.Connection, _: object, statement: str, parameters: Any, *__: object) -> None:
        if "finished_at" in statement and not statement.startswith("EXPLAIN"):
            how = "EXPLAIN QUERY PLAN" if database.is_sqlite else "EXPLAIN"
            plans.append(str(connection.exec_driver_sql(f"{how} {statement}", parameters).all()))

    young = [add_ended(database, timedelta(days=1)) for _ in range(50)]
    hidden = add_ended(database, OLD)
    with listening(database, explain):
        assert delete_all(database) == 0
    assert len(plans) == len(ENDED_TASKS)
    assert all("task_by_state" in plan for plan in plans)
    first = sa.update(task).where(task.c.id == young[0]).values(finished_at=now() - OLD)
    database.write(lambda connection: connection.execute(first))
    delete_all(database)
    assert kept_ids(database) == [*young[1:], hidden]


def test_a_task_whose_rerun_is_younger_goes(database: Database) -> None:
    before = add_ended(database, OLD)
    again = add_ended(database, YOUNG)
    linked = sa.update(task).where(task.c.id == again).values(rerun_of=before)
    database.write(lambda connection: connection.execute(linked))
    delete_all(database)
    assert kept_ids(database) == [again]


def test_a_deleted_task_is_not_found_and_its_id_is_free(database: Database) -> None:
    rest = Rest(database)
    rest.submit("a,b", task_id="t")
    rest.submit("a", task_id="other")
    ended = sa.update(task).where(task.c.id == "t").values(state=TaskState.FINISHED, finished_at=now() - OLD)
    database.write(lambda connection: connection.execute(ended))
    delete_all(database)
    for path in ("/tasks/t/", "/tasks/t/hosts/"):
        rest.get(path, 404)
    rest.get("/adhoc/", 404, task_id="t")
    rest.post("/tasks/t/rerun/", {}, 404)
    assert [item["task_id"] for item in rest.get("/adhoc/", ip="a")["data"]] == ["other"]
    rest.submit("c", task_id="t")


# --- how much at a time


def test_a_large_task_goes_in_several_batches(database: Database) -> None:
    young = add_ended(database, YOUNG)
    add_ended(database, hosts=2500)
    seen, expired = [counts(database)], keeper(database)
    while expired.look(no_fence):
        seen.append(counts(database))
    assert [hosts - 5 for _, _, hosts in seen] == [2500, 2500 - BATCH, 2500 - 2 * BATCH, 0, 0]
    assert [(tasks, units) for tasks, units, _ in seen] == [(2, 4)] * 4 + [(1, 2)]
    assert kept_ids(database) == [young]


def test_many_units_go_in_several_batches(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 10)
    change(database, add_task(database, hosts=30, unit_hosts=1), state=UnitState.FINISHED)
    database.write(lambda c: c.execute(sa.update(task).values(state=TaskState.FINISHED, finished_at=now() - OLD)))
    seen, expired = [counts(database)], keeper(database)
    while expired.look(no_fence):
        seen.append(counts(database))
    assert [hosts for _, _, hosts in seen] == [30, 20, 10, 0, 0, 0, 0, 0]
    assert [units for _, units, _ in seen] == [30, 30, 30, 30, 20, 10, 0, 0]
    assert [tasks for tasks, _, _ in seen] == [1] * 7 + [0]


@pytest.mark.parametrize("batches", [1, 2, 3])
def test_after_a_stop_in_the_middle_another_one_goes_on(database: Database, batches: int) -> None:
    young = add_ended(database, YOUNG)
    add_ended(database, hosts=2 * BATCH + 1)
    first = keeper(database)
    for _ in range(batches):
        assert first.look(no_fence)
    assert counts(database) == (2, 4, 5 + max(0, (2 - batches) * BATCH + 1))
    delete_all(database)
    assert kept_ids(database) == [young]
    assert counts(database) == (1, 2, 5)


def test_who_does_not_lead_any_more_deletes_nothing(database: Database) -> None:
    add_ended(database)

    def fence(_: sa.Connection) -> None:
        raise NotLeading("another dispatcher has taken over")

    with pytest.raises(NotLeading):
        keeper(database).look(fence)
    assert counts(database) == (1, 2, 5)


@pytest.mark.parametrize("batches", [0, 1])
def test_a_task_that_is_not_expired_when_its_rows_are_locked_keeps_them(database: Database, batches: int) -> None:
    """It was found by a SELECT before; nothing brings a task back today, and what does it one day is not undone."""
    add_ended(database)
    expired = keeper(database)
    for _ in range(batches):
        expired.look(no_fence)

    def run_again(connection: sa.Connection) -> None:
        connection.execute(sa.update(task).values(state=TaskState.RUNNING))

    before = counts(database)
    assert expired.look(run_again)
    assert not expired.look(no_fence)
    assert counts(database) == before


# --- by whom


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "LOOK_SECONDS", 0.3)


@pytest.mark.usefixtures("often")
def test_a_dispatcher_at_work_deletes_what_is_expired_and_nothing_else(
    database: Database, database_settings: DatabaseSettings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger=retention.__name__)
    young = add_ended(database, YOUNG)
    finished, cancelled = add_ended(database, hosts=2500), add_ended(database, state=TaskState.CANCELLED)
    units = add_task(database, hosts=4, unit_hosts=2)
    running = newest_id(database)
    config = config_of(database_settings)
    config = replace(config, distribute=replace(config.distribute, retention_days=DAYS))
    with dispatching(config) as lifeline:
        wait_for("the expired tasks to go", lambda: kept_ids(database) == [young, running])
        wait_for("the dispatcher's other work", lambda: lifeline.last.startswith("leads"))
        later = add_ended(database)
        wait_for("what expires later to go", lambda: kept_ids(database) == [young, running])
    assert counts(database) == (2, 4, 9)
    query = sa.select(host_result.c.status).where(host_result.c.unit_id.in_(units)).distinct()
    assert database.read(lambda c: list(c.scalars(query))) == [HostStatus.QUEUED]
    assert HostStatus.QUEUED in OPEN_STATUSES
    gone = [(record.task, record.hosts) for record in caplog.records]  # type: ignore[attr-defined]
    assert gone == [(finished, 2500), (cancelled, 5), (later, 5)]


def test_a_dispatcher_that_does_not_know_its_clock_yet_deletes_nothing(
    database: Database, database_settings: DatabaseSettings
) -> None:
    add_ended(database, 1000 * OLD)
    dispatch_rounds(config_of(database_settings), *[nothing] * 5)
    assert counts(database) == (1, 2, 5)


def test_while_its_clock_is_a_year_ahead_a_dispatcher_deletes_nothing(
    database: Database, database_settings: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    young = add_ended(database, YOUNG)
    clock = Clock()
    monkeypatch.setattr(retention, "LOOK_SECONDS", 0)  # at each turn
    monkeypatch.setattr(retention, "MORE_SECONDS", 0)
    monkeypatch.setattr(retention, "RESTS", 0)
    monkeypatch.setattr(retention, "SteadyClock", lambda steady_seconds: SteadyClock(clock.monotonic, clock.wall, 60))

    def be_ahead() -> None:
        clock.pass_(60)
        clock.ahead = timedelta(days=365)

    def be_right() -> None:
        clock.ahead = timedelta()
        add_ended(database, timedelta(days=91))

    def soon() -> None:
        assert young in kept_ids(database)
        clock.pass_(10)

    def later() -> None:
        assert len(kept_ids(database)) == 2
        clock.pass_(60)

    dispatch_rounds(config_of(database_settings), be_ahead, *[soon] * 4, be_right, soon, soon, later, *[nothing] * 3)
    assert kept_ids(database) == [young]


def test_a_former_leader_deletes_nothing(
    database: Database, database_settings: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one takes over between its turn's beat and the look."""
    add_ended(database, 1000 * OLD)
    look: Callable[..., bool] = Retention.look
    asked = []

    def look_late(self: Retention, fence: Callable[[sa.Connection], None]) -> bool:
        asked.append(True)
        database.write(lambda connection: connection.execute(sa.text("UPDATE leader SET holder = 'other'")))
        return look(self, fence)

    monkeypatch.setattr(Retention, "look", look_late)
    monkeypatch.setattr(retention, "SteadyClock", lambda steady_seconds: SteadyClock(steady_seconds=0))
    lifeline = dispatch_rounds(config_of(database_settings), *[nothing] * 4)
    assert asked == [True]
    assert lifeline.last == "stands by: another dispatcher leads"
    assert counts(database) == (1, 2, 5)
