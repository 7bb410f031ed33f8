"""Retention: what was finished some days ago is deleted, a little at a time, by the dispatcher that leads."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta

import sqlalchemy as sa

from contract.database import Database, now
from contract.errors import DatabaseAway, DatabaseError
from distribute.store import retention

LOOK_SECONDS = 60.0  # from one look to the next while nothing is expired
MORE_SECONDS = 0.2  # while there is more to delete
RESTS = 4  # so many times as long as a batch took: most of the dispatcher's time is for what runs
BATCH = 1000  # rows a transaction, at most
SLOW_SECONDS = 1.0  # a batch that takes longer is followed by a smaller one
TOLERANCE_SECONDS = 60.0  # that the two clocks may differ by from one look to the next

log = logging.getLogger(__name__)


class SteadyClock:
    """The wall clock, believed while it goes as the monotonic one does: one that was set may be years ahead."""

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], datetime] = now,
        steady_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._monotonic = monotonic
        self._wall = wall
        self._steady_seconds = steady_seconds
        self._seen: tuple[float, datetime] | None = None
        self._steady_since = 0.0

    def look(self) -> datetime | None:
        """The time; None until the clocks have agreed, from one look to the next, for steady_seconds."""
        moment, wall = self._monotonic(), self._wall()
        if self._seen is None:
            self._steady_since = moment
        else:
            stepped = (wall - self._seen[1]).total_seconds() - (moment - self._seen[0])
            if abs(stepped) > TOLERANCE_SECONDS:
                self._steady_since = moment
                log.warning("the clock was set: nothing is deleted for a while", extra={"seconds": round(stepped)})
        self._seen = moment, wall
        return wall if moment - self._steady_since >= self._steady_seconds else None


class Retention:
    """Deletes ended tasks that are older than so many days."""

    def __init__(self, database: Database, days: int, clock: SteadyClock | None = None) -> None:
        self._database = database
        self._age = timedelta(days=days)
        self._clock = clock or SteadyClock(steady_seconds=LOOK_SECONDS)
        self._batch = BATCH
        self._next_at = 0.0
        self._has_more = False

    def keep(self, fence: Callable[[sa.Connection], None]) -> bool:
        """Look when it is time; returns whether there is more. Raises what fence raises, and DatabaseAway.

        What the database refuses otherwise is logged: it must not keep the dispatcher from its other work.
        """
        began = time.monotonic()
        if began < self._next_at:
            return self._has_more
        self._has_more, self._next_at = False, began + LOOK_SECONDS  # if this look fails
        try:
            self._has_more = self.look(fence)
        except DatabaseAway:
            raise
        except DatabaseError as exc:
            log.warning("expired tasks could not be deleted", extra={"error": str(exc)})
        ended = time.monotonic()
        self._next_at = ended + (max(MORE_SECONDS, RESTS * (ended - began)) if self._has_more else LOOK_SECONDS)
        return self._has_more

    def look(self, fence: Callable[[sa.Connection], None]) -> bool:
        """Delete one batch of the oldest expired task, in a transaction that begins with fence; False: there is none.

        Raises contract's DatabaseError and its children; the next call does the rest.
        """
        wall = self._clock.look()
        if wall is None:
            return False
        before = wall - self._age
        expired = self._database.read(lambda connection: retention.oldest_expired(connection, before, wall))
        if expired is None:
            return False

        def delete(connection: sa.Connection) -> bool:
            fence(connection)
            return retention.delete_some(connection, expired.key, before, self._batch)

        began = time.monotonic()
        try:
            is_gone = self._database.write(delete)
        finally:  # also of one that was not answered in time
            is_slow = time.monotonic() - began > SLOW_SECONDS
            self._batch = max(1, self._batch // 2) if is_slow else min(BATCH, 2 * self._batch)
        if is_gone:
            log.info("an expired task is deleted", extra={"task": expired.id, "hosts": expired.host_count})
        return True
