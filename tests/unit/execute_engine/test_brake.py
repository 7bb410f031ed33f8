"""When an engine takes itself for the sick one, and when it takes part again."""

from __future__ import annotations

import pytest

from execute_engine.brake import TRY_SECONDS, Brake


def braked() -> Brake:
    brake = Brake()
    assert [brake.ended(30, 30) for _ in range(3)] == [False, False, True]
    assert brake.others(0.1, 100.0)
    return brake


def test_three_unreachable_units_ask_for_the_others_and_one_good_unit_does_not() -> None:
    brake = Brake()
    assert [brake.ended(30, bad) for bad in (30, 27, 26, 30, 30)] == [False] * 5
    assert brake.ended(30, 27)


def test_few_hosts_prove_nothing() -> None:
    brake = Brake()
    assert not any(brake.ended(19, 19) for _ in range(5))


@pytest.mark.parametrize("share", [None, 0.9, 1.0])
def test_without_others_that_fare_better_it_stays_off(share: float | None) -> None:
    brake = Brake()
    for _ in range(3):
        brake.ended(30, 30)
    assert not brake.others(share, 100.0)
    assert brake.claims_at(5) == float("-inf")
    assert brake.problem() is None


def test_while_it_is_on_one_unit_at_a_time_is_tried() -> None:
    brake = braked()
    assert brake.claims_at(0) == 100.0 + TRY_SECONDS
    assert brake.claims_at(1) is None
    brake.claimed(130.0)
    assert brake.claims_at(0) == 130.0 + TRY_SECONDS
    assert "not on other engines" in (brake.problem() or "")


def test_a_unit_that_is_well_takes_it_off_and_a_bad_one_does_not() -> None:
    brake = braked()
    brake.ended(30, 30)
    assert brake.on
    brake.ended(30, 3)
    assert not brake.on
    assert brake.claims_at(5) == float("-inf")
