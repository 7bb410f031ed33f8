"""Launcher, guards and runners as real processes: how units start, and how they end when nothing dies."""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contract import processes
from execute_engine import launcher_client
from execute_engine.errors import LauncherError, StopRequested
from execute_engine.events import encode
from execute_engine.launcher_client import LauncherClient, UnitEnd
from tests.runners import units
from tests.runners.misbehaving import BEHAVIOURS

STUBBORN = ["ignores_orders", "daemons", "forks", "deaf", "executes", "floods", "bomb"]


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


def test_start_returns_what_the_runner_has_loaded(tmp_path: Path, incarnation: str) -> None:
    client = LauncherClient(state_dir=tmp_path, incarnation=incarnation, runner=units.RUNNER)
    assert not client.alive
    assert client.start() == ("first", "second")
    assert client.alive
    client.close()
    assert not client.alive


@pytest.mark.parametrize(
    ("runner", "reason"),
    [
        ("tests.runners.failing", "RuntimeError: the filter plugin combine is missing"),
        ("tests.runners.threaded", "expected one thread"),
        ("tests.runners.no_such_runner", "No module named 'tests.runners.no_such_runner'"),
    ],
)
def test_a_runner_that_cannot_be_loaded_is_reported_with_its_reason(
    tmp_path: Path, incarnation: str, runner: str, reason: str
) -> None:
    client = LauncherClient(state_dir=tmp_path, incarnation=incarnation, runner=runner)
    with pytest.raises(LauncherError, match=reason):
        client.start()
    assert not client.alive
    assert not units.family(incarnation)


def test_who_waits_for_a_slow_launcher_shows_that_it_lives_and_gives_up_in_time(
    tmp_path: Path, incarnation: str
) -> None:
    client = LauncherClient(state_dir=tmp_path, incarnation=incarnation, runner="tests.runners.slow_to_load")
    moments: list[float] = []
    assert client.start(60.0, lambda: moments.append(time.monotonic())) == ("late",)
    client.close()
    assert len(moments) >= 2
    with pytest.raises(LauncherError, match=r"did not load tests\.runners\.slow_to_load in 1 s"):
        client.start(1.0)
    assert not units.family(incarnation)


def test_who_is_told_to_stop_meanwhile_leaves_no_launcher(tmp_path: Path, incarnation: str) -> None:
    client = LauncherClient(state_dir=tmp_path, incarnation=incarnation, runner="tests.runners.slow_to_load")

    def stop() -> None:
        raise StopRequested("told to stop")

    with pytest.raises(StopRequested):
        client.start(60.0, stop)
    assert not client.alive
    assert not units.family(incarnation)


