from __future__ import annotations

import os
from types import SimpleNamespace

import psutil
import pytest

from contract.config import EngineSettings
from execute_engine import slots
from execute_engine.slots import Slots


def test_a_host_with_a_result_frees_its_slot_and_an_ended_unit_its_runner() -> None:
    tested = Slots(60, 2)
    tested.take(1, 30)
    tested.take(2, 20)
    assert (tested.free, tested.units, tested.hosts) == (10, 2, 50)
    assert not tested.room().any  # both runners are taken
    tested.keep(1, 5)
    assert tested.free == 35
    tested.release(2)
    assert (tested.free, tested.room().any) == (55, True)


def test_a_unit_fits_into_free_slots_only() -> None:
    tested = Slots(60, 9)
    tested.take(1, 31)
    assert not tested.room().fits(30)
    assert tested.room().fits(29)
    assert tested.room().free_after(29) == 0


def test_a_unit_larger_than_the_engine_runs_alone() -> None:
    tested = Slots(10, 9)
    assert tested.room().fits(30)
    tested.take(1, 30)
    assert tested.free == 0
    assert not tested.room().any
    tested.keep(1, 4)
    assert tested.free == 6
    assert not tested.room().fits(30)


def test_what_is_not_held_is_not_counted() -> None:
    tested = Slots(10, 9)
    tested.keep(5, 3)
    tested.release(5)
    assert tested.hosts == 0


@pytest.mark.parametrize(
    ("cores", "available", "expected"),
    [
        (2, 8_000_000_000, (200, 200)),  # the cores are the limit
        (32, 8_000_000_000, (1000, 200)),  # half of the memory is
        (1, 100_000_000, (30, 64)),  # the least
    ],
)
def test_defaults_come_from_cores_and_memory(
    monkeypatch: pytest.MonkeyPatch, cores: int, available: int, expected: tuple[int, int]
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=available))
    tested = slots.from_settings(EngineSettings())
    assert (tested.slots, tested.runners) == expected


def test_configured_numbers_are_taken_as_they_are() -> None:
    tested = slots.from_settings(EngineSettings(slots=7, runners=3))
    assert (tested.slots, tested.runners) == (7, 3)


def test_what_ended_units_have_left_takes_slots_and_hinders_no_unit() -> None:
    slots = Slots(30, 2)
    slots.block(hosts=1, units=1)
    assert (slots.free, slots.units, slots.room().alone) == (29, 0, True)
    assert slots.room().fits(30), "alone, a unit of any size fits"
    slots.take(1, 10)
    assert (slots.free, slots.room().runner_free) == (19, False)
    slots.block(hosts=0, units=0)
    assert (slots.free, slots.room().runner_free) == (20, True)
