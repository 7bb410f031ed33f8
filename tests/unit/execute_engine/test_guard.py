"""One guard over real processes, without a launcher."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from contract import processes
from execute_engine import guard as guard_module
from execute_engine import sweep
from execute_engine.events import Decoder, encode
from execute_engine.forking import fork
from execute_engine.guard import Guard, Report, RunnerMain, look_at_memory

PATIENCE_SECONDS = 120.0


@dataclass
class Watched:
    pid: int
    control: socket.socket
    events: socket.socket
    life: int | None  # the launcher's end; None: closed

    def report(self) -> Report:
        """What the guard says before it ends."""
        decoder, frames = Decoder(), []
        self.control.settimeout(PATIENCE_SECONDS)
        while data := self.control.recv(65536):
            frames += decoder.feed(data)
        (frame,) = frames
        return Report(frame["ended"], frame["runner_exit"], tuple(frame["left"]))

    def exit_code(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def said(self) -> bytes:
        self.events.settimeout(PATIENCE_SECONDS)
        return self.events.recv(65536)

    def launcher_dies(self) -> None:
        assert self.life is not None
        os.close(self.life)
        self.life = None


@contextlib.contextmanager
def guarded(
    run: RunnerMain,
    timeout_seconds: float = 600.0,
    kill: sweep.Kill = sweep.kill,
    memory_bytes: int = 2 * 10**9,
    lease_until: float | None = None,
) -> Iterator[Watched]:
    control, guards_control = socket.socketpair()
    events, runners_events = socket.socketpair()
    life, launchers_life = os.pipe()

    def be_guard() -> int:
        control.close()
        events.close()
        os.close(launchers_life)
        sockets = {"events": runners_events, "control": guards_control}
        return Guard(5, timeout_seconds, memory_bytes, lease_until, **sockets, life=life, run=run, kill=kill).guard()

    pid = fork(be_guard)
    os.close(life)
    runners_events.close()
    guards_control.close()
    watched = Watched(pid, control, events, launchers_life)
    try:
        yield watched
    finally:
        control.close()
        events.close()
        if watched.life is not None:
            os.close(watched.life)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def _facts(events: socket.socket, orders: int) -> None:
    with open("/proc/self/oom_score_adj") as score:
        facts = [score.read().strip(), str(os.getsid(0) == os.getpid()), os.readlink("/proc/self/fd/0")]
    facts.append(str(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL and not signal.pthread_sigmask(0, [])))
    facts.append(",".join(sorted(os.listdir("/proc/self/fd"))))
    events.sendall(" ".join(facts).encode())


def test_the_runner_begins_with_nothing_of_the_guards() -> None:
    with guarded(_facts) as watched:
        score, session, _, signals, _ = watched.said().decode().split(" ")
        assert int(score) >= 500
        assert session == "True"
        assert signals == "True"
        assert watched.report() == Report("finished", 0, ())
        assert watched.exit_code() == 0


@pytest.mark.parametrize(("status", "ended"), [(0, "finished"), (3, "runner_died")])
def test_the_exit_code_says_how_the_runner_ended(status: int, ended: str) -> None:
    with guarded(lambda events, orders: os._exit(status)) as watched:
        assert watched.report() == Report(ended, status, ())
        assert watched.exit_code() == 0


def test_the_order_at_the_deadline_says_how_long_the_runner_has() -> None:
    def run(events: socket.socket, orders: int) -> None:
        events.sendall(os.read(orders, 4096))

    with guarded(run, timeout_seconds=0.2) as watched:
        assert Decoder().feed(watched.said()) == [{"order": "end", "reason": "deadline", "seconds": 2.0}]
        assert watched.report() == Report("deadline", 0, ())


def test_a_runner_that_fails_after_the_order_still_ended_by_the_deadline() -> None:
    def run(events: socket.socket, orders: int) -> None:
        os.read(orders, 4096)
        os._exit(9)

    with guarded(run, timeout_seconds=0.2) as watched:
        assert watched.report() == Report("deadline", 9, ())


def test_a_second_stop_does_not_give_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_module, "GRACE_SECONDS", 1.0)
    with guarded(lambda events, orders: time.sleep(1000)) as watched:
        ends = time.monotonic() + PATIENCE_SECONDS
        while not select.select([watched.control], [], [], 0.3)[0]:
            watched.control.send(encode({"stop": "again"}))
            assert time.monotonic() < ends
        assert watched.report() == Report("stopped", -signal.SIGKILL, ())


def test_the_launchers_death_ends_the_unit_without_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_module, "GRACE_SECONDS", PATIENCE_SECONDS * 2)
    with guarded(lambda events, orders: time.sleep(1000)) as watched:
        watched.launcher_dies()
        assert watched.report() == Report("launcher_died", -signal.SIGKILL, ())


def test_the_consumers_death_ends_the_unit_without_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_module, "GRACE_SECONDS", PATIENCE_SECONDS * 2)
    with guarded(lambda events, orders: time.sleep(1000)) as watched:
        watched.control.shutdown(socket.SHUT_WR)
        assert watched.report() == Report("consumer_died", -signal.SIGKILL, ())


def test_a_stop_signal_is_not_for_the_guard() -> None:
    def run(events: socket.socket, orders: int) -> None:
        events.sendall(b"up")
        os.read(orders, 4096)

    with guarded(run) as watched:
        assert watched.said() == b"up"
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(watched.pid, number)
        watched.control.send(encode({"stop": "drain"}))
        assert watched.report() == Report("stopped", 0, ())


def test_the_runner_dies_with_its_guard() -> None:
    def run(events: socket.socket, orders: int) -> None:
        events.sendall(str(os.getpid()).encode())
        time.sleep(1000)

    with guarded(run) as watched:
        runner = int(watched.said())
        os.kill(watched.pid, signal.SIGKILL)
        assert watched.said() == b""
        assert watched.exit_code() == -signal.SIGKILL
        assert not _lives(runner)


@pytest.mark.parametrize("who", ["runner", "worker", "worker's child", "orphan"])
def test_a_unit_that_takes_too_much_memory_is_ended_at_once(who: str) -> None:
    def eat() -> int:
        """In steps, past any limit: how much of this process's memory a fork counts as its own differs."""
        taken = []
        for _ in range(300):
            taken.append(b"x" * 10_000_000)
            time.sleep(0.01)
        time.sleep(1000)
        return len(taken)

    def fork_and_eat(generations: int) -> int:
        if generations:
            fork(lambda: fork_and_eat(generations - 1))
            time.sleep(1000)
        return eat()

    def run(events: socket.socket, orders: int) -> None:
        if who == "orphan":
            fork(lambda: fork(eat) * 0)
            time.sleep(1000)
        fork_and_eat(["runner", "worker", "worker's child"].index(who))

    memory_bytes = processes.resident_bytes(os.getpid()) + 100_000_000
    with guarded(run, memory_bytes=memory_bytes) as watched:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not select.select([watched.control], [], [], 0.1)[0]:
            assert time.monotonic() < deadline
            look_at_memory(watched.pid, memory_bytes)
        assert watched.report() == Report("memory", -signal.SIGKILL, ())


