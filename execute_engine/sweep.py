"""Killing until nothing is left: a pass over the processes, again and again, until one finds none."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection

STALL_SECONDS = 2.0  # no process has gone for this long: what is left cannot be killed
PAUSE_SECONDS = 0.01  # between two passes; the killed need a moment to end

Kill = Callable[[int], None]


def kill(pid: int) -> None:
    """SIGKILL, whether there is such a process or not; one that we may not kill stays, and is found again."""
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def strike_descendants(roots: Collection[int], spared: Collection[int] = (), kill: Kill = kill) -> set[int]:
    """One pass: kill every descendant of the roots but the spared and what is below them; returns those found.

    The kernel lists /proc live and by ascending pid, so one pass catches what is forked while it runs. What it misses
    (a child with a smaller pid than its parent) the next one finds as a child of the root: the root must be a subreaper
    for that, or the killed leave their children to somebody else. A zombie counts: its other threads may live.
    """
    found: set[int] = set()
    with os.scandir("/proc") as entries:
        for entry in entries:
            if not entry.name.isdecimal():
                continue
            pid = int(entry.name)
            parent = _parent(pid)
            if (parent in roots or parent in found) and pid not in spared:
                kill(pid)
                found.add(pid)
    return found


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as stat:
            line = stat.read()
    except OSError:  # gone
        return 0
    return int(line[line.rindex(b")") + 2 :].split(None, 2)[1])


class Sweep:
    """Strikes until its owner knows that nothing is left. strike() kills what it finds and returns it.

    The owner reaps between two strikes. limit_seconds is for processes that multiply as fast as they are killed, and
    for a machine on which the killed do not come to their end.
    """

    def __init__(self, strike: Callable[[], set[int]], limit_seconds: float) -> None:
        self._strike = strike
        self._limit = time.monotonic() + limit_seconds
        self._progress = time.monotonic()
        self.left: tuple[int, ...] = ()  # what the last strike found
        self.given_up = False  # what is left cannot be killed

    def step(self) -> None:
        found = self._strike()
        now = time.monotonic()
        if set(self.left) - found:
            self._progress = now
        self.left = tuple(sorted(found))
        self.given_up = now - self._progress >= STALL_SECONDS or now >= self._limit
