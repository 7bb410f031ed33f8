"""Clocks that are set while units run: nothing is settled because of a clock."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.daemons import Services
from tests.servers.clock import Clock
from tests.servers.fleet import Fleet
from tests.servers.process import wait_for

HOUR = 3600


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path)


def test_the_clock_of_this_test_is_set_for_others_and_only_their_wall_clock(clock: Clock) -> None:
    code = "import time; print(time.time(), time.monotonic())"
    clock.step(HOUR)
    told = subprocess.run(
        [sys.executable, "-c", code], env=clock.environment, capture_output=True, text=True, check=True
    )
    wall, monotonic = map(float, told.stdout.split())
    assert abs(wall - time.time() - HOUR) < 600
    assert abs(monotonic - time.monotonic()) < 600


@pytest.mark.parametrize("backend", ["embedded"], indirect=True)
def test_an_hour_forward_and_back_ends_no_unit_and_no_engine(services: Services, fleet: Fleet, clock: Clock) -> None:
    config = services.backend.config_file()
    services.start_distribute(config, clock.environment)
    services.start_engine(config, clock.environment)
    engine = services.live_incarnations("engine-1")
    for seconds in (HOUR, -HOUR, 0):
        task_id = services.submit_adhoc(fleet.hosts(count=3), "sleep 5", timeout=60, become=False)
        wait_for("the hosts to run", lambda: services.task(task_id)["counts"]["running"] == 3)  # noqa: B023
        clock.step(seconds)
        assert services.wait_task(task_id)["counts"]["success"] == 3
    assert services.live_incarnations("engine-1") == engine
    created = [services.task(task["task_id"])["created_date"] for task in services.api("/tasks/")["data"]]
    assert created != sorted(created, reverse=True), "the services did see another clock"
