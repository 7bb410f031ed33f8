from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from contract import processes

PATIENCE_SECONDS = 120.0
COMMAND = (sys.executable, "-m", "tests.unit.contract.supervision", "supervise")


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"still waiting for {what}"
        time.sleep(0.02)


class Supervised:
    """A real supervisor process and what its children wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(
        self,
        *kinds: str,
        hang_seconds: float = 60,
        stop_seconds: float = 60,
        variables: Sequence[tuple[str, str]] = (),
    ) -> None:
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [*COMMAND, str(self.folder), str(hang_seconds), str(stop_seconds), *kinds],
                env={**os.environ, **dict(variables)},
                stderr=log,
            )

    @property
    def log_file(self) -> Path:
        return self.folder / "supervisor.log"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def started(self, kind: str) -> list[int]:
        return self._numbers(f"{kind}.started")

    def reload(self, *wanted: str) -> None:
        """With these children from now on, as KIND or KIND=SETTINGS."""
        (self.folder / "wanted").write_text("\n".join(wanted))
        os.kill(self.pid, signal.SIGHUP)

    def restarts(self, kind: str) -> list[int]:
        """What it was told of them, all its lives together."""
        return self._numbers(f"{kind}.restarts")

    def signals(self, kind: str) -> list[int]:
        return self._numbers(f"{kind}.signals")

    def _numbers(self, name: str) -> list[int]:
        path = self.folder / name
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def logged(self, *words: str) -> bool:
        return any(all(word in line for word in words) for line in self.log_file.read_text().splitlines())

    def wait_until_started(self, kind: str, times: int = 1) -> int:
        wait_for(lambda: len(self.started(kind)) >= times, f"{kind} to start {times} times")
        return self.started(kind)[-1]

    def exit_code(self) -> int:
        assert self.process is not None
        return self.process.wait(PATIENCE_SECONDS)

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(PATIENCE_SECONDS)


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Supervised]:
    supervised = Supervised(tmp_path)
    yield supervised
    supervised.end()


def gone(pid: int) -> bool:
    return processes.start_time(pid) is None


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_a_killed_child_is_started_again(supervised: Supervised) -> None:
    supervised.start("well")
    first = supervised.wait_until_started("well")
    os.kill(first, signal.SIGKILL)
    assert supervised.wait_until_started("well", 2) != first
    assert gone(first)
    assert supervised.logged("child is started again", 'reason="killed by SIGKILL"', "pause_seconds=1.0")


def test_the_pause_before_a_restart_grows(supervised: Supervised) -> None:
    supervised.start("well")
    for times in (1, 2):
        os.kill(supervised.wait_until_started("well", times), signal.SIGKILL)
    wait_for(lambda: supervised.logged("child is started again", "pause_seconds=2.0"), "the second pause")


def test_every_child_is_told_how_often_one_was_started_again(supervised: Supervised) -> None:
    supervised.start("well", "patient")
    for times in (1, 2):
        pid = supervised.wait_until_started("well", times)
        wait_for(lambda: supervised.restarts("patient")[-1:] == [times - 1], "the count")  # noqa: B023
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: supervised.restarts("well")[-1:] == supervised.restarts("patient")[-1:] == [2], "both to know")
    supervised.reload("well")  # one that is not wanted any more has not failed
    os.kill(supervised.wait_until_started("patient"), signal.SIGTERM)
    wait_for(lambda: gone(supervised.started("patient")[0]), "it to end")
    os.kill(supervised.wait_until_started("well", 3), signal.SIGKILL)
    wait_for(lambda: supervised.restarts("well")[-1:] == [3], "the count")


def test_a_stopped_child_is_killed_and_started_again_with_the_reason(supervised: Supervised) -> None:
    supervised.start("well", "shy", hang_seconds=3)
    first = supervised.wait_until_started("well")
    os.kill(first, signal.SIGSTOP)
    supervised.wait_until_started("well", 2)
    assert gone(first)
    assert supervised.logged("child is started again", "child=well", 'reason="not heard from for 3 s"')
    assert len(supervised.started("shy")) == 1, "a child that speaks was restarted too"


def test_a_child_that_refuses_the_configuration_stops_the_service(supervised: Supervised) -> None:
    supervised.start("well", "refusing")
    assert supervised.exit_code() == 78
    assert len(supervised.started("refusing")) == 1
    assert all(gone(pid) for pid in supervised.started("well"))


def test_a_command_that_does_not_exist_is_tried_again_and_can_be_stopped(tmp_path: Path) -> None:
    code = (
        "import sys; from contract import logs; from contract.supervisor import *;"
        "logs.configure('test', 'supervisor');"
        "sys.exit(Supervisor('test', [Child('lost', ('/nonexistent/program',), 1)], list).run())"
    )
    log_file = tmp_path / "log"
    with log_file.open("wb") as log, subprocess.Popen([sys.executable, "-c", code], stderr=log) as process:
        wait_for(lambda: "cannot be started" in log_file.read_text(), "the log")
        process.terminate()
        assert process.wait(PATIENCE_SECONDS) == 0


def test_sigterm_reaches_the_children_and_ends_with_0(supervised: Supervised) -> None:
    supervised.start("well")
    pid = supervised.wait_until_started("well")
    os.kill(supervised.pid, signal.SIGTERM)
    assert supervised.exit_code() == 0
    assert gone(pid)
    assert supervised.signals("well") == [signal.SIGTERM]
    assert len(supervised.started("well")) == 1


def test_a_second_sigterm_is_passed_on_again(supervised: Supervised) -> None:
    supervised.start("patient", stop_seconds=600)
    supervised.wait_until_started("patient")
    os.kill(supervised.pid, signal.SIGTERM)
    wait_for(lambda: len(supervised.signals("patient")) == 1, "the first signal")
    assert supervised.process is not None
    assert supervised.process.poll() is None
    os.kill(supervised.pid, signal.SIGTERM)
    assert supervised.exit_code() == 0
    assert len(supervised.signals("patient")) == 2


def test_a_child_that_tells_of_the_others_is_stopped_when_they_have_ended(supervised: Supervised) -> None:
    supervised.start("last", "patient", stop_seconds=600)
    supervised.wait_until_started("last")
    supervised.wait_until_started("patient")
    os.kill(supervised.pid, signal.SIGTERM)
    wait_for(lambda: len(supervised.signals("patient")) == 1, "the first signal")
    assert supervised.signals("last") == []
    os.kill(supervised.pid, signal.SIGTERM)
    assert supervised.exit_code() == 0
    assert len(supervised.signals("patient")) == 2
    assert supervised.signals("last") == [signal.SIGTERM]


def test_a_child_that_ignores_sigterm_is_killed_after_its_stop_time(supervised: Supervised) -> None:
    supervised.start("stubborn", "well", stop_seconds=1)
    pid = supervised.wait_until_started("stubborn")
    os.kill(supervised.pid, signal.SIGTERM)
    assert supervised.exit_code() == 0
    assert gone(pid)
    assert supervised.signals("stubborn") == [signal.SIGTERM]
    assert supervised.logged("child ended", "child=stubborn", 'reason="still there 1 s after it was told to stop"')


def test_a_child_that_hangs_while_it_stops_is_killed_and_not_restarted(supervised: Supervised) -> None:
    supervised.start("patient", hang_seconds=3, stop_seconds=600)
    pid = supervised.wait_until_started("patient")
    os.kill(supervised.pid, signal.SIGTERM)
    wait_for(lambda: len(supervised.signals("patient")) == 1, "the signal")
    os.kill(pid, signal.SIGSTOP)
    assert supervised.exit_code() == 0
    assert len(supervised.started("patient")) == 1


def test_a_stop_does_not_wait_for_a_child_in_its_pause(supervised: Supervised) -> None:
    supervised.start("well")
    os.kill(supervised.wait_until_started("well"), signal.SIGKILL)
    wait_for(lambda: supervised.logged("child is started again"), "the pause")
    os.kill(supervised.pid, signal.SIGTERM)
    assert supervised.exit_code() == 0
    assert len(supervised.started("well")) == 1


def test_ctrl_c_on_the_terminal_is_one_sigterm_for_the_children(supervised: Supervised) -> None:
    supervised.start("patient", stop_seconds=600)
    pid = supervised.wait_until_started("patient")
    assert os.getpgid(pid) != os.getpgid(supervised.pid), "the terminal would signal the child too"
    os.kill(supervised.pid, signal.SIGINT)
    wait_for(lambda: supervised.signals("patient"), "the signal")
    assert supervised.signals("patient") == [signal.SIGTERM]


def test_at_sighup_children_that_stay_are_told_and_the_others_come_and_go(supervised: Supervised) -> None:
    supervised.start("well", "patient", "shy")
    pids = {kind: supervised.wait_until_started(kind) for kind in ("well", "patient", "shy")}
    supervised.reload("well", "shy=30", "stubborn")
    wait_for(lambda: supervised.signals("well") == [signal.SIGHUP], "the one that stays to be told")
    supervised.wait_until_started("stubborn")
    supervised.wait_until_started("shy", 2)
    assert gone(pids["shy"])
    assert not gone(pids["patient"]), "it ends at the second SIGTERM"
    os.kill(pids["patient"], signal.SIGTERM)
    wait_for(lambda: gone(pids["patient"]), "the one that is not wanted any more to end")

    supervised.reload("well", "shy=30")
    wait_for(lambda: supervised.signals("well") == [signal.SIGHUP] * 2, "the second reload")
    assert [len(supervised.started(kind)) for kind in ("well", "patient", "shy", "stubborn")] == [1, 1, 2, 1]
    assert not supervised.logged("started again")


def test_a_broken_configuration_at_sighup_changes_nothing(supervised: Supervised) -> None:
    supervised.start("well")
    supervised.wait_until_started("well")
    supervised.reload("broken")
    wait_for(lambda: supervised.logged("nothing is changed", "second problem"), "the log")
    assert supervised.logged("nothing is changed", "first problem")
    assert supervised.signals("well") == []
    os.kill(supervised.pid, signal.SIGTERM)
    assert supervised.exit_code() == 0
    assert len(supervised.started("well")) == 1


def test_children_die_with_a_killed_supervisor(supervised: Supervised) -> None:
    supervised.start("well", "stubborn")
    pids = [supervised.wait_until_started("well"), supervised.wait_until_started("stubborn")]
    os.kill(supervised.pid, signal.SIGKILL)
    wait_for(lambda: all(gone(pid) for pid in pids), "the children to die")


def test_children_survive_a_supervisor_that_was_stopped_for_a_while(supervised: Supervised) -> None:
    supervised.start("well", hang_seconds=2)
    supervised.wait_until_started("well")
    os.kill(supervised.pid, signal.SIGSTOP)
    time.sleep(4)
    os.kill(supervised.pid, signal.SIGCONT)
    os.kill(supervised.pid, signal.SIGTERM)
    assert supervised.exit_code() == 0
    assert not supervised.logged("not heard from")


def test_children_that_were_stopped_together_with_their_supervisor_are_not_blamed(supervised: Supervised) -> None:
    supervised.start("well", hang_seconds=6)
    pid = supervised.wait_until_started("well")
    os.kill(pid, signal.SIGSTOP)
    os.kill(supervised.pid, signal.SIGSTOP)
    time.sleep(9)
    os.kill(supervised.pid, signal.SIGCONT)
    time.sleep(0.5)
    os.kill(pid, signal.SIGCONT)
    os.kill(supervised.pid, signal.SIGTERM)
    assert supervised.exit_code() == 0
    assert not supervised.logged("not heard from")


def test_the_lifeline_is_not_passed_on(supervised: Supervised) -> None:
    supervised.start("well")
    pid = supervised.wait_until_started("well")
    title = Path(f"/proc/{supervised.pid}/cmdline").read_bytes().rstrip(b"\0")
    assert title == b"test: supervisor"
    sockets = [name for name in Path(f"/proc/{pid}/fd").iterdir() if "socket:" in _target(name)]
    assert len(sockets) == 1, "the child has more than its own end of the lifeline"


def _target(link: Path) -> str:
    with contextlib.suppress(FileNotFoundError):
        return str(link.readlink())
    return ""


def test_an_idle_supervisor_does_not_poll(supervised: Supervised) -> None:
    supervised.start("stubborn")
    pid = supervised.wait_until_started("stubborn")
    os.kill(pid, signal.SIGSTOP)  # so that nothing is to be heard
    wait_for(lambda: supervised.logged("ready"), "readiness")
    time.sleep(1)
    before = cpu_ticks(supervised.pid)
    time.sleep(2)
    assert cpu_ticks(supervised.pid) - before <= 5


class ServiceManager:
    """What systemd does with NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.received: list[str] = []
        self.status = ""  # the newest

    def read(self, seconds: float = 0.05) -> list[str]:
        """What has come until `seconds` from now."""
        deadline = time.monotonic() + seconds
        while select.select([self._socket], [], [], max(0.0, deadline - time.monotonic()))[0]:
            self.received.append(said := self._socket.recv(4096).decode())
            if said.startswith("STATUS="):
                self.status = said.removeprefix("STATUS=")
        return self.received

    def heard(self, state: str) -> bool:
        return state in self.read()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "notify") if request.param == "path" else f"@execute-engine-test-{os.getpid()}"


