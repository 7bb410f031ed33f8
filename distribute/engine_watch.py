"""Which engines are dead: those whose beat we have ourselves seen stand still for a whole lease. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distribute.store.dispatch import LiveEngine


@dataclass(frozen=True)
class _Sighting:
    beat: int
    since: float


class EngineWatch:
    """Moments are monotonic. Whatever keeps us from looking starts every wait again."""

    def __init__(self, lease_seconds: float, longest_gap_seconds: float) -> None:
        self._lease_seconds = lease_seconds
        self._longest_gap_seconds = longest_gap_seconds
        self._sightings: dict[str, _Sighting] = {}
        self._answered_at = float("-inf")

    def forget(self) -> None:
        """The database did not answer, or another one has looked meanwhile."""
        self._sightings = {}

    def expired(self, engines: Sequence[LiveEngine], asked_at: float, answered_at: float) -> list[LiveEngine]:
        """Of these engines, as the database showed them between the two moments, those whose lease is over."""
        if answered_at - min(asked_at, self._answered_at) > self._longest_gap_seconds:
            self.forget()
        self._answered_at = answered_at
        before, self._sightings = self._sightings, {}
        over = []
        for engine in engines:
            sighting = before.get(engine.incarnation)
            if sighting is None or sighting.beat != engine.beat:
                sighting = _Sighting(engine.beat, answered_at)
            elif asked_at - sighting.since >= self._lease_seconds:
                over.append(engine)
            self._sightings[engine.incarnation] = sighting
        return over
