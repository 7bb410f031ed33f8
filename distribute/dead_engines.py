"""Engines that are gone: taken for dead when they do not beat any more, and what they have left is settled."""

from __future__ import annotations

import logging
import time

import sqlalchemy as sa

from contract import units
from contract.database import Database
from contract.failpoint import fail_point
from contract.states import EngineState
from distribute.engine_watch import EngineWatch
from distribute.store import dispatch
from distribute.store.dispatch import HeldUnit, LiveEngine

LOOK_SECONDS = 2.0  # at most a sixth of the lease

log = logging.getLogger(__name__)


class DeadEngines:
    """Every change is made on the condition of what was seen: one of us that was paused for long does no harm."""

    def __init__(self, database: Database, lease_seconds: float) -> None:
        self._database = database
        self._lease_seconds = lease_seconds
        self.look_seconds = min(LOOK_SECONDS, lease_seconds / 6)  # how often look() is to be called
        self._watch = EngineWatch(lease_seconds, longest_gap_seconds=2 * self.look_seconds + 1)

    def forget(self) -> None:
        """Something kept us from looking: every wait begins again."""
        self._watch.forget()

    def look(self) -> int:
        """Declare dead whose lease is over, and settle the units of all that are gone; returns how many live.

        Raises contract's DatabaseError and its children; the next call does the rest.
        """
        asked_at = time.monotonic()
        engines = self._database.read(dispatch.live_engines)
        over = self._watch.expired(engines, asked_at, time.monotonic())
        dead = [engine for engine in over if self._declare_dead(engine)]
        for held in self._database.read(dispatch.units_of_gone_engines):
            fail_point("settling")
            self._settle(held)
        return len(engines) - len(dead)

    def _declare_dead(self, engine: LiveEngine) -> bool:
        died = self._database.write(
            lambda connection: dispatch.declare_dead(connection, engine.incarnation, engine.beat)
        )
        if died:
            log.error("an engine is dead", extra={"engine": engine.id, "host": engine.host_name})
        return died

    def _settle(self, held: HeldUnit) -> None:
        reason = self._reason(held)

        def settle(connection: sa.Connection) -> bool:
            gone = dispatch.is_gone(connection, held.incarnation)
            if gone:
                units.settle(connection, held.id, held.incarnation, held.is_begun, reason)
            return gone

        if self._database.write(settle):
            log.warning(
                "a unit of a gone engine is settled",
                extra={"unit": held.id, "begun": held.is_begun, "incarnation": held.incarnation},
            )

    def _reason(self, held: HeldUnit) -> str:
        """For the hosts without a result of a unit that was begun."""
        engine = f"The engine {held.engine_id} on {held.host_name}"
        if held.engine_state == EngineState.STOPPED:
            return f"{engine} was stopped before it had a result for this host."
        return f"{engine} gave no sign of life for {self._lease_seconds:g} s; it has left no result for this host."