@pytest.fixture
def manager(address: str) -> Iterator[ServiceManager]:
    manager = ServiceManager(address)
    yield manager
    manager.close()


def test_the_service_manager_hears_ready_watchdog_status_and_stopping(
    supervised: Supervised, address: str, manager: ServiceManager
) -> None:
    supervised.start("well", "patient", variables=[("NOTIFY_SOCKET", address), ("WATCHDOG_USEC", "400000")])
    for state in ("READY=1", "STATUS=well: well at work; patient: patient at work", "WATCHDOG=1"):
        wait_for(lambda state=state: manager.heard(state), state)  # type: ignore[misc]
    assert manager.received.count("READY=1") == 1
    environment = Path(f"/proc/{supervised.started('well')[0]}/environ").read_bytes()
    assert b"NOTIFY_SOCKET=" not in environment, "a child could speak in the service's name"
    assert b"WATCHDOG_USEC=" not in environment
    beats = manager.received.count("WATCHDOG=1")
    wait_for(lambda: manager.read().count("WATCHDOG=1") > beats + 2, "more beats")
    assert "STOPPING=1" not in manager.received
    os.kill(supervised.pid, signal.SIGTERM)
    wait_for(lambda: manager.heard("STOPPING=1"), "STOPPING")
    wait_for(lambda: any(state.startswith("EXTEND_TIMEOUT_USEC=") for state in manager.read()), "more time")
    os.kill(supervised.pid, signal.SIGTERM)
    assert supervised.exit_code() == 0


