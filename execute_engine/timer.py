"""Something that is due again and again."""

from __future__ import annotations

import math

TICK_SECONDS = 0.5


class Timer:
    """Due at once, then every so many seconds; what was missed is not made up for. Moments are monotonic.

    Those of a whole number of ticks are due at whole ticks, the first time up to one tick early: so several are due in
    one turn of the loop, and a turn costs more than most of what is done in it.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.at = float("-inf")

    def due(self, moment: float) -> bool:
        """True once each time; the next one counts from now."""
        if moment < self.at:
            return False
        self.rest(moment)
        return True

    def rest(self, moment: float) -> None:
        """Let its time begin now."""
        self.at = moment + self._seconds
        if self._seconds % TICK_SECONDS == 0:
            self.at = math.floor(self.at / TICK_SECONDS) * TICK_SECONDS

    def now(self) -> None:
        """Make it due."""
        self.at = float("-inf")
