"""How units end. Both services do it: the engine for its own, the dispatcher for those of a dead engine.

Each change is one conditional UPDATE by primary key; the row count says who won.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from contract.database import now
from contract.states import FINAL_STATUSES, OPEN_STATUSES, HostStatus, UnitState
from contract.tables import host_result, unit


def count_by_status(connection: sa.Connection, unit_id: int) -> dict[str, int]:
    rows = connection.execute(
        sa.select(host_result.c.status, sa.func.count())
        .where(host_result.c.unit_id == unit_id)
        .group_by(host_result.c.status)
    )
    return {status: count for status, count in rows}  # noqa: C416 - dict() does not know the types of a Row


def end_unit(connection: sa.Connection, unit_id: int, incarnation: str) -> bool:
    """running -> finished with its counters, for the incarnation that holds it.

    False when another has it, or when a host is still without a final status: then nothing was changed.
    """
    counts = count_by_status(connection, unit_id)
    if any(status in counts for status in OPEN_STATUSES):
        return False
    ended = connection.execute(
        sa.update(unit)
        .where(unit.c.id == unit_id, unit.c.state == UnitState.RUNNING, unit.c.incarnation == incarnation)
        .values(
            state=UnitState.FINISHED,
            finished_at=now(),
            **{status: counts.get(status, 0) for status in FINAL_STATUSES},
        )
    )
    return ended.rowcount == 1


def hand_back(connection: sa.Connection, unit_id: int, incarnation: str) -> bool:
    """running -> waiting for a unit that was claimed and provably not begun."""
    returned = connection.execute(
        sa.update(unit)
        .where(
            unit.c.id == unit_id,
            unit.c.state == UnitState.RUNNING,
            unit.c.incarnation == incarnation,
            unit.c.begun_at.is_(None),
        )
        .values(state=UnitState.WAITING, incarnation=None, published_at=None)
    )
    return returned.rowcount == 1


def lose_open_hosts(connection: sa.Connection, unit_id: int, reason: str) -> int:
    """Every host of the unit without a final status ends as lost, with the reason; returns how many."""
    lost = connection.execute(
        sa.update(host_result)
        .where(host_result.c.unit_id == unit_id, host_result.c.status.in_(OPEN_STATUSES))
        .values(status=HostStatus.LOST, msg=reason, blame=reason, stopped_on_host="unknown", finished_at=now())
    )
    return lost.rowcount


def held_units(connection: sa.Connection, incarnations: Sequence[str]) -> list[tuple[int, str, bool]]:
    """The running units of these incarnations, oldest first: id, incarnation, whether it was begun."""
    rows = connection.execute(
        sa.select(unit.c.id, unit.c.incarnation, unit.c.begun_at)
        .where(unit.c.incarnation.in_(incarnations), unit.c.state == UnitState.RUNNING)
        .order_by(unit.c.id)
    )
    return [(row.id, row.incarnation, row.begun_at is not None) for row in rows]


def settle(connection: sa.Connection, unit_id: int, incarnation: str, begun: bool, reason: str) -> None:
    """End what an incarnation that is gone for good has left: not begun goes back whole, begun ends with losses."""
    if not begun:
        hand_back(connection, unit_id, incarnation)
        return
    # The unit's row first: its lock keeps a second settler out, and rows are taken in the same order everywhere.
    held = connection.execute(
        sa.select(unit.c.id)
        .where(unit.c.id == unit_id, unit.c.state == UnitState.RUNNING, unit.c.incarnation == incarnation)
        .with_for_update()
    ).first()
    if held is not None:
        lose_open_hosts(connection, unit_id, reason)
        end_unit(connection, unit_id, incarnation)
