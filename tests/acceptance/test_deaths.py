"""kill -9 of every part of an engine, in mid unit and at each named fail point: nothing stays, nothing runs twice."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.daemons import Services
from tests.servers.fleet import Fleet
from tests.servers.process import wait_for


@pytest.fixture
def starts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file to which each start of a command on a host adds a line."""
    return tmp_path_factory.mktemp("starts") / "starts"


def count(starts: Path) -> int:
    return len(starts.read_text().splitlines()) if starts.exists() else 0


def _scratch(incarnations: set[str]) -> list[Path]:
    return [path for name in incarnations for path in Path("/tmp").glob(f"execute-engine-runner-{name}-*")]


def unit_processes(services: Services) -> dict[int, str]:
    return {**services.processes("execute-engine: guard"), **services.processes("execute-engine: runner")}


@pytest.mark.kill
@pytest.mark.parametrize("victim", ["supervisor", "consumer", "launcher", "guard", "runner"])
def test_after_kill_9_no_process_of_the_unit_is_left_and_it_does_not_run_again(
    services: Services, fleet: Fleet, starts: Path, victim: str
) -> None:
    services.start()
    task_id = services.submit_adhoc(fleet.hosts("healthy", 4), f"echo x >> {starts}; sleep 600", timeout=300)
    wait_for("the commands to run", lambda: count(starts) == 4)
    of_the_unit = set(unit_processes(services))
    incarnations = services.live_incarnations("engine-1")
    assert _scratch(incarnations)
    assert len(of_the_unit) >= 2

    for pid in services.processes(f"execute-engine: {victim}"):
        os.kill(pid, signal.SIGKILL)

    wait_for("the unit's processes to end", lambda: not of_the_unit & set(unit_processes(services)), 10)
    if victim == "supervisor":  # nobody else brings it back but the service manager
        services.start_engine(services.backend.config_file())
    counts = services.wait_task(task_id)["counts"]
    assert counts["lost"] == 4, services.hosts(task_id)
    assert count(starts) == 4
    wait_for("the runner's directory to be gone", lambda: not _scratch(incarnations), 30)
    again = services.submit_adhoc(fleet.hosts("healthy", 2), "echo well")
    assert services.wait_task(again)["counts"]["success"] == 2


ENDS = {
    # fail point: (final statuses that are true there, commands started)
    "claimed": ({"success"}, {3}),
    "begun": ({"lost"}, {0}),
    "guard-forked": ({"success"}, {3}),  # nothing was begun on a host: they go back, and run
    "runner-forked": ({"success", "lost"}, {0, 1, 2, 3}),
    "runner-job": ({"success"}, {3}),
    "runner-result": ({"lost", "success"}, {1, 2, 3}),
    "stored": ({"success", "lost"}, {3}),
    "ended": ({"success"}, {3}),
    "spooled": ({"success", "lost"}, {3}),  # what was in the spool is stored by the next start
    "published": ({"success"}, {3}),
    "sent": ({"success"}, {3}),
}


@pytest.mark.parametrize("backend", ["cluster"], indirect=True)
@pytest.mark.parametrize("point", ENDS)
def test_a_process_that_dies_at_a_fail_point_neither_loses_the_task_nor_starts_it_twice(
    services: Services, fleet: Fleet, starts: Path, point: str, tmp_path: Path
) -> None:
    passed = tmp_path / "passed"
    environment = {"EXECUTE_ENGINE_FAIL_POINT": f"{point}@{passed}"}
    config = services.backend.config_file()
    services.start_distribute(config, environment)
    services.start_engine(config, environment)

    task_id = services.submit_adhoc(fleet.hosts("healthy", 3), f"echo x >> {starts}", timeout=60)
    task = services.wait_task(task_id, seconds=240)

    assert passed.exists()
    statuses, commands = ENDS[point]
    assert {status for status, n in task["counts"].items() if n} <= statuses
    assert sum(task["counts"].values()) == 3
    assert count(starts) in commands
    wait_for("the unit's processes to end", lambda: not unit_processes(services), 15)


def test_sigterm_lets_a_running_unit_finish_and_takes_no_other(services: Services, fleet: Fleet, starts: Path) -> None:
    services.start(Exec_Engine={"DRAIN_SECONDS": 120, "SLOTS": 3})
    first = services.submit_adhoc(fleet.hosts("healthy", 3), f"sleep 8; echo x >> {starts}", timeout=100)
    wait_for("the unit to run", lambda: unit_processes(services))
    second = services.submit_adhoc(fleet.hosts("healthy", 2), f"echo x >> {starts}")

    services.engines[0].send(signal.SIGTERM)
    services.wait_task(first)
    wait_for("the engine to end", lambda: not services.engines[0].processes(), 60)

    assert services.task(first)["counts"]["success"] == 3
    assert services.task(second)["counts"]["queued"] == 2
    services.start_engine(services.backend.config_file())
    assert services.wait_task(second)["counts"]["success"] == 2
    assert count(starts) == 5
