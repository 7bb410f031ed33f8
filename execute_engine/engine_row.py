"""The engine's own row in the database: one an incarnation, proof that it lives."""

from __future__ import annotations

import socket
from collections.abc import Collection
from dataclasses import dataclass

import sqlalchemy as sa

from contract import __version__, units
from contract.database import Database, now
from contract.states import EngineState
from contract.tables import engine

ALIVE = (EngineState.LIVE, EngineState.DRAINING)

_REVIVE = (  # made once: that costs more than the database takes to answer
    sa.update(engine)
    .where(engine.c.incarnation == sa.bindparam("own"))
    .values(
        beat=engine.c.beat + 1,
        **{name: sa.bindparam(f"new_{name}") for name in ("beat_at", "state", "free_slots", "missing", "sees_files")},
    )
)
_BEAT = _REVIVE.where(engine.c.state != EngineState.DEAD)


@dataclass(frozen=True)
class Beat:
    """lives is False when the incarnation was declared dead and another one has taken its place.

    revived: it was declared dead, and is taken back. held: the units it holds by the database, id -> begun.
    """

    lives: bool
    revived: bool
    held: dict[int, bool]


@dataclass(frozen=True)
class Twin:
    """Another incarnation that counts as alive."""

    host_name: str
    beat: int


class EngineRow:
    """Errors are contract's DatabaseError and its children; every call may be made again after one."""

    def __init__(self, database: Database, incarnation: str, engine_id: str) -> None:
        self._database = database
        self._incarnation = incarnation
        self._engine_id = engine_id

    def twins(self, former: Collection[str]) -> dict[str, Twin]:
        """Other incarnations of this engine id that count as alive, but the former ones of this STATE_DIR."""
        query = sa.select(engine.c.incarnation, engine.c.host_name, engine.c.beat).where(
            engine.c.id == self._engine_id, engine.c.state.in_(ALIVE)
        )
        rows = self._database.read(lambda connection: connection.execute(query).all())
        known = {*former, self._incarnation}
        return {row.incarnation: Twin(row.host_name, row.beat) for row in rows if row.incarnation not in known}

    def retire(self, former: Collection[str], reason: str) -> int:
        """Declare former incarnations dead, whose processes are gone, and settle their units; returns how many."""
        gone = sa.update(engine).where(engine.c.incarnation.in_(former), engine.c.state.in_(ALIVE))
        self._database.write(lambda connection: connection.execute(gone.values(state=EngineState.DEAD)))
        held = self._database.read(lambda connection: units.held_units(connection, list(former)))
        for unit_id, incarnation, begun in held:
            self._settle(unit_id, incarnation, begun, reason)
        return len(held)

    def register(self, slots: int) -> None:
        """Insert this incarnation's row; the engine counts as live from then on."""
        values = {
            "incarnation": self._incarnation,
            "id": self._engine_id,
            "host_name": socket.gethostname(),
            "version": __version__,
            "slots": slots,
            "free_slots": slots,
            "state": EngineState.LIVE,
            "sees_files": False,  # until the share has answered
            "started_at": now(),
            "beat_at": now(),
        }

        def register(connection: sa.Connection) -> None:
            mine = sa.select(engine.c.incarnation).where(engine.c.incarnation == self._incarnation)
            if connection.execute(mine).first() is None:  # else the answer to the first try was lost
                connection.execute(sa.insert(engine).values(values))

        self._database.write(register)

    def resize(self, slots: int) -> None:
        """So many hosts at once from now on; the free ones come with the next beat."""
        mine = sa.update(engine).where(engine.c.incarnation == self._incarnation)
        self._database.write(lambda connection: connection.execute(mine.values(slots=slots)))

    def beat(self, state: EngineState, free_slots: int, missing: str | None, sees_files: bool = False) -> Beat:
        """Prove that this incarnation lives, and read what it holds.

        One that was declared dead while it was paused comes back: what it held is settled, what it claims is its own.
        """

        values = {
            "own": self._incarnation,
            "new_beat_at": now(),
            "new_state": state,
            "new_free_slots": free_slots,
            "new_missing": missing,
            "new_sees_files": sees_files,
        }

        def beat(connection: sa.Connection) -> Beat:
            beaten = connection.execute(_BEAT, values).rowcount == 1
            revived = False
            if not beaten and not self._has_successor(connection):
                beaten = revived = connection.execute(_REVIVE, values).rowcount == 1
            held = units.held_units(connection, [self._incarnation])
            return Beat(beaten, revived, {unit_id: begun for unit_id, _, begun in held})

        return self._database.write(beat)

    def _has_successor(self, connection: sa.Connection) -> bool:
        """Another incarnation of this engine lives, here or on another machine."""
        others = sa.select(engine.c.incarnation).where(
            engine.c.id == self._engine_id, engine.c.incarnation != self._incarnation, engine.c.state.in_(ALIVE)
        )
        return connection.execute(others).first() is not None

    def _settle(self, unit_id: int, incarnation: str, begun: bool, reason: str) -> None:
        self._database.write(lambda connection: units.settle(connection, unit_id, incarnation, begun, reason))
