"""Wrong tokens by address, with a clock of the test."""

from __future__ import annotations

import tracemalloc

import pytest

from distribute import throttle
from distribute.throttle import BURST, MOST_ADDRESSES, PER_SECOND, Throttle


class Clock:
    now = 1000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(throttle.time, "monotonic", lambda: clock.now)
    return clock


def _use_up(throttle: Throttle, address: str) -> None:
    assert [throttle.wrong(address) for _ in range(BURST)] == [0] * BURST
    assert throttle.wrong(address) > 0


def test_after_some_wrong_tokens_an_address_waits_and_another_does_not(clock: Clock) -> None:
    throttle = Throttle()
    _use_up(throttle, "10.0.0.1")
    assert throttle.wrong("10.0.0.1") == 1 / PER_SECOND
    assert throttle.wrong("10.0.0.2") == 0
    clock.now += 0.75 / PER_SECOND
    assert throttle.wrong("10.0.0.1") == 0.25 / PER_SECOND
    clock.now += 0.25 / PER_SECOND
    assert throttle.wrong("10.0.0.1") == 0
    assert throttle.wrong("10.0.0.1") > 0


def test_all_of_them_come_back_and_no_more(clock: Clock) -> None:
    throttle = Throttle()
    _use_up(throttle, "10.0.0.1")
    clock.now += 1000
    _use_up(throttle, "10.0.0.1")


def test_the_addresses_of_an_ipv6_network_count_as_one(clock: Clock) -> None:
    throttle = Throttle()
    for number in range(BURST):
        assert throttle.wrong(f"2001:db8::{number:x}:1") == 0
    assert throttle.wrong("2001:db8:0:0:ffff::") > 0
    assert throttle.wrong("2001:db8:0:1::1") == 0


def test_a_flood_of_addresses_takes_no_more_memory_than_as_many_as_are_remembered(clock: Clock) -> None:
    limited = Throttle()

    def flood(first: int, count: int) -> int:
        """The bytes that are taken afterwards."""
        for number in range(first, first + count):
            limited.wrong(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        filled = flood(0, MOST_ADDRESSES)
        assert flood(MOST_ADDRESSES, 3 * MOST_ADDRESSES) < 1.5 * filled
    finally:
        tracemalloc.stop()


def test_in_a_flood_the_address_that_was_wrong_least_recently_is_forgotten(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "MOST_ADDRESSES", 3)
    limited = Throttle()
    for address in "abca":
        limited.wrong(address)
    for address in "acd":
        for _ in range(BURST):
            limited.wrong(address)
    assert [limited.wrong(address) > 0 for address in "acdb"] == [True, True, True, False]