@pytest.mark.parametrize("address", ["path"], indirect=True)
def test_the_service_manager_hears_of_a_reload(supervised: Supervised, address: str, manager: ServiceManager) -> None:
    supervised.start("well", variables=[("NOTIFY_SOCKET", address)])
    wait_for(lambda: manager.heard("READY=1"), "readiness")
    for wanted in ("well", "broken", "well"):
        manager.received.clear()
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        supervised.reload(wanted)
        wait_for(lambda: manager.heard("READY=1"), "the end of the reload")
        reloading, ready = (said for said in manager.received if not said.startswith("STATUS="))
        state, stamp = reloading.split("\nMONOTONIC_USEC=")
        assert (state, ready) == ("RELOADING=1", "READY=1")
        assert before <= int(stamp) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        problem = "not reloaded: first problem; " if wanted == "broken" else ""
        expected = f"{problem}well: well at work"
        wait_for(lambda expected=expected: manager.read() and manager.status == expected, "the status")  # type: ignore[misc]


@pytest.mark.parametrize("address", ["path"], indirect=True)
def test_a_child_that_refuses_the_configuration_says_why_in_the_status(
    supervised: Supervised, address: str, manager: ServiceManager
) -> None:
    supervised.start("refusing", variables=[("NOTIFY_SOCKET", address)])
    assert supervised.exit_code() == 78
    manager.read()
    assert "refusing: conf:1: what is wrong" in manager.status


