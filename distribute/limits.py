"""How much of one client is answered, and how much of what is refused is noted: counted by name, for one process."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

BURST_SECONDS = 5  # of full speed, that who was quiet may use at once
MOST_NAMES = 10_000  # that are remembered
MOST_REFUSALS = 60  # of a client in a window
WINDOW_SECONDS = 60.0


@dataclass(frozen=True)
class _Bucket:
    left: float  # requests
    at: float  # monotonic


class Pace:
    """A token bucket for each name; used by all threads of a process."""

    def __init__(self, per_second: int) -> None:
        """0: no limit."""
        self._per_second = per_second
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def wait_seconds(self, name: str) -> float:
        """0: one more is counted. Else it is not, and this is how long its client has to wait."""
        if not self._per_second:
            return 0.0
        with self._lock:
            now = time.monotonic()
            most = float(self._per_second * BURST_SECONDS)
            before = self._buckets.get(name, _Bucket(most, now))
            left = min(most, before.left + (now - before.at) * self._per_second)
            if left < 1:
                return (1 - left) / self._per_second
            self._buckets[name] = _Bucket(left - 1, now)
            self._buckets.move_to_end(name)
            if len(self._buckets) > MOST_NAMES:
                self._buckets.popitem(last=False)
            return 0.0


@dataclass
class _Window:
    ends_at: float  # monotonic
    count: int = 0


class Refusals:
    """MOST_REFUSALS of each name in a window of WINDOW_SECONDS are let through, of the rest the number alone.

    Names are those of tokens that are known: nobody can make up many.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._windows: dict[str, _Window] = {}

    def admits(self, name: str, tell: Callable[[int], None]) -> bool:
        """Count one more. Where it is the first that is not let through, tell is called at the end of the window.

        tell, in a thread of its own, is given how many were not let through.
        """
        with self._lock:
            now = time.monotonic()
            window = self._windows.get(name)
            if window is None or window.ends_at <= now:
                window = self._windows[name] = _Window(now + WINDOW_SECONDS)
            window.count += 1
            if window.count == MOST_REFUSALS + 1:
                timer = threading.Timer(window.ends_at - now, self._end, (name, window, tell))
                timer.daemon = True  # a stop does not wait for it
                timer.start()
            return window.count <= MOST_REFUSALS

    def _end(self, name: str, window: _Window, tell: Callable[[int], None]) -> None:
        with self._lock:
            if self._windows.get(name) is window:
                del self._windows[name]
        tell(window.count - MOST_REFUSALS)
