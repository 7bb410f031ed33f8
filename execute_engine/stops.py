"""Stop signals as a number that a loop looks at, and as the end of a sleep."""

from __future__ import annotations

import select
import signal
import time

from contract.signals import Caught

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stops:
    def __init__(self, caught: Caught) -> None:
        self._caught = caught
        self._count = 0

    def fileno(self) -> int:
        return self._caught.fileno()

    @property
    def count(self) -> int:
        """How many have come so far."""
        self._count += len(self._caught.take())
        return self._count

    def wait(self, seconds: float) -> bool:
        """Sleep for so long, or until a stop signal has come; True when one has."""
        deadline = time.monotonic() + seconds
        while not self.count and (left := deadline - time.monotonic()) > 0:
            select.select([self._caught], [], [], left)
        return self._count > 0