def test_a_look_at_its_memory_does_nothing_to_a_unit_that_takes_little() -> None:
    def run(events: socket.socket, orders: int) -> None:
        events.sendall(b"up")
        time.sleep(1000)

    with guarded(run) as watched:
        assert watched.said() == b"up"
        for _ in range(5):
            look_at_memory(watched.pid, 0)  # it looks itself, and finds nothing
            assert not select.select([watched.control], [], [], 0.1)[0]


def test_a_unit_that_may_run_again_ends_with_its_engines_lease() -> None:
    with guarded(lambda events, orders: time.sleep(1000), lease_until=time.monotonic() + 0.3) as watched:
        assert watched.report() == Report("lease", -signal.SIGKILL, ())


def test_a_lease_that_is_extended_ends_later() -> None:
    with guarded(lambda events, orders: time.sleep(1000), lease_until=time.monotonic() + 3) as watched:
        watched.control.send(encode({"lease_until": time.monotonic() + 1000}))
        assert not select.select([watched.control], [], [], 4)[0]
        watched.control.send(encode({"lease_until": time.monotonic() - 1}))
        assert watched.report() == Report("lease", -signal.SIGKILL, ())


def test_what_cannot_be_killed_is_reported() -> None:
    """As a process in uninterruptible sleep: the signal has no effect, and the guard does not wait for ever."""

    def run(events: socket.socket, orders: int) -> None:
        child = fork(_sleep)
        events.sendall(f"{os.getpid()} {child}".encode())
        time.sleep(1000)

    with guarded(run, kill=lambda pid: None) as watched:
        runner, child = map(int, watched.said().split())
        watched.launcher_dies()
        assert watched.report() == Report("launcher_died", None, tuple(sorted((runner, child))))
        assert watched.exit_code() == guard_module.EXIT_LEFT
        os.kill(child, signal.SIGKILL)
        assert watched.said() == b""


def test_a_machine_without_room_for_a_runner_ends_the_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(child: object) -> int:
        raise OSError("no process left")

    monkeypatch.setattr(guard_module, "fork", no_room)
    with guarded(_facts) as watched:
        assert watched.report() == Report("not_started", None, ())
        assert watched.exit_code() == 0


def _sleep() -> int:
    time.sleep(1000)
    return 0


def _lives(pid: int) -> bool:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while processes.start_time(pid) is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    return Path(f"/proc/{pid}").exists() and processes.start_time(pid) is not None
