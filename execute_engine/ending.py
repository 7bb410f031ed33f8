"""Ending hosts before they are through: at the guard's order all of a unit's, at a limit of their own one by one."""

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

DEADLINE = "deadline"
GUARD_GONE = 70
HOST_END_SECONDS = 2.0  # TERM, after half of it KILL
_LIMIT_SECONDS = 60.0  # an end takes a few seconds, and the guard kills before this
_FOR_WRITING_SECONDS = 0.3  # of the order's seconds, kept for the reports
_LONGEST_SLEEP_SECONDS = 1.0  # between two looks at the hosts' time; their shortest limit


class Connections(Protocol):
    """What ending needs of asyncssh's and OpenSSH's Hosts."""

    def end(self, hosts: Iterable[str], reason: str, seconds: float) -> dict[str, str]: ...

    def leave(self, hosts: Iterable[str], reason: str) -> None: ...

    def where(self, host: str) -> Any: ...


class HostEnding:
    """Takes hosts out for good: nothing more is started on them, and each is reported with what it was doing."""

    def __init__(
        self, outcomes: Outcomes, report: Report, connections: Connections, engine_id: str, leaves: bool
    ) -> None:
        """leaves: at a deadline the commands on the hosts are left running (on_timeout: leave)."""
        self._outcomes = outcomes
        self._report = report
        self._connections = connections
        self._engine_id = engine_id
        self._leaves = leaves
        self._under_way = 0
        self._changed = threading.Condition()

    def end(self, hosts: list[str], reason: str, words: str, seconds: float, before: Callable[[], None]) -> None:
        """reason is cut_off's; words are what the hosts' waiting threads are told; before() runs between the two.

        Blocks for about `seconds`.
        """
        with self._changed:
            self._under_way += 1
        try:
            self._end(hosts, reason, words, seconds, before)
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify_all()

    def wait(self, seconds: float) -> None:
        """Until every host that was taken out is reported; for who would end this process, at most `seconds`."""
        with self._changed:
            self._changed.wait_for(lambda: not self._under_way, seconds)

    def _end(self, hosts: list[str], reason: str, words: str, seconds: float, before: Callable[[], None]) -> None:
        running = set(self._outcomes.running_hosts())
        cut = self._outcomes.cut_off(hosts, reason, self._engine_id, self._stuck(hosts))
        before()
        if self._leaves and reason == DEADLINE:
            self._connections.leave(hosts, words)
            stopped = dict.fromkeys(hosts, "no")
        else:
            stopped = self._connections.end(hosts, words, max(0.1, seconds))
        for done in cut:
            outcome = stopped.get(done.host, "unknown") if done.host in running else None
            self._report.send(replace(done, stopped_on_host=outcome).to_event())

    def _stuck(self, hosts: list[str]) -> dict[str, Stuck]:
        found, now = {}, time.monotonic()
        for host in hosts:
            if where := self._connections.where(host):
                quiet_seconds = None if where.quiet_since is None else now - where.quiet_since
                found[host] = Stuck(where.stage, where.since_iso, quiet_seconds)
        return found


class Limits:
    """Ends each host alone when its own time, or that of its task, is over; the others go on."""

    def __init__(
        self, outcomes: Outcomes, ending: HostEnding, host_seconds: float | None, task_seconds: float | None
    ) -> None:
        self._outcomes = outcomes
        self._ending = ending
        self._host_seconds = host_seconds
        self._task_seconds = task_seconds

    def start(self) -> None:
        if self._host_seconds is not None or self._task_seconds is not None:
            threading.Thread(target=self._watch, daemon=True, name="limits").start()

    def _watch(self) -> None:
        while True:
            left = self._outcomes.time_left(self._host_seconds, self._task_seconds)
            over = [host for host, seconds in left.items() if seconds <= 0]
            if over:
                self._end(over)
            pause_seconds = min((seconds for seconds in left.values() if seconds > 0), default=_LONGEST_SLEEP_SECONDS)
            time.sleep(min(pause_seconds, _LONGEST_SLEEP_SECONDS))

    def _end(self, hosts: list[str]) -> None:
        try:
            self._ending.end(hosts, DEADLINE, "the host's time was over", HOST_END_SECONDS, lambda: None)
        except Exception:  # the unit's deadline is still to come
            log.exception("Ending hosts at their own limit failed")


class Ending:
    """Listens for {"order": "end", "reason": r, "seconds": s} and then ends this process.

    leave(code) must not return. An end of the pipe means that the guard is gone: the process ends at once.
    """

    def __init__(
        self,
        orders: int,
        outcomes: Outcomes,
        report: Report,
        hosts: HostEnding,
        stop_workers: Callable[[], None],
        leave: Callable[[int], Any],
    ) -> None:
        self._orders = orders
        self._outcomes = outcomes
        self._report = report
        self._hosts = hosts
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
        words = "the unit's deadline came" if reason == DEADLINE else reason
        try:
            open_hosts = self._outcomes.open_hosts()
            self._hosts.end(open_hosts, reason, words, seconds - _FOR_WRITING_SECONDS, self._stop_workers)
        except Exception:  # the guard kills what is left, and must hear of it by the exit code
            log.exception("Ending a unit's hosts failed")
            os._exit(1)
        self._hosts.wait(deadline - time.monotonic())  # one that a limit has taken out just before
        self._report.flush(deadline - time.monotonic())
        self._leave(0)

    def wait_if_begun(self) -> None:
        """For the main thread, which may find its work done because the hosts were ended: does not return then."""
        if self._begun.is_set():
            threading.Event().wait(_LIMIT_SECONDS)
