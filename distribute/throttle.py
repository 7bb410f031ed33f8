"""Wrong tokens are slowed down by address; who has shown a right one there goes on as before."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")

BURST = 10  # wrong tokens of an address at once
PER_SECOND = 1.0  # and then
MOST_ADDRESSES = 10_000  # that are remembered, and as many clients with a right token


@dataclass
class _Credit:
    left: float
    at: float  # monotonic


class Throttle:
    """For all threads of a process. A guess that has to wait is not compared at all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._credits: OrderedDict[str, _Credit] = OrderedDict()
        self._well_known: OrderedDict[tuple[str, str], None] = OrderedDict()

    def wait_seconds(self, address: str, sha256: str) -> float:
        """How long this address has to wait before a token that it did not show before is looked at; 0: not at all."""
        with self._lock:
            if (address, sha256) in self._well_known:
                return 0.0
            credit = self._credits.get(address)
            left = BURST if credit is None else self._left(credit)
            return 0.0 if left >= 1 else (1 - left) / PER_SECOND

    def passed(self, address: str, sha256: str) -> None:
        with self._lock:
            _remember(self._well_known, (address, sha256), None)

    def failed(self, address: str, sha256: str) -> None:
        """It was no token, or is none any more."""
        with self._lock:
            self._well_known.pop((address, sha256), None)
            credit = self._credits.get(address)
            left = BURST if credit is None else self._left(credit)
            _remember(self._credits, address, _Credit(left - 1, time.monotonic()))

    @staticmethod
    def _left(credit: _Credit) -> float:
        return min(BURST, credit.left + (time.monotonic() - credit.at) * PER_SECOND)


def _remember(known: OrderedDict[K, V], key: K, value: V) -> None:
    known[key] = value
    known.move_to_end(key)
    if len(known) > MOST_ADDRESSES:
        known.popitem(last=False)
