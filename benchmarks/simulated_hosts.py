"""Hosts without ssh: one process that is launcher, guard and runner of every simulated engine.

It speaks the launcher's protocol (execute_engine/launcher.py) on a socket with a path. Each unit's hosts begin at once
and answer each after a random time; what it sends has the sizes and the order of a runner's events.
"""

from __future__ import annotations

import contextlib
import heapq
import random
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from execute_engine.errors import LauncherError
from execute_engine.events import Decoder, HostDone, encode
from execute_engine.launcher_client import LauncherClient
from execute_engine.report import utc_now

FIRST_GUARD = 1 << 30  # above every pid: a guard's number names nobody that could be killed
BACKLOG = 1000


class SimulatedLauncher(LauncherClient):
    """The consumer's side: another process answers in the place of the launcher."""

    path = Path("hosts")  # of the socket; set before the engines are forked

    def _start(self) -> None:
        ours = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            ours.connect(str(self.path))
        except OSError as exc:
            raise LauncherError(f"expected simulated hosts at {self.path}, found: {exc.strerror}") from exc
        ours.setblocking(False)
        self._socket = ours
        self._decoder = Decoder()


@dataclass(eq=False)
class _Unit:
    events: socket.socket
    control: socket.socket
    open_hosts: int = 0
    decoder: Decoder = field(default_factory=Decoder)
    over: bool = False


class SimulatedHosts:
    """serve() until it is killed. seconds: of a host, on average; it takes half of it to one and a half times."""

    def __init__(self, path: Path, seconds: float) -> None:
        self._seconds = seconds
        self._selector = selectors.EpollSelector()
        self._due: list[tuple[float, int, _Unit, str, str]] = []  # (when, a tie breaker, unit, host, begun at)
        self._number = 0
        self._guard = FIRST_GUARD
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(path))
        self._listener.listen(BACKLOG)
        self._watch(self._listener, self._accept)

    def serve(self) -> None:
        while True:
            wait = max(0.0, self._due[0][0] - time.monotonic()) if self._due else None
            for key, _ in self._selector.select(wait):
                key.data()
            moment = time.monotonic()
            while self._due and self._due[0][0] <= moment:
                _, _, unit, host, begun = heapq.heappop(self._due)
                self._answer(unit, host, begun)

    def _watch(self, what: socket.socket, ready: Callable[[], None]) -> None:
        self._selector.register(what, selectors.EVENT_READ, ready)

    def _accept(self) -> None:
        engine, _ = self._listener.accept()
        engine.send(encode({"ready": ["simulated"]}))
        self._watch(engine, partial(self._launch, engine))

    def _launch(self, engine: socket.socket) -> None:
        data, descriptors, _, _ = socket.recv_fds(engine, 1 << 16, 2)
        if not data:
            self._forget(engine)
            return
        (request,) = Decoder().feed(data)
        self._guard += 1
        events, control = (socket.socket(fileno=descriptor) for descriptor in descriptors)
        unit = _Unit(events, control)
        self._watch(events, partial(self._begin, unit))
        self._watch(control, partial(self._order, unit))
        engine.send(encode({"request": request["request"], "guard": self._guard}))

    def _begin(self, unit: _Unit) -> None:
        """The Job has come, or a part of it, or nobody wants results any more."""
        if unit.over:  # in the same turn
            return
        data = unit.events.recv(1 << 20)
        if not data:
            self._end(unit, "stopped")
            return
        for job in unit.decoder.feed(data):
            self._selector.unregister(unit.events)
            begun, moment = utc_now(), time.monotonic()
            unit.open_hosts = len(job["hosts"])
            for host in job["hosts"]:
                self._number += 1
                after = self._seconds * random.uniform(0.5, 1.5)
                heapq.heappush(self._due, (moment + after, self._number, unit, host, begun))
            started = [encode({"event": "host_started", "host": host, "at": begun}) for host in job["hosts"]]
            self._say(unit, b"".join(started))

    def _answer(self, unit: _Unit, host: str, begun: str) -> None:
        if unit.over:
            return
        self._say(unit, encode(_result(host, begun)))
        unit.open_hosts -= 1
        if not unit.open_hosts:
            self._end(unit, "finished")

    @staticmethod
    def _say(unit: _Unit, frames: bytes) -> None:
        with contextlib.suppress(OSError):  # the engine is gone, which the control socket shows too
            unit.events.sendall(frames)

    def _order(self, unit: _Unit) -> None:
        """Whatever the engine says now, but longer leases, is the end of the unit."""
        if unit.over:
            return
        data = unit.control.recv(1 << 16)
        if not data or b'"stop"' in data:
            self._end(unit, "stopped")

    def _end(self, unit: _Unit, cause: str) -> None:
        if unit.over:
            return
        unit.over = True
        self._forget(unit.events)
        with contextlib.suppress(OSError):
            unit.control.send(encode({"ended": cause, "runner_exit": 0, "left": []}))
        self._forget(unit.control)

    def _forget(self, what: socket.socket) -> None:
        with contextlib.suppress(KeyError):  # of a unit that has begun nothing more is read
            self._selector.unregister(what)
        what.close()


def _result(host: str, begun: str) -> dict[str, Any]:
    return HostDone(
        host,
        "success",
        rc=0,
        changed=True,
        stdout="hello from a host that is none",
        stderr="",
        tasks_ok=1,
        tasks_total=1,
        started_at=begun,
        finished_at=utc_now(),
        detail={"cmd": "echo hello", "delta": "0:00:00.004"},
    ).to_event()
