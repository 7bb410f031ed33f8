"""Wrong tokens by address, with a clock of the test."""

from __future__ import annotations

import pytest

from distribute import throttle
from distribute.throttle import BURST, PER_SECOND, Throttle


class Clock:
    now = 1000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(throttle.time, "monotonic", lambda: clock.now)
    return clock


def _fail(throttle: Throttle, address: str, times: int) -> None:
    for number in range(times):
        assert throttle.wait_seconds(address, f"guess {number}") == 0
        throttle.failed(address, f"guess {number}")


def test_after_some_wrong_tokens_an_address_waits_and_another_does_not(clock: Clock) -> None:
    throttle = Throttle()
    _fail(throttle, "a", BURST)
    assert 0 < throttle.wait_seconds("a", "guess") <= 1 / PER_SECOND
    assert throttle.wait_seconds("b", "guess") == 0
    clock.now += 1 / PER_SECOND
    _fail(throttle, "a", 1)
    assert throttle.wait_seconds("a", "guess") > 0
    clock.now += 1000
    _fail(throttle, "a", BURST)


def test_who_has_shown_a_right_token_there_does_not_wait_for_the_guesses_of_others(clock: Clock) -> None:
    throttle = Throttle()
    throttle.passed("a", "right")
    _fail(throttle, "a", BURST)
    assert throttle.wait_seconds("a", "right") == 0
    assert throttle.wait_seconds("a", "guess") > 0
    throttle.failed("a", "right")  # revoked
    assert throttle.wait_seconds("a", "right") > 0


def test_what_is_remembered_is_bounded(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "MOST_ADDRESSES", 3)
    limited = Throttle()
    for address in "abcd":
        _fail(limited, address, BURST)
    assert [limited.wait_seconds(address, "guess") > 0 for address in "abcd"] == [False, True, True, True]
