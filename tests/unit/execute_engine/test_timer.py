from __future__ import annotations

import pytest

from execute_engine.timer import TICK_SECONDS, Timer


@pytest.mark.parametrize("seconds", [0.2, 1.7])
def test_it_is_due_at_once_then_after_its_time_and_whenever_it_is_told(seconds: float) -> None:
    timer = Timer(seconds)
    assert timer.due(100.1)
    assert not timer.due(100.1 + seconds - 0.01)
    assert timer.due(100.1 + seconds + 0.01)
    timer.now()
    assert timer.due(100.1 + seconds + 0.02)


@pytest.mark.parametrize("seconds", [0.5, 1.0, 5.0])
def test_several_become_due_together_whenever_they_began(seconds: float) -> None:
    first, second = Timer(seconds), Timer(1.0)
    first.due(100.1)
    second.due(100.4)
    assert first.at % TICK_SECONDS == second.at % TICK_SECONDS == 0.0


@pytest.mark.parametrize("seconds", [0.5, 1.0, 5.0])
def test_from_then_on_it_is_due_as_often_as_it_should(seconds: float) -> None:
    timer, moment = Timer(seconds), 100.1
    timer.due(moment)
    assert moment < timer.at <= moment + seconds
    for _ in range(10):
        before = moment = timer.at + 0.003  # the loop is never there in time
        assert timer.due(moment)
        assert timer.at == pytest.approx(before + seconds - 0.003)


def test_one_that_rests_is_due_a_whole_time_later() -> None:
    timer = Timer(1.7)
    timer.rest(100.0)
    assert not timer.due(101.6)
    assert timer.due(101.8)
