"""When the wall clock is believed, and how often expired tasks are looked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

import pytest
import sqlalchemy as sa

from contract.database import Database
from contract.errors import DatabaseAway, DatabaseError
from distribute import retention
from distribute.errors import NotLeading
from distribute.retention import BATCH, LOOK_SECONDS, MORE_SECONDS, RESTS, SLOW_SECONDS, Retention, SteadyClock
from distribute.store.retention import ExpiredTask

START = datetime(2026, 1, 31, 12)
YEAR = 365 * 86_400.0


@dataclass
class Clocks:
    """Both clocks; also in the place of the module `time`."""

    moment: float = 1000.0
    wall: datetime = START

    def monotonic(self) -> float:
        return self.moment

    def now(self) -> datetime:
        return self.wall

    def pass_(self, seconds: float) -> None:
        self.moment += seconds
        self.step(seconds)

    def step(self, seconds: float) -> None:
        self.wall += timedelta(seconds=seconds)


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def clock(clocks: Clocks) -> SteadyClock:
    """That has been steady for an interval."""
    clock = SteadyClock(clocks.monotonic, clocks.now)
    clock.look()
    clocks.pass_(LOOK_SECONDS)
    assert clock.look() == clocks.wall
    return clock


# --- the clock


def test_a_clock_is_believed_when_it_was_steady_for_a_whole_interval(clocks: Clocks) -> None:
    clock = SteadyClock(clocks.monotonic, clocks.now)
    assert clock.look() is None
    clocks.pass_(LOOK_SECONDS - 0.1)
    assert clock.look() is None
    clocks.pass_(0.1)
    assert clock.look() == clocks.wall


@pytest.mark.parametrize("seconds", [YEAR, 3600, 61, -61, -YEAR])
def test_a_clock_that_was_set_is_not_believed_until_it_was_steady_again(
    clocks: Clocks, clock: SteadyClock, seconds: float
) -> None:
    clocks.pass_(LOOK_SECONDS)
    clocks.step(seconds)
    assert clock.look() is None
    clocks.pass_(LOOK_SECONDS - 0.1)
    assert clock.look() is None
    clocks.pass_(0.1)
    assert clock.look() == clocks.wall


def test_a_clock_that_is_a_year_ahead_for_a_moment_is_never_believed_meanwhile(
    clocks: Clocks, clock: SteadyClock
) -> None:
    """Seen between two looks of a busy time, and set back within the interval: the wait begins again with that."""
    clocks.pass_(MORE_SECONDS)
    clocks.step(YEAR)
    for _ in range(100):
        assert clock.look() is None
        clocks.pass_(MORE_SECONDS)
    clocks.step(-YEAR)
    assert clock.look() is None
    clocks.pass_(LOOK_SECONDS - 0.1)
    assert clock.look() is None
    clocks.pass_(0.1)
    assert clock.look() == clocks.wall < START + timedelta(days=1)


def test_small_corrections_and_a_leap_second_are_no_step(clocks: Clocks, clock: SteadyClock) -> None:
    for correction in (1, -1, 0.3, 59, -59):
        clocks.pass_(LOOK_SECONDS)
        clocks.step(correction)
        assert clock.look() == clocks.wall


def test_a_long_time_without_a_look_is_no_step(clocks: Clocks, clock: SteadyClock) -> None:
    """Another one led, or the database was away."""
    clocks.pass_(YEAR)
    assert clock.look() == clocks.wall


def test_a_machine_that_slept_waits_an_interval(clocks: Clocks, clock: SteadyClock) -> None:
    """The monotonic clock stood still meanwhile."""
    clocks.step(8 * 3600)
    assert clock.look() is None
    clocks.pass_(LOOK_SECONDS)
    assert clock.look() == clocks.wall


# --- how often


def nothing(_: sa.Connection) -> None:
    """A fence."""


@dataclass
class Tasks:
    """In the place of the database and the SQL: so many batches there are, and each takes so long."""

    clocks: Clocks
    batches: int = 0
    seconds: float = 0.0
    error: Exception | None = None
    looks: int = 0
    limits: tuple[int, ...] = ()

    def read(self, work: Callable[[Any], Any]) -> Any:
        self.looks += 1
        return work(None)

    def write(self, work: Callable[[Any], Any]) -> Any:
        self.clocks.pass_(self.seconds)
        if self.error is not None:
            raise self.error
        return work(None)

    def oldest_expired(self, _: object, before: datetime, now: datetime) -> ExpiredTask | None:
        assert (before, now) == (self.clocks.wall - timedelta(days=90), self.clocks.wall)
        return ExpiredTask(1, "t", 7) if self.batches else None

    def delete_some(self, _: object, __: int, ___: datetime, limit: int) -> bool:
        self.limits += (limit,)
        self.batches -= 1
        return not self.batches


@pytest.fixture
def tasks(clocks: Clocks, monkeypatch: pytest.MonkeyPatch) -> Tasks:
    tasks = Tasks(clocks)
    monkeypatch.setattr(retention, "time", clocks)
    monkeypatch.setattr(retention, "retention", tasks)
    return tasks


@pytest.fixture
def kept(tasks: Tasks, clock: SteadyClock) -> Retention:
    return Retention(cast(Database, tasks), 90, clock)


def looks_after(kept: Retention, tasks: Tasks, seconds: float) -> bool:
    """Whether there is a look when so much time has passed, and none just before."""
    before = tasks.looks
    tasks.clocks.pass_(seconds - 0.01)
    kept.keep(nothing)
    early = tasks.looks > before
    tasks.clocks.pass_(0.02)
    kept.keep(nothing)
    return not early and tasks.looks == before + 1


def test_while_nothing_is_expired_a_look_a_minute(kept: Retention, tasks: Tasks) -> None:
    assert kept.keep(nothing) is False
    assert tasks.looks == 1
    assert looks_after(kept, tasks, LOOK_SECONDS)
    assert looks_after(kept, tasks, LOOK_SECONDS)


def test_while_there_is_more_a_batch_each_fifth_of_a_second(
    kept: Retention, tasks: Tasks, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    tasks.batches = 3
    assert kept.keep(nothing) is True
    assert kept.keep(nothing) is True
    assert tasks.batches == 2
    assert looks_after(kept, tasks, MORE_SECONDS)
    assert caplog.messages == []
    assert looks_after(kept, tasks, MORE_SECONDS)
    assert caplog.messages == ["an expired task is deleted"]
    assert (caplog.records[0].task, caplog.records[0].hosts) == ("t", 7)  # type: ignore[attr-defined]
    assert tasks.limits == (BATCH,) * 3
    assert looks_after(kept, tasks, MORE_SECONDS)
    assert looks_after(kept, tasks, LOOK_SECONDS)


def test_slow_batches_become_smaller_and_leave_the_dispatcher_most_of_its_time(kept: Retention, tasks: Tasks) -> None:
    tasks.batches, tasks.seconds = 100, SLOW_SECONDS + 1
    kept.keep(nothing)
    for _ in range(12):
        assert looks_after(kept, tasks, RESTS * tasks.seconds)
    assert (tasks.limits[:3], tasks.limits[-1]) == ((BATCH, BATCH // 2, BATCH // 4), 1)
    tasks.seconds = 0.0
    tasks.clocks.pass_(LOOK_SECONDS)
    kept.keep(nothing)
    for _ in range(12):
        assert looks_after(kept, tasks, MORE_SECONDS)
    assert tasks.limits[-1] == BATCH


@pytest.mark.parametrize("error", [DatabaseAway("no answer"), NotLeading("another one")])
def test_what_the_dispatcher_has_to_know_is_raised_and_the_next_look_is_a_minute_away(
    kept: Retention, tasks: Tasks, error: Exception
) -> None:
    tasks.batches, tasks.error = 1, error
    with pytest.raises(type(error)):
        kept.keep(nothing)
    tasks.error = None
    assert looks_after(kept, tasks, LOOK_SECONDS)
    assert tasks.batches == 0


def test_what_the_database_refuses_is_said_and_does_not_stop_the_dispatcher(
    kept: Retention, tasks: Tasks, caplog: pytest.LogCaptureFixture
) -> None:
    tasks.batches, tasks.error = 1, DatabaseError("DELETE command denied")
    assert kept.keep(nothing) is False
    assert [(record.levelname, record.error) for record in caplog.records] == [  # type: ignore[attr-defined]
        ("WARNING", "DELETE command denied")
    ]
    tasks.error = None
    assert looks_after(kept, tasks, LOOK_SECONDS)
    assert tasks.batches == 0


def test_while_the_clock_is_not_believed_nobody_is_asked(kept: Retention, tasks: Tasks) -> None:
    tasks.batches = 1
    tasks.clocks.step(YEAR)
    assert kept.keep(nothing) is False
    assert tasks.looks == 0
    assert looks_after(kept, tasks, LOOK_SECONDS)
    assert tasks.batches == 0
