"""How long something lasts, in words for a status: coarse, so that the words do not change all the time."""

from __future__ import annotations

_STEPS = ((1, 10, 1, "s"), (10, 120, 1, "s"), (60, 7200, 60, "min"), (3600, float("inf"), 3600, "h"))


def words(seconds: float) -> str:
    """0 s, 1 s, ... 9 s, 10 s, 20 s, ... 110 s, 2 min, ... 119 min, 2 h, ...: rounded down."""
    step, unit_seconds, unit = next((step, size, unit) for step, end, size, unit in _STEPS if seconds < end)
    return f"{seconds // step * step / unit_seconds:.0f} {unit}"
