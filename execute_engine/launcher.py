"""The launcher: Ansible loaded once, then a guard forked for every unit. Who kills whom is told in guard.py.

`python -m execute_engine.launcher --socket FD --runner MODULE [--user NAME]`, started by the consumer
(launcher_client.py), with one end of a SEQPACKET socket pair. Frames as in events.py:

    first of all   {"ready": [plugin, ...]} or {"failed": reason}
    to it          {"request": n, "unit": id, "timeout_seconds": s, "memory_bytes": n,
                    "lease_until": monotonic or null}, with two descriptors: the runner's end of the events socket and
                   the guard's end of the control socket
    from it        {"request": n, "guard": pid} or {"request": n, "refused": reason}
                   {"guard": pid, "exit": code or -signal, "left": [pid, ...]} for a guard that did not end well, when
                   everything of it is gone or has to be given up

It has one thread, and no other socket, database or secret. It looks at the memory of all units. At EOF it lets its
guards end their units, sees to it that they do, and ends.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any

from contract import logs, processes
from contract.failpoint import fail_point
from execute_engine import events as framing
from execute_engine import scratch, sweep
from execute_engine.errors import LauncherError
from execute_engine.forking import STOP_SIGNALS, Children, fork
from execute_engine.guard import Guard, RunnerMain, look_at_memory

CLEAR_SECONDS = 10.0  # for the orphans of a dead guard, until its consumer is told what is left
GIVEN_UP_PAUSE_SECONDS = 1.0
GUARDS_END_SECONDS = 5.0  # after EOF; then a guard is stopped or stuck and is killed
END_SECONDS = 12.0  # after EOF the launcher itself ends, whatever could not be killed
MEMORY_LOOK_SECONDS = 0.5  # a Python process fills about 2 GB in so long
MEMORY_LOOK_PAUSE = 5  # times what a look took, at least: units with thousands of processes hold up no others
MAX_REASON = 4000  # characters

log = logging.getLogger(__name__)


class Launcher:
    """consumer: the socket; run: what a runner does. Its children are its guards, and the orphans of dead ones."""

    def __init__(self, consumer: socket.socket, run: RunnerMain, user: processes.User | None) -> None:
        self._consumer = consumer
        self._run = run
        self._user = user
        self._children = Children()
        self._life, self._life_writer = os.pipe2(os.O_CLOEXEC)
        self._guards: dict[int, int] = {}  # pid -> what a process of its unit may hold, bytes
        self._memory_look = 0.0  # the next one, monotonic
        self._died: list[dict[str, Any]] = []  # guards whose orphans are being killed; the consumer is told after it
        self._clearing = sweep.Sweep(self._strike, CLEAR_SECONDS)
        self._given_up: set[int] = set()  # orphans that could not be killed and were reported; struck at all the same

    def serve(self) -> None:
        """Until the consumer and all its units are gone, or END_SECONDS after the consumer."""
        poll = select.poll()
        poll.register(self._consumer, select.POLLIN)
        poll.register(self._children, select.POLLIN)
        has_consumer = True
        while has_consumer:
            ready = dict(poll.poll(self._pause_milliseconds()))
            if self._consumer.fileno() in ready:
                has_consumer = self._take_request()
            self._look_after_children()
            self._look_at_memory()
        os.close(self._life_writer)
        self._wait_for_guards(GUARDS_END_SECONDS)
        for guard in self._guards:
            sweep.kill(guard)
        self._wait_for_guards(END_SECONDS - GUARDS_END_SECONDS)

    def _take_request(self) -> bool:
        """Fork the guard that is asked for; False when the consumer is gone."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self._consumer, 65536, 2, socket.MSG_CMSG_CLOEXEC)
        except OSError:
            return False
        try:
            for request in framing.Decoder().feed(data):
                self._tell({"request": request["request"], **self._fork_guard(request, descriptors)})
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return bool(data)

    def _fork_guard(self, request: dict[str, Any], descriptors: Sequence[int]) -> dict[str, Any]:
        if len(descriptors) != 2:
            return {"refused": f"expected two descriptors, got {len(descriptors)}: the limit of open files is reached"}
        try:
            pid = fork(lambda: self._be_guard(request, *descriptors))
        except OSError as exc:
            return {"refused": f"fork: {exc.strerror}"}
        self._guards[pid] = request["memory_bytes"]
        fail_point("guard-forked")
        return {"guard": pid}

    def _be_guard(self, request: dict[str, Any], events: int, control: int) -> int:
        self._consumer.close()
        self._children.close()
        os.close(self._life_writer)
        guard = Guard(
            request["unit_id"],
            request["timeout_seconds"],
            request["memory_bytes"],
            request["lease_until"],
            events=socket.socket(fileno=events),
            control=socket.socket(fileno=control),
            life=self._life,
            run=self._run,
            user=self._user,
        )
        return guard.guard()

    def _pause_milliseconds(self) -> float | None:
        if self._died:
            return sweep.PAUSE_SECONDS * 1000
        if self._guards:
            return max(0.0, self._memory_look - time.monotonic()) * 1000
        return GIVEN_UP_PAUSE_SECONDS * 1000 if self._given_up else None

    def _look_at_memory(self) -> None:
        if (begun := time.monotonic()) < self._memory_look:
            return
        for guard, memory_bytes in self._guards.items():
            look_at_memory(guard, memory_bytes)
        now = time.monotonic()
        self._memory_look = now + max(MEMORY_LOOK_SECONDS, MEMORY_LOOK_PAUSE * (now - begun))

    def _look_after_children(self) -> None:
        """Reap; and while there may be orphans of dead guards, kill them. Never blocks."""
        for pid, exit_code in self._children.reap().items():
            if pid in self._guards:
                del self._guards[pid]
                if exit_code != 0:
                    self._died.append({"guard": pid, "exit": exit_code})
                    self._clearing = sweep.Sweep(self._strike, CLEAR_SECONDS)
        if self._died:
            self._clear()
        elif self._given_up:
            self._strike()

    def _clear(self) -> None:
        """Whose orphans they are is not known: of all dead guards together it is said when they are gone."""
        self._clearing.step()
        if self._clearing.left and not self._clearing.given_up:
            return
        self._given_up.update(self._clearing.left)
        scratch.sweep()
        for died in self._died:
            self._tell({**died, "left": self._clearing.left})
        self._died.clear()

    def _strike(self) -> set[int]:
        found = sweep.strike_descendants({os.getpid()}, self._guards)
        self._given_up &= found
        return found - self._given_up

    def _wait_for_guards(self, seconds: float) -> None:
        poll = select.poll()
        poll.register(self._children, select.POLLIN)
        deadline = time.monotonic() + seconds
        while (self._guards or self._died) and time.monotonic() < deadline:
            poll.poll(sweep.PAUSE_SECONDS * 1000)
            self._look_after_children()

    def _tell(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # the consumer is gone: the next recv says so
            self._consumer.send(framing.encode(message))


def load(runner: str) -> tuple[list[str], RunnerMain]:
    """Import the runner's module and let it load its plugins: their names, and what a forked runner will do."""
    module = importlib.import_module(runner)
    plugins = list(module.preload())
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        raise LauncherError(f"expected one thread after loading {runner}, found {threads}: forks would inherit locks")
    return plugins, module.main


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="execute_engine.launcher")
    parser.add_argument("--socket", type=int, required=True)
    parser.add_argument("--runner", required=True)
    parser.add_argument("--user", type=processes.user)
    options = parser.parse_args(arguments)
    processes.set_title("execute-engine: launcher")
    logs.configure("execute-engine", "launcher")
    processes.become_subreaper()
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    consumer = socket.socket(fileno=options.socket)
    consumer.set_inheritable(False)
    if not processes.tells_children():
        log.warning("RUNNER_MEMORY is not kept: expected a kernel with CONFIG_PROC_CHILDREN, found one without")
    try:
        plugins, run = load(options.runner)
    except BaseException as exc:  # noqa: BLE001 - Ansible raises SystemExit too; the consumer must hear of everything
        return _refuse(consumer, exc)
    gc.collect()
    gc.freeze()  # what is loaded is shared with every fork: no collection may touch its pages
    try:
        consumer.sendall(framing.encode({"ready": plugins}))
    except BrokenPipeError:
        return 0
    Launcher(consumer, run, options.user).serve()
    return 0


def _refuse(consumer: socket.socket, exc: BaseException) -> int:
    log.critical("the launcher cannot load what it needs", exc_info=exc)
    with contextlib.suppress(OSError):
        consumer.sendall(framing.encode({"failed": f"{type(exc).__name__}: {exc}"[:MAX_REASON]}))
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
