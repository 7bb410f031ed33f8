"""Ending a unit before its hosts are through: the guard's order, served by a thread that waits for nothing else."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Protocol

from execute_engine.events import Decoder
from execute_engine.outcome import Outcomes, Stuck
from execute_engine.report import Report

log = logging.getLogger(__name__)

GUARD_GONE = 70
_LIMIT_SECONDS = 60.0  # an end takes a few seconds, and the guard kills before this
_FOR_WRITING_SECONDS = 0.3  # of the order's seconds, kept for the reports


class Connections(Protocol):
    """What ending needs of asyncssh's and OpenSSH's Hosts."""

    def end(self, hosts: Iterable[str], reason: str, seconds: float) -> dict[str, str]: ...

    def where(self, host: str) -> Any: ...


class Ending:
    """Listens for {"order": "end", "reason": r, "seconds": s} and then ends this process.

    leave(code) must not return. An end of the pipe means that the guard is gone: the process ends at once.
    """

    def __init__(
        self,
        orders: int,
        outcomes: Outcomes,
        report: Report,
        connections: Connections,
        engine_id: str,
        stop_workers: Callable[[], None],
        leave: Callable[[int], Any],
    ) -> None:
        self._orders = orders
        self._outcomes = outcomes
        self._report = report
        self._connections = connections
        self._engine_id = engine_id
        self._stop_workers = stop_workers
        self._leave = leave
        self._begun = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._listen, daemon=True, name="orders").start()

    def _listen(self) -> None:
        decoder = Decoder()
        while data := os.read(self._orders, 65536):
            for order in decoder.feed(data):
                if order.get("order") == "end":
                    self._end(str(order["reason"]), float(order["seconds"]))
        os._exit(GUARD_GONE)

    def _end(self, reason: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        self._begun.set()
        try:
            self._end_hosts(reason, seconds - _FOR_WRITING_SECONDS)
        except Exception:  # the guard kills what is left, and must hear of it by the exit code
            log.exception("Ending a unit's hosts failed")
            os._exit(1)
        self._report.flush(deadline - time.monotonic())
        self._leave(0)

    def wait_if_begun(self) -> None:
        """For the main thread, which may find its work done because the hosts were ended: does not return then."""
        if self._begun.is_set():
            threading.Event().wait(_LIMIT_SECONDS)

    def _end_hosts(self, reason: str, seconds: float) -> None:
        """Every host without a result is ended, side by side, and reported. Blocks for `seconds`."""
        hosts = self._outcomes.open_hosts()
        running = set(self._outcomes.running_hosts())
        cut = self._outcomes.cut_off(hosts, reason, self._engine_id, self._stuck(hosts))
        words = "the unit's deadline came" if reason == "deadline" else reason
        self._stop_workers()
        stopped = self._connections.end(hosts, words, max(0.1, seconds))
        for done in cut:
            outcome = stopped.get(done.host, "unknown") if done.host in running else None
            self._report.send(replace(done, stopped_on_host=outcome).to_event())

    def _stuck(self, hosts: list[str]) -> dict[str, Stuck]:
        found = {}
        for host in hosts:
            if where := self._connections.where(host):
                found[host] = Stuck(where.stage, where.since_iso, time.monotonic() - where.since_monotonic)
        return found
