"""Whoever of consumer, launcher, guard and runner is killed or stopped in mid unit: nothing of the unit stays."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contract import failpoint, processes
from execute_engine import former, unit_process
from execute_engine.errors import LauncherError
from execute_engine.launcher_client import LauncherClient, UnitEnd, kill_former
from tests.runners import units

pytestmark = pytest.mark.kill
BEHAVIOURS = ["ignores_orders", "daemons", "forks", "deaf", "executes", "floods", "bomb"]
# The rule is 2 s after a death. A machine that runs other tests beside this one may need longer for that.
AT_ONCE_SECONDS = 20.0


@pytest.fixture
def incarnation() -> str:
    return secrets.token_hex(8)


@pytest.fixture
def client(tmp_path: Path, incarnation: str) -> Iterator[LauncherClient]:
    client = LauncherClient(state_dir=tmp_path, incarnation=incarnation, runner=units.RUNNER)
    client.start()
    yield client
    client.close()
    assert not units.family(incarnation)


@contextlib.contextmanager
def consumer(
    state_dir: Path, incarnation: str, *behaviours: str
) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """A consumer process of its own with a unit for each behaviour, and the pids of its launcher and guards."""
    command = [sys.executable, "-m", "tests.runners.units", str(state_dir), incarnation, *behaviours]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()
            processes.kill_all(lambda: former.of_incarnation(incarnation), units.PATIENCE_SECONDS)


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_a_killed_runner(client: LauncherClient, incarnation: str, behaviour: str) -> None:
    other = units.begin(client, units.job("ignores_orders", 2))
    launcher_and_other = units.family(incarnation)
    unit = units.begin(client, units.job(behaviour))
    family = units.family(incarnation) - launcher_and_other
    os.kill(_runner_of(unit.guard_pid), signal.SIGKILL)
    assert units.wait_until_gone(family) < AT_ONCE_SECONDS
    assert units.wait_for_ends(client, 1) == {1: UnitEnd(1, "runner_died", -signal.SIGKILL, ())}
    assert units.family(incarnation) == launcher_and_other
    unit.events.close()
    other.events.close()


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_a_killed_guard(client: LauncherClient, incarnation: str, behaviour: str) -> None:
    other = units.begin(client, units.job("ignores_orders", 2))
    launcher_and_other = units.family(incarnation)
    unit = units.begin(client, units.job(behaviour))
    family = units.family(incarnation) - launcher_and_other
    os.kill(unit.guard_pid, signal.SIGKILL)
    assert units.wait_until_gone(family) < AT_ONCE_SECONDS
    assert units.wait_for_ends(client, 1) == {1: UnitEnd(1, "guard_died", None, ())}
    assert units.family(incarnation) == launcher_and_other
    unit.events.close()
    other.events.close()


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_a_killed_launcher(client: LauncherClient, incarnation: str, behaviour: str) -> None:
    (launcher,) = units.family(incarnation)
    running = [units.begin(client, units.job(behaviour, number)) for number in (1, 2)]
    family = units.family(incarnation)
    os.kill(launcher[0], signal.SIGKILL)
    assert units.wait_until_gone(family) < AT_ONCE_SECONDS
    ends = units.wait_for_ends(client, 2)
    assert {(end.cause, end.left) for end in ends.values()} == {("launcher_died", ())}
    assert not units.family(incarnation)
    assert not client.alive
    client.start()
    running.append(units.begin(client, units.job("quick", 3)))
    assert units.wait_for_ends(client, 1) == {3: UnitEnd(3, "finished", 0, ())}
    for unit in running:
        unit.events.close()


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_a_killed_consumer(tmp_path: Path, incarnation: str, behaviour: str) -> None:
    with consumer(tmp_path, incarnation, behaviour, behaviour) as (process, _):
        family = units.family(incarnation)
        process.kill()
        assert units.wait_until_gone(family) < AT_ONCE_SECONDS
        assert not units.family(incarnation)


def test_launcher_and_guard_killed_together(client: LauncherClient, incarnation: str) -> None:
    (launcher,) = units.family(incarnation)
    unit = units.begin(client, units.job("daemons"))
    family = units.family(incarnation)
    os.kill(launcher[0], signal.SIGSTOP)
    os.kill(unit.guard_pid, signal.SIGKILL)
    os.kill(launcher[0], signal.SIGKILL)
    assert units.wait_for_ends(client, 1) == {1: UnitEnd(1, "launcher_died", None, ())}
    units.wait_until_gone(family)
    unit.events.close()


def test_a_start_right_after_the_launchers_death_keeps_the_ends_of_its_units(
    client: LauncherClient, incarnation: str
) -> None:
    (launcher,) = units.family(incarnation)
    unit = units.begin(client, units.job("daemons"))
    os.kill(launcher[0], signal.SIGKILL)
    while client.alive:
        ended = client.collect()
    client.start()
    ended += units.wait_for_ends(client, 1 - len(ended)).values()
    assert [(end.unit_id, end.cause) for end in ended] == [(1, "launcher_died")]
    unit.events.close()


def test_each_end_of_a_former_launchers_units_is_told_once(client: LauncherClient, incarnation: str) -> None:
    (launcher,) = units.family(incarnation)
    running = [units.begin(client, units.job("ignores_orders", number)) for number in (1, 2, 3)]
    slow = running[-1].guard_pid
    os.kill(slow, signal.SIGSTOP)  # it ends its unit later than the others
    threading.Timer(1.0, os.kill, (slow, signal.SIGCONT)).start()
    os.kill(launcher[0], signal.SIGKILL)
    ended: list[UnitEnd] = []
    while client.alive:
        ended += client.collect()
    client.start()
    ended += client.collect()
    assert sorted(end.unit_id for end in ended) == [1, 2, 3]
    for unit in running:
        unit.events.close()


def test_consumer_and_guard_killed_together(tmp_path: Path, incarnation: str) -> None:
    with consumer(tmp_path, incarnation, "executes", "daemons") as (process, pids):
        family = units.family(incarnation)
        process.kill()
        os.kill(pids["guards"][0], signal.SIGKILL)
        assert units.wait_until_gone(family) < AT_ONCE_SECONDS


def test_a_stopped_guard_is_killed_after_its_unit_should_have_ended(
    client: LauncherClient, incarnation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unit_process, "OVERDUE_SECONDS", 0.5)
    launcher = units.family(incarnation)
    unit = units.begin(client, units.job("executes", timeout_seconds=1.0))
    family = units.family(incarnation) - launcher
    os.kill(unit.guard_pid, signal.SIGSTOP)
    assert units.wait_for_ends(client, 1) == {1: UnitEnd(1, "guard_stuck", None, ())}
    units.wait_until_gone(family)
    assert units.family(incarnation) == launcher
    unit.events.close()


def test_a_stopped_guard_is_killed_after_a_stop_order(
    client: LauncherClient, incarnation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unit_process, "OVERDUE_SECONDS", 0.5)
    unit = units.begin(client, units.job("daemons"))
    os.kill(unit.guard_pid, signal.SIGSTOP)
    unit.stop("cancelled")
    assert units.wait_for_ends(client, 1) == {1: UnitEnd(1, "guard_stuck", None, ())}
    unit.events.close()


def test_a_stopped_guard_does_not_outlive_its_consumer(tmp_path: Path, incarnation: str) -> None:
    """The launcher waits for its guards before it ends, and kills one that does not end its unit."""
    with consumer(tmp_path, incarnation, "executes") as (process, pids):
        family = units.family(incarnation)
        os.kill(pids["guards"][0], signal.SIGSTOP)
        process.kill()
        units.wait_until_gone(family)


def test_kill_former_ends_what_all_others_failed_to(tmp_path: Path, incarnation: str) -> None:
    with consumer(tmp_path, incarnation, "executes") as (process, pids):
        family = units.family(incarnation)
        os.kill(pids["launcher"], signal.SIGSTOP)
        os.kill(pids["guards"][0], signal.SIGSTOP)
        process.kill()
        assert kill_former(tmp_path, "another", units.PATIENCE_SECONDS) == []
        units.wait_until_gone(family)


def test_kill_former_spares_its_own_incarnation_and_other_state_directories(
    client: LauncherClient, incarnation: str, tmp_path: Path
) -> None:
    unit = units.begin(client, units.job("executes"))
    family = units.family(incarnation)
    assert kill_former(tmp_path, incarnation) == []
    assert kill_former(tmp_path / "other", "another") == []
    assert units.family(incarnation) == family
    unit.events.close()


def test_a_launcher_that_dies_right_after_a_fork_leaves_nothing(
    tmp_path: Path, incarnation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(failpoint.VARIABLE, f"guard-forked@{tmp_path / 'once'}")
    client = LauncherClient(state_dir=tmp_path, incarnation=incarnation, runner=units.RUNNER)
    client.start()
    with pytest.raises(LauncherError, match="died before it started the guard"):
        client.launch(units.job("quick"))
    assert (tmp_path / "once").exists()
    assert client.collect() == []
    client.start()
    units.begin(client, units.job("quick")).events.close()
    client.close()
    assert not units.family(incarnation)


def test_a_guard_that_dies_right_after_a_fork_takes_its_runner_along(
    tmp_path: Path, incarnation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(failpoint.VARIABLE, f"runner-forked@{tmp_path / 'once'}")
    client = LauncherClient(state_dir=tmp_path, incarnation=incarnation, runner=units.RUNNER)
    client.start()
    unit = client.launch(units.job("quick"))
    assert units.wait_for_ends(client, 1) == {1: UnitEnd(1, "guard_died", None, ())}
    assert units.texts(unit) == []
    unit.events.close()
    client.close()
    assert not units.family(incarnation)


def _runner_of(guard_pid: int) -> int:
    return min(units.below(guard_pid))
