"""Something that is due again and again."""

from __future__ import annotations


class Timer:
    """Due at once, then every so many seconds; what was missed is not made up for. Moments are monotonic."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.at = float("-inf")

    def due(self, moment: float) -> bool:
        """True once each time; the next one counts from now."""
        if moment < self.at:
            return False
        self.at = moment + self._seconds
        return True

    def now(self) -> None:
        """Make it due."""
        self.at = float("-inf")