@pytest.mark.parametrize("address", ["path"], indirect=True)
def test_ready_is_not_said_before_every_child_has_said_it(
    supervised: Supervised, address: str, manager: ServiceManager
) -> None:
    supervised.start("well", "shy", variables=[("NOTIFY_SOCKET", address), ("WATCHDOG_USEC", "400000")])
    wait_for(lambda: manager.heard("STATUS=well: well at work; shy: starts"), "the status")
    wait_for(lambda: manager.read().count("WATCHDOG=1") > 2, "some beats")
    assert "READY=1" not in manager.received


@pytest.mark.parametrize("address", ["path"], indirect=True)
def test_a_watchdog_for_another_process_is_not_fed(
    supervised: Supervised, address: str, manager: ServiceManager
) -> None:
    variables = [("NOTIFY_SOCKET", address), ("WATCHDOG_USEC", "200000"), ("WATCHDOG_PID", "1")]
    supervised.start("well", variables=variables)
    wait_for(lambda: manager.heard("READY=1"), "READY")
    manager.read(1)
    assert "WATCHDOG=1" not in manager.received


@pytest.mark.parametrize("address", ["path"], indirect=True)
def test_the_watchdog_is_not_fed_while_a_silent_child_cannot_be_killed(
    tmp_path: Path, address: str, manager: ServiceManager
) -> None:
    # A process in state D takes no signal; a kill without effect stands in for it.
    code = (
        "import subprocess, sys; from contract.supervisor import Child, Supervisor;"
        "subprocess.Popen.kill = lambda self: None;"
        f"command = (sys.executable, '-m', 'tests.unit.contract.supervision', 'well', {str(tmp_path)!r});"
        "sys.exit(Supervisor('test', [Child('well', command, 60)], list, hang_seconds=3).run())"
    )
    variables = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "400000"}
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **variables})
    try:
        started = tmp_path / "well.started"
        wait_for(lambda: manager.heard("WATCHDOG=1") and started.exists(), "beats")
        child = int(started.read_text())
        os.kill(child, signal.SIGSTOP)

        def silence() -> bool:
            beats = manager.read().count("WATCHDOG=1")
            return manager.read(1.5).count("WATCHDOG=1") == beats

        wait_for(silence, "the beats to end")
        before = cpu_ticks(process.pid)
        assert process.poll() is None
        manager.read(1)
        assert cpu_ticks(process.pid) - before <= 10, "it spins"
        os.kill(child, signal.SIGCONT)
        wait_for(lambda: not silence(), "the beats to come back")
    finally:
        process.kill()
        process.wait()