def test_a_launcher_has_nothing_of_the_environment_but_what_it_needs(
    client: LauncherClient, incarnation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.close()
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", "/etc/vault")
    monkeypatch.setenv("EXECUTE_ENGINE_ANSIBLE_SSH_PASSWORD_FILE", "/etc/password")
    monkeypatch.setenv("SOME_TOKEN", "secret")
    client.start()
    unit = units.begin(client, units.job("ignores_orders"))
    allowed = launcher_client.PASSED_ON | {"EXECUTE_ENGINE_STATE_DIR_MARK", "EXECUTE_ENGINE_INCARNATION", "LC_CTYPE"}
    family = units.family(incarnation)
    assert len(family) == 3
    for pid, _ in family:
        environment = dict(line.split("=", 1) for line in _read(pid, "environ").split("\0") if line)
        assert environment.keys() <= allowed
        assert environment["EXECUTE_ENGINE_STATE_DIR_MARK"] == str(tmp_path.resolve())
    unit.events.close()


def test_the_titles_say_who_is_who(client: LauncherClient, incarnation: str) -> None:
    unit = units.begin(client, units.job("ignores_orders", 7))
    titles = {_read(pid, "cmdline").rstrip("\0 ") for pid, _ in units.family(incarnation)}
    assert titles == {"execute-engine: launcher", "execute-engine: guard 7", "execute-engine: runner 7"}
    unit.events.close()


def test_a_runner_that_ends_by_itself_is_finished(client: LauncherClient) -> None:
    unit = units.begin(client, units.job("quick", 7))
    assert units.wait_for_ends(client, 1) == {7: UnitEnd(7, "finished", 0, ())}
    assert units.texts(unit) == []
    unit.events.close()


def test_what_a_finished_runner_left_behind_is_killed(client: LauncherClient, incarnation: str) -> None:
    unit = units.begin(client, units.job("leaves_daemons"))
    assert units.wait_for_ends(client, 1)[1] == UnitEnd(1, "finished", 0, ())
    _wait_for(lambda: len(units.family(incarnation)) == 1)
    unit.events.close()


@pytest.mark.parametrize(("behaviour", "runner_exit"), [("raises", 70), ("crashes", -signal.SIGSEGV)])
def test_a_crash_of_the_runner_ends_its_unit_at_once(
    client: LauncherClient, incarnation: str, behaviour: str, runner_exit: int
) -> None:
    job = units.job(behaviour)
    unit = client.launch(job)
    unit.events.sendall(encode(job.to_json()))
    assert units.wait_for_ends(client, 1)[1] == UnitEnd(1, "runner_died", runner_exit, ())
    _wait_for(lambda: len(units.family(incarnation)) == 1)
    unit.events.close()


def test_a_runner_that_obeys_has_the_last_word_at_the_deadline(client: LauncherClient) -> None:
    unit = units.begin(client, units.job("obedient", timeout_seconds=0.5))
    assert units.texts(unit) == ["deadline"]
    assert units.wait_for_ends(client, 1)[1] == UnitEnd(1, "deadline", 0, ())
    unit.events.close()


def test_a_runner_that_obeys_has_the_last_word_at_a_stop(client: LauncherClient) -> None:
    unit = units.begin(client, units.job("obedient"))
    unit.stop("drain")
    assert units.texts(unit) == ["stop:drain"]
    assert units.wait_for_ends(client, 1)[1] == UnitEnd(1, "stopped", 0, ())
    unit.stop("too late")
    unit.events.close()


@pytest.mark.parametrize("behaviour", STUBBORN)
def test_the_deadline_ends_everything(client: LauncherClient, incarnation: str, behaviour: str) -> None:
    begun = time.monotonic()
    unit = units.begin(client, units.job(behaviour, timeout_seconds=2.0))
    family = units.family(incarnation)
    assert units.wait_for_ends(client, 1)[1] == UnitEnd(1, "deadline", -signal.SIGKILL, ())
    assert time.monotonic() - begun >= 5
    _only_the_launcher_is_left(family, incarnation)
    unit.events.close()


@pytest.mark.parametrize("behaviour", STUBBORN)
def test_a_stop_ends_everything(client: LauncherClient, incarnation: str, behaviour: str) -> None:
    unit = units.begin(client, units.job(behaviour))
    family = units.family(incarnation)
    unit.stop("cancelled")
    assert units.wait_for_ends(client, 1)[1] == UnitEnd(1, "stopped", -signal.SIGKILL, ())
    _only_the_launcher_is_left(family, incarnation)
    unit.events.close()


def test_a_stopped_runner_is_killed_at_its_deadline(client: LauncherClient, incarnation: str) -> None:
    unit = units.begin(client, units.job("forks", timeout_seconds=1.0))
    family = units.family(incarnation)
    for pid, _ in family:
        if "runner" in _read(pid, "cmdline"):
            os.kill(pid, signal.SIGSTOP)
    assert units.wait_for_ends(client, 1)[1] == UnitEnd(1, "deadline", -signal.SIGKILL, ())
    _only_the_launcher_is_left(family, incarnation)
    unit.events.close()


def test_a_unit_that_takes_too_much_memory_is_ended_and_its_neighbour_is_not(client: LauncherClient) -> None:
    large = units.begin(client, units.job("eats", 1, memory_bytes=500_000_000))
    small = units.begin(client, units.job("obedient", 2, memory_bytes=500_000_000))
    assert units.wait_for_ends(client, 1) == {1: UnitEnd(1, "memory", -signal.SIGKILL, ())}
    small.stop("drain")
    assert units.wait_for_ends(client, 1) == {2: UnitEnd(2, "stopped", 0, ())}
    large.events.close()
    small.events.close()


def test_the_end_of_one_unit_leaves_the_others_alone(client: LauncherClient, incarnation: str) -> None:
    """Each sees EOF of its own sockets only: nothing of one unit is held open by another."""
    running = [units.begin(client, units.job("forks", number)) for number in range(4)]
    running[1].stop("cancelled")
    assert units.wait_for_ends(client, 1) == {1: UnitEnd(1, "stopped", -signal.SIGKILL, ())}
    assert units.texts(running[1]) == []
    for number in (0, 2, 3):
        assert processes.start_time(running[number].guard_pid) is not None
        with pytest.raises(BlockingIOError):
            running[number].events.recv(1)
    for number in (0, 2, 3):
        running[number].stop("cancelled")
    assert set(units.wait_for_ends(client, 3)) == {0, 2, 3}
    for unit in running:
        assert units.texts(unit) == []
        unit.events.close()
    _wait_for(lambda: len(units.family(incarnation)) == 1)


def test_guards_and_runners_hold_only_their_own_descriptors(client: LauncherClient, incarnation: str) -> None:
    running = [units.begin(client, units.job("ignores_orders", number)) for number in range(3)]
    sockets: dict[str, list[int]] = {}
    for pid, _ in units.family(incarnation):
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            target = os.readlink(f"/proc/{pid}/fd/{descriptor}")
            if int(descriptor) > 2 and target.startswith("socket:"):
                sockets.setdefault(target, []).append(pid)
    # The launcher's own, and for each unit its guard's control and its runner's events.
    assert len(sockets) == 1 + 2 * 3
    assert all(len(holders) == 1 for holders in sockets.values())
    for unit in running:
        unit.events.close()


def test_fifty_units_leave_no_descriptor_and_no_zombie(client: LauncherClient, incarnation: str) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    for number in range(50):
        unit = units.begin(client, units.job("quick", number))
        assert units.wait_for_ends(client, 1) == {number: UnitEnd(number, "finished", 0, ())}
        unit.events.close()
    assert len(os.listdir("/proc/self/fd")) == descriptors
    ((launcher, _),) = units.family(incarnation)
    _wait_for(lambda: not units.below(launcher))
    assert len(os.listdir(f"/proc/{launcher}/fd")) < 16


def test_orphans_of_a_running_unit_do_not_stay_as_zombies(client: LauncherClient, incarnation: str) -> None:
    unit = units.begin(client, units.job("daemons"))
    states = [_read(pid, "stat").rpartition(")")[2].split()[0] for pid in _all_below(incarnation)]
    assert states
    assert "Z" not in states
    unit.events.close()


def test_a_launch_into_a_stopped_launcher_fails_in_time_and_starts_nothing(
    client: LauncherClient, incarnation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher_client, "LAUNCH_SECONDS", 0.5)
    ((launcher, _),) = units.family(incarnation)
    descriptors = len(os.listdir("/proc/self/fd"))
    os.kill(launcher, signal.SIGSTOP)
    with pytest.raises(LauncherError, match="did not start a guard"):
        client.launch(units.job("quick"))
    assert client.collect() == []
    assert client.alive
    assert len(os.listdir("/proc/self/fd")) == descriptors
    os.kill(launcher, signal.SIGCONT)
    monkeypatch.setattr(launcher_client, "LAUNCH_SECONDS", units.PATIENCE_SECONDS)
    unit = units.begin(client, units.job("quick", 2))
    assert units.wait_for_ends(client, 1) == {2: UnitEnd(2, "finished", 0, ())}
    unit.events.close()


def test_a_launcher_that_stays_silent_is_killed_and_another_can_start(
    client: LauncherClient, incarnation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher_client, "LAUNCH_SECONDS", 0.2)
    monkeypatch.setattr(launcher_client, "SILENCE_SECONDS", 0.5)
    ((launcher, _),) = units.family(incarnation)
    os.kill(launcher, signal.SIGSTOP)
    with pytest.raises(LauncherError):
        client.launch(units.job("quick"))
    _wait_for(lambda: client.collect() == [] and not client.alive)
    with pytest.raises(LauncherError, match="dead"):
        client.launch(units.job("quick"))
    monkeypatch.setattr(launcher_client, "LAUNCH_SECONDS", units.PATIENCE_SECONDS)
    client.start()
    units.begin(client, units.job("quick")).events.close()


def test_close_ends_running_units_even_under_a_stopped_launcher(
    tmp_path: Path, incarnation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher_client, "CLOSE_SECONDS", 2.0)
    client = LauncherClient(state_dir=tmp_path, incarnation=incarnation, runner=units.RUNNER)
    client.start()
    unit = units.begin(client, units.job("executes"))
    family = units.family(incarnation)
    launcher = min(family, key=lambda process: process[1])[0]
    os.kill(launcher, signal.SIGSTOP)
    client.close()
    units.wait_until_gone(family)
    assert units.texts(unit) == []
    unit.events.close()


def test_every_behaviour_is_used() -> None:
    assert set(STUBBORN) | {"quick", "obedient", "raises", "crashes", "leaves_daemons", "eats"} == BEHAVIOURS.keys()


def _only_the_launcher_is_left(family: set[units.Process], incarnation: str) -> None:
    (launcher,) = units.family(incarnation) & {min(family, key=lambda process: process[1])}
    units.wait_until_gone(family - {launcher})
    _wait_for(lambda: units.family(incarnation) == {launcher})


def _all_below(incarnation: str) -> set[int]:
    return units.below(*(pid for pid, _ in units.family(incarnation)))


def _read(pid: int, name: str) -> str:
    return Path(f"/proc/{pid}/{name}").read_text(errors="replace")


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + units.PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
