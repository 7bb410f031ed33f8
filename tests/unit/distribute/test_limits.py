"""How much one client may, with a clock of the test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from distribute import limits
from distribute.limits import BURST_SECONDS, MOST_REFUSALS, WINDOW_SECONDS, Pace, Refusals


class Clock:
    now = 1000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(limits.time, "monotonic", lambda: clock.now)
    return clock


def count_answered(pace: Pace, name: str, times: int) -> int:
    return sum(pace.wait_seconds(name) == 0 for _ in range(times))


def test_a_burst_is_answered_and_then_so_many_a_second(clock: Clock) -> None:
    pace = Pace(10)
    burst = 10 * BURST_SECONDS
    assert count_answered(pace, "a", 2 * burst) == burst
    assert pace.wait_seconds("a") == pytest.approx(0.1)
    assert count_answered(pace, "b", burst) == burst  # another one's bucket
    for _ in range(30):
        clock.now += 0.1001
        assert count_answered(pace, "a", 5) == 1  # refused ones cost nothing more
    clock.now += 1000
    assert count_answered(pace, "a", 2 * burst) == burst


def test_0_is_no_limit(clock: Clock) -> None:
    assert count_answered(Pace(0), "a", 100_000) == 100_000


def test_the_names_that_are_remembered_are_bounded(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_NAMES", 3)
    pace = Pace(1)
    for name in "abcd":
        assert count_answered(pace, name, 10) == BURST_SECONDS
    assert [count_answered(pace, name, 1) for name in "bcd"] == [0, 0, 0]
    assert count_answered(pace, "a", 1) == 1  # forgotten


class Timer:
    """As threading's; ended by the test."""

    started: ClassVar[list[Timer]] = []

    def __init__(self, seconds: float, call: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        self.seconds = seconds
        self.end = lambda: call(*arguments)

    def start(self) -> None:
        self.started.append(self)


def test_refusals_are_let_through_up_to_a_number_and_the_rest_is_told_once(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits.threading, "Timer", Timer)
    monkeypatch.setattr(Timer, "started", [])
    refusals = Refusals()
    told: list[int] = []
    clock.now += 1
    assert [refusals.admits("a", told.append) for _ in range(MOST_REFUSALS)] == [True] * MOST_REFUSALS
    clock.now += WINDOW_SECONDS - 10
    assert not any(refusals.admits("a", told.append) for _ in range(7))
    assert refusals.admits("b", told.append)
    (timer,) = Timer.started
    assert timer.seconds == pytest.approx(10)
    clock.now += 10
    timer.end()
    assert told == [7]
    assert refusals.admits("a", told.append)


def test_a_quiet_client_is_never_told_of(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits.threading, "Timer", Timer)
    monkeypatch.setattr(Timer, "started", [])
    refusals = Refusals()
    for _ in range(3 * MOST_REFUSALS):
        clock.now += WINDOW_SECONDS / MOST_REFUSALS * 1.001
        assert refusals.admits("a", lambda _: None)
    assert Timer.started == []
