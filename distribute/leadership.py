"""Which dispatcher works: the one that holds the leader row and keeps its beat going.

No two clocks are compared. Whoever waits takes over when it has itself seen the same beat for some seconds on its own
monotonic clock; whoever led before finds out at its next beat, which every publishing transaction begins with.
"""

from __future__ import annotations

import logging
import random
import secrets
import time

import sqlalchemy as sa

from contract.database import Database
from distribute.errors import NotLeading
from distribute.store import dispatch

BEAT_SECONDS = 2.0
LOOK_SECONDS = 1.0
TAKEOVER_SECONDS = (5.0, 8.0)  # by chance in between, so that of many one is the first

log = logging.getLogger(__name__)


class Leadership:
    """Calls raise contract's DatabaseError and its children, and may be made again after one."""

    def __init__(self, database: Database, run: str) -> None:
        """run: what the holder's name begins with, so that this run of the service is known in it."""
        self._database = database
        self._run = run
        self._holder = ""  # a new one for each time we lead: an old transaction of ours is a stranger's too
        self._next_at = 0.0
        self._seen: dispatch.Leader | None = None
        self._take_at = 0.0

    @property
    def leads(self) -> bool:
        """As far as we know; fence() knows."""
        return bool(self._holder)

    def keep(self) -> None:
        """Beat when it is time, or look whether to take over. Raises NotLeading when another one leads."""
        if time.monotonic() < self._next_at:
            return
        if self.leads:
            self._database.write(self.fence)
            self._next_at = time.monotonic() + BEAT_SECONDS
        else:
            self._look()
            self._next_at = time.monotonic() + (0 if self.leads else LOOK_SECONDS)

    def fence(self, connection: sa.Connection) -> None:
        """To begin a transaction with: raises NotLeading, or keeps everybody from taking over until it ends."""
        if not dispatch.beat(connection, self._holder):
            raise NotLeading("another dispatcher has taken over")

    def lose(self) -> None:
        """After NotLeading."""
        self._holder, self._seen, self._next_at = "", None, 0.0

    def forget(self) -> None:
        """The database did not answer: a beat that stood still meanwhile says nothing."""
        self._seen = None

    def resign(self) -> None:
        """Let another one lead at once."""
        if self.leads:
            holder, self._holder = self._holder, ""
            self._database.write(lambda connection: dispatch.resign(connection, holder))

    def _look(self) -> None:
        row = self._database.read(dispatch.leader_row)
        if row is None:
            self._database.write(dispatch.add_leader_row)
            row = dispatch.Leader("", 0)
        now = time.monotonic()
        if row != self._seen:
            self._seen, self._take_at = row, now + random.uniform(*TAKEOVER_SECONDS)
        if not row.holder or now >= self._take_at:
            self._take(row)

    def _take(self, seen: dispatch.Leader) -> None:
        holder = f"{self._run}/{secrets.token_hex(16)}"
        if self._database.write(lambda connection: dispatch.take_over(connection, seen, holder)):
            self._holder = holder
            log.info("this dispatcher leads", extra={"former_beat": seen.beat})
