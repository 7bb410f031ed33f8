"""The brake of an engine that is itself the sick one: it must not eat the fleet because it fails fastest. No I/O."""

from __future__ import annotations

from collections import deque

UNITS = 3  # that ended in a row
LEAST_HOSTS = 60  # of them together
UNREACHABLE_SHARE = 0.9
TRY_SECONDS = 30.0  # between two units while the brake is on


class Brake:
    """On when the last units were nearly all unreachable here and not elsewhere; one unit every 30 s then tries again.

    Moments are monotonic. A wrong key, a dead network card or missing descriptors look like this; hosts that are down
    are down for the other engines too.
    """

    def __init__(self) -> None:
        self._last: deque[tuple[int, int]] = deque(maxlen=UNITS)  # hosts, unreachable
        self._try_at: float | None = None  # None: off

    @property
    def on(self) -> bool:
        return self._try_at is not None

    def ended(self, hosts: int, unreachable: int) -> bool:
        """A unit has ended here; True when others() must say whether it is us. One that is well takes the brake off."""
        self._last.append((hosts, unreachable))
        if unreachable < UNREACHABLE_SHARE * hosts:
            self._try_at = None
        all_bad = all(bad >= UNREACHABLE_SHARE * of for of, bad in self._last)
        return not self.on and all_bad and len(self._last) == UNITS and sum(of for of, _ in self._last) >= LEAST_HOSTS

    def others(self, share: float | None, moment: float) -> bool:
        """share: of the hosts of other engines' last units, the unreachable; None: no units. True: now it is on."""
        if self.on or share is None or share >= UNREACHABLE_SHARE:
            return False
        self._try_at = moment + TRY_SECONDS
        return True

    def claims_at(self, units_running: int) -> float | None:
        """When a unit may be claimed; None: not before the one that runs has ended."""
        if self._try_at is None:
            return float("-inf")
        return None if units_running else self._try_at

    def claimed(self, moment: float) -> None:
        if self._try_at is not None:
            self._try_at = moment + TRY_SECONDS

    def problem(self) -> str | None:
        if not self.on:
            return None
        return (
            f"the last {UNITS} units ended unreachable here and not on other engines (key, network, descriptors?): "
            f"one unit every {TRY_SECONDS:.0f} s is tried"
        )
