"""The consumer's side of the launcher: units are started, stopped, and known to have ended. No Ansible here."""

from __future__ import annotations

import logging
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from contract import failpoint, logs, processes
from execute_engine import events as framing
from execute_engine import former, sweep
from execute_engine.errors import LauncherError
from execute_engine.former import kill_former
from execute_engine.job import Job
from execute_engine.unit_process import UnitEnd, UnitProcess

__all__ = ["LauncherClient", "UnitEnd", "UnitProcess", "kill_former"]

START_SECONDS = 20.0  # from exec until Ansible is loaded; less than the supervisor's patience with a silent child
ALIVE_SECONDS = 1.0
LAUNCH_SECONDS = 5.0
SILENCE_SECONDS = 15.0  # a launcher that owes an answer for so long is killed
CLOSE_SECONDS = 6.0

# All that a launcher, and so a runner, sees of the consumer's environment.
PASSED_ON = frozenset(
    ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "PYTHONPATH", "KRB5CCNAME")
) | {failpoint.VARIABLE, logs.FORMAT_VARIABLE, logs.JOURNAL_VARIABLE}

log = logging.getLogger(__name__)


class LauncherClient:
    """One launcher at a time, and the units it started. For one thread; nothing blocks but where it says so."""

    def __init__(
        self, *, state_dir: Path, incarnation: str, runner: str = "execute_engine.runner", user: str = ""
    ) -> None:
        """user: who the runners become; "" = nobody else."""
        self._marks = former.environment(state_dir, incarnation)
        self._incarnation = incarnation
        self._runner = runner
        self._user = user
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None  # None: the launcher is dead, or was never started
        self._decoder = framing.Decoder()
        self._request = 0
        self._asked: dict[int, float] = {}  # request not answered yet -> since when
        self._answer: dict[str, Any] | None = None  # to the last request
        self._units: dict[int, UnitProcess] = {}  # by the guard's pid
        self._ended: list[UnitEnd] = []
        self._clearing: sweep.Sweep | None = None

    @property
    def alive(self) -> bool:
        """False from the moment when the launcher's death was seen; start() makes another one."""
        return self._socket is not None

    def start(
        self, patience_seconds: float = START_SECONDS, tell_alive: Callable[[], None] = lambda: None
    ) -> tuple[str, ...]:
        """Start a launcher and return the plugins it has loaded. Blocks until then, at most patience_seconds.

        tell_alive is called every second meanwhile, for who watches the caller; what it raises ends the launcher.
        After the death of a former one this waits until the units of that have ended too. Raises LauncherError with
        the launcher's own reason when it could not load them.
        """
        deadline = time.monotonic() + patience_seconds
        self._settle_former(deadline)
        try:
            self._start()
        except OSError as exc:
            raise LauncherError(f"the launcher cannot be started: {exc.strerror}") from exc
        try:
            return self._plugins(deadline, tell_alive)
        except BaseException:
            self._disconnect()
            assert self._process is not None
            self._process.kill()
            self._process.wait()
            raise

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-m", "execute_engine.launcher"]
        command += ["--socket", str(theirs.fileno()), "--runner", self._runner]
        command += ["--user", self._user] if self._user else []
        environment = {name: value for name, value in os.environ.items() if name in PASSED_ON} | self._marks
        with theirs:
            self._process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=2,  # what it or Ansible prints belongs into the log
                start_new_session=True,
            )
        ours.setblocking(False)
        self._socket = ours
        self._decoder = framing.Decoder()

    def _settle_former(self, deadline: float) -> None:
        if self.alive:
            raise LauncherError("expected no launcher, found one alive: close() it first")
        while self._units:
            if time.monotonic() > deadline:
                raise LauncherError(
                    f"{len(self._units)} units of the former launcher have not ended: collect() them first"
                )
            ended = self.collect()  # first: it replaces the list that it is added to
            self._ended += ended
            time.sleep(sweep.PAUSE_SECONDS)
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _plugins(self, deadline: float, tell_alive: Callable[[], None]) -> tuple[str, ...]:
        began = time.monotonic()
        while True:
            for frame in self._receive():
                if "ready" in frame:
                    return tuple(frame["ready"])
                raise LauncherError(f"the launcher could not load {self._runner}: {frame.get('failed')}")
            if not self.alive:
                raise LauncherError("the launcher ended before it had loaded Ansible: its log says why")
            if (now := time.monotonic()) >= deadline:
                raise LauncherError(f"the launcher did not load {self._runner} in {now - began:.0f} s")
            self._poll(min(deadline, now + ALIVE_SECONDS))
            tell_alive()

    def launch(self, job: Job, lease_until: float | None = None) -> UnitProcess:
        """Start a guard and a runner, which waits for its Job on events. Blocks until then, at most LAUNCH_SECONDS.

        At lease_until, monotonic, the guard ends the unit, unless UnitProcess.extend_lease() puts it off.
        Raises LauncherError; then the Job was not handed over, so that nothing of this unit has run or will run.
        """
        deadline = time.monotonic() + LAUNCH_SECONDS
        with ExitStack() as opened:
            try:
                pairs = [[opened.enter_context(end) for end in socket.socketpair()] for _ in range(2)]
            except OSError as exc:
                raise LauncherError(f"no socket can be made for a unit: {exc.strerror}") from exc
            opened.pop_all()
        (events, runners_end), (control, guards_end) = pairs
        try:
            with runners_end, guards_end:
                self._ask(job, lease_until, runners_end, guards_end)
            guard_pid = self._await_answer(deadline)
        except BaseException:
            events.close()
            control.close()
            raise
        events.setblocking(False)
        control.setblocking(False)
        unit = self._units[guard_pid] = UnitProcess(job, guard_pid, events, control)
        return unit

    def _ask(self, job: Job, lease_until: float | None, runners_end: socket.socket, guards_end: socket.socket) -> None:
        if self._socket is None:
            raise LauncherError("the launcher is dead: start() it first")
        self._request += 1
        self._answer = None
        request = {
            "request": self._request,
            "unit_id": job.unit_id,
            "timeout_seconds": job.timeout_seconds,
            "memory_bytes": job.memory_bytes,
            "lease_until": lease_until,
        }
        descriptors = [runners_end.fileno(), guards_end.fileno()]
        try:
            socket.send_fds(self._socket, [framing.encode(request)], descriptors)
        except OSError as exc:
            raise LauncherError(f"the launcher takes no requests: {exc.strerror}") from exc
        self._asked[self._request] = time.monotonic()

    def _await_answer(self, deadline: float) -> int:
        while True:
            self._read_launcher()
            if self._answer is not None:
                if "refused" in self._answer:
                    raise LauncherError(f"the launcher could not start a guard: {self._answer['refused']}")
                return int(self._answer["guard"])
            if not self.alive:
                raise LauncherError("the launcher died before it started the guard")
            self._wait(deadline, f"the launcher did not start a guard in {LAUNCH_SECONDS:.0f} s")

    def _wait(self, deadline: float, or_else: str) -> None:
        """Until the launcher says something; at the deadline LauncherError."""
        if time.monotonic() >= deadline:
            raise LauncherError(or_else)
        self._poll(deadline)

    def _poll(self, until: float) -> None:
        if self._socket is not None:
            poll = select.poll()
            poll.register(self._socket, select.POLLIN)
            poll.poll(max(0.0, until - time.monotonic()) * 1000)

    def sockets(self) -> list[socket.socket]:
        """To be polled for reading; collect() has something to do when one is readable. Changes with every unit."""
        found = [unit.control for unit in self._units.values() if unit.control is not None]
        return found if self._socket is None else [self._socket, *found]

    def collect(self) -> list[UnitEnd]:
        """The units that have ended since the last call. Never blocks.

        To be called when one of sockets() is readable, and at least once a second: it also kills guards and launchers
        that do not answer in time, and what a dead launcher and its dead guards have left.
        """
        self._read_launcher()
        for unit in self._units.values():
            unit.read()
            unit.kill_overdue_guard()
        self._kill_silent_launcher()
        ended, self._ended = self._ended, []
        ends = {pid: unit.end() for pid, unit in self._units.items()}
        if not self.alive:
            ends |= self._ends_without_witness([pid for pid, end in ends.items() if end is None])
        for pid, end in ends.items():
            if end is not None:
                self._units.pop(pid).close()
                ended.append(end)
        return ended

    def _ends_without_witness(self, pids: list[int]) -> dict[int, UnitEnd]:
        """Launcher and guard are dead: by the mark, once no other guard is left that could do better."""
        if not pids or any(unit.control is not None for unit in self._units.values()):
            return {}
        if self._clearing is None:
            self._clearing = sweep.Sweep(self._strike_marked, CLOSE_SECONDS)
        self._clearing.step()
        left = self._clearing.left
        if left and not self._clearing.given_up:
            return {}
        self._clearing = None
        return {pid: UnitEnd(self._units[pid].unit_id, "launcher_died", None, left) for pid in pids}

    def _strike_marked(self) -> set[int]:
        found = former.of_incarnation(self._incarnation)
        for pid in found:
            sweep.kill(pid)
        return found

    def _read_launcher(self) -> None:
        for frame in self._receive():
            if "request" in frame:
                self._asked.pop(frame["request"], None)
                if frame["request"] == self._request:
                    self._answer = frame
            elif frame["guard"] in self._units:
                self._units[frame["guard"]].obituary = frame

    def _receive(self) -> list[dict[str, Any]]:
        """What the launcher has said; notices its death."""
        frames: list[dict[str, Any]] = []
        while self._socket is not None:
            try:
                data = self._socket.recv(1 << 20)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                self._disconnect()
            frames += self._decoder.feed(data)
        return frames

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._asked.clear()

    def _kill_silent_launcher(self) -> None:
        """One that is stopped or stuck would leave the engine without units for ever: better none than this one."""
        waiting = [unit.gone_at for unit in self._units.values() if unit.gone_at is not None and unit.end() is None]
        since = min([*self._asked.values(), *waiting], default=None)
        silent = since is not None and time.monotonic() - since > SILENCE_SECONDS
        if silent and self.alive and self._process is not None:
            log.error("the launcher does not answer and is killed")
            self._process.kill()

    def close(self) -> None:
        """End the launcher and every unit at once. Blocks until all are gone, at most 2 * CLOSE_SECONDS."""
        for unit in self._units.values():
            unit.close()
        self._units.clear()
        self._disconnect()
        if self._process is None:
            return
        try:
            self._process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        left = processes.kill_all(lambda: former.of_incarnation(self._incarnation), CLOSE_SECONDS)
        if left:
            log.error("processes could not be killed", extra={"pids": left})
