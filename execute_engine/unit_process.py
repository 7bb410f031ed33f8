"""One launched unit as the consumer sees it: how to stop it, and how it ended."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import time
from dataclasses import dataclass
from typing import Any

from execute_engine import events as framing
from execute_engine.guard import GRACE_SECONDS
from execute_engine.job import Job

OVERDUE_SECONDS = 5.0  # a guard that says nothing for so long after its time is killed

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class UnitEnd:
    """Every process of the unit is gone, but those in left."""

    unit_id: int
    cause: str  # as Report.ended of guard.py, or guard_died | guard_stuck | launcher_died
    runner_exit: int | None  # exit code, or -signal number; None: not known
    left: tuple[int, ...]  # pids that could not be killed


class UnitProcess:
    """A unit that was launched. events is the caller's to write the Job to, to read to EOF and to close.

    What has no place in the caller's code, the other methods, is LauncherClient's.
    """

    def __init__(self, job: Job, guard_pid: int, events: socket.socket, control: socket.socket) -> None:
        self.unit_id = job.unit_id
        self.guard_pid = guard_pid
        self.events = events
        self.control: socket.socket | None = control  # None: the guard is gone
        self.gone_at: float | None = None
        self.report: dict[str, Any] | None = None  # the guard's
        self.obituary: dict[str, Any] | None = None  # the launcher's, for a guard that could not report
        self._decoder = framing.Decoder()
        self._stuck = False
        self._guard = _pidfd(guard_pid)
        self._due = time.monotonic() + job.timeout_seconds + GRACE_SECONDS + OVERDUE_SECONDS

    def stop(self, reason: str) -> None:
        """Have the guard end the unit as at its deadline. Never blocks; a unit that is ending anyway is left to it."""
        if self.control is None:
            return
        try:
            self.control.send(framing.encode({"stop": reason}))
        except OSError as exc:  # gone, or it does not read: then it is killed when it is due
            log.warning("a stop order was not taken", extra={"unit": self.unit_id, "error": str(exc)})
        self._due = min(self._due, time.monotonic() + GRACE_SECONDS + OVERDUE_SECONDS)

    def extend_lease(self, until: float) -> None:
        """The guard ends the unit at this monotonic moment, unless it hears of a later one. Never blocks."""
        if self.control is not None:
            with contextlib.suppress(OSError):  # gone, or it does not read: then the lease ends, or it is killed
                self.control.send(framing.encode({"lease_until": until}))

    def read(self) -> None:
        """Take in the guard's report, and its end."""
        while self.control is not None:
            try:
                data = self.control.recv(65536)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.gone_at = time.monotonic()
                self.close()
            for report in self._decoder.feed(data):
                self.report = report

    def kill_overdue_guard(self) -> None:
        if (
            self.control is not None
            and self.report is None
            and time.monotonic() > self._due
            and self._guard is not None
        ):
            log.error("a guard did not report in time and is killed", extra={"unit": self.unit_id})
            signal.pidfd_send_signal(self._guard, signal.SIGKILL)
            self._stuck = True

    def end(self) -> UnitEnd | None:
        """How it ended, as far as guard and launcher know it."""
        if self.report is not None:
            return UnitEnd(self.unit_id, self.report["ended"], self.report["runner_exit"], tuple(self.report["left"]))
        if self.obituary is not None and self.control is None:
            cause = "guard_stuck" if self._stuck else "guard_died"
            return UnitEnd(self.unit_id, cause, None, tuple(self.obituary["left"]))
        return None

    def close(self) -> None:
        """Give up control: a guard that still lives ends its unit at once."""
        if self.control is not None:
            self.control.close()
            self.control = None
        if self._guard is not None:
            os.close(self._guard)
            self._guard = None


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except OSError:  # it ended at once, and its launcher has reaped it; or no descriptor is left
        return None
