"""How units end. Both services do it: the engine for its own, the dispatcher for those of a dead engine.

Each change is one conditional UPDATE by primary key; the row count says who won.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import sqlalchemy as sa

from contract.database import now
from contract.states import FINAL_STATUSES, OPEN_STATUSES, HostStatus, UnitState
from contract.tables import host_result, task, unit

REPORT, RERUN = "report", "rerun"  # a request's on_engine_loss
MAX_ATTEMPTS = 3  # of a unit; then what is left of it is lost, whatever the request says

# Statements of every unit and every beat are made once: that costs more than the database takes to answer.
_COUNT_BY_STATUS = (
    sa.select(host_result.c.status, sa.func.count())
    .where(host_result.c.unit_id == sa.bindparam("unit_id"))
    .group_by(host_result.c.status)
)
_END = (
    sa.update(unit)
    .where(
        unit.c.id == sa.bindparam("unit_id"),
        unit.c.state == UnitState.RUNNING,
        unit.c.incarnation == sa.bindparam("own"),
    )
    .values(
        state=UnitState.FINISHED,
        finished_at=sa.bindparam("moment"),
        **{str(status): sa.bindparam(f"count_{status}") for status in FINAL_STATUSES},
    )
)
_HELD = (
    sa.select(unit.c.id, unit.c.incarnation, unit.c.begun_at)
    .where(unit.c.incarnation.in_(sa.bindparam("incarnations", expanding=True)), unit.c.state == UnitState.RUNNING)
    .order_by(unit.c.id)
)


def count_by_status(connection: sa.Connection, unit_id: int) -> dict[str, int]:
    rows = connection.execute(_COUNT_BY_STATUS, {"unit_id": unit_id})
    return {status: count for status, count in rows}  # noqa: C416 - dict() does not know the types of a Row


def _held_by(unit_id: int, incarnation: str) -> tuple[sa.ColumnElement[bool], ...]:
    return unit.c.id == unit_id, unit.c.state == UnitState.RUNNING, unit.c.incarnation == incarnation


def _counters(counts: dict[str, int]) -> dict[str, int]:
    return {str(status): counts.get(status, 0) for status in FINAL_STATUSES}


def end_unit(connection: sa.Connection, unit_id: int, incarnation: str) -> bool:
    """running -> finished with its counters, for the incarnation that holds it.

    False when another has it, or when a host is still without a final status: then nothing was changed.
    """
    counts = count_by_status(connection, unit_id)
    if any(status in counts for status in OPEN_STATUSES):
        return False
    counters = {f"count_{status}": count for status, count in _counters(counts).items()}
    ended = connection.execute(_END, {"unit_id": unit_id, "own": incarnation, "moment": now(), **counters})
    return ended.rowcount == 1


def hand_back(connection: sa.Connection, unit_id: int, incarnation: str) -> bool:
    """running -> waiting for a unit that was claimed and provably not begun."""
    returned = connection.execute(
        sa.update(unit)
        .where(*_held_by(unit_id, incarnation), unit.c.begun_at.is_(None))
        .values(state=UnitState.WAITING, incarnation=None, published_at=None)
    )
    return returned.rowcount == 1


def give_back(
    connection: sa.Connection,
    unit_id: int,
    incarnation: str,
    attempt: int,
    row_ids: Collection[int] | None = None,
    *,
    counts: bool = True,
) -> bool:
    """running -> waiting for another attempt, with these rows of host_result; None: all without a final status.

    The caller knows that nothing was started on these hosts, or that the request allows a second start. counts is
    False where not even a process was started: then it is the same attempt. False when the incarnation does not hold
    this attempt of the unit: then nothing was changed.
    """
    more = int(counts)
    returned = connection.execute(
        sa.update(unit)
        .where(*_held_by(unit_id, incarnation), unit.c.attempt == attempt)
        .values(
            state=UnitState.WAITING, attempt=unit.c.attempt + more, incarnation=None, begun_at=None, published_at=None
        )
    )
    if returned.rowcount != 1:
        return False
    again = sa.update(host_result).where(host_result.c.unit_id == unit_id, host_result.c.status.in_(OPEN_STATUSES))
    if row_ids is not None:
        again = again.where(host_result.c.id.in_(sorted(row_ids)))
    nothing_yet = dict.fromkeys(("stuck_task", "stage", "since", "started_at", "engine"))
    connection.execute(again.values(status=HostStatus.QUEUED, attempt=host_result.c.attempt + more, **nothing_yet))
    return True


def recount(connection: sa.Connection, unit_id: int) -> None:
    """Write the counters of an ended unit anew, where its hosts' statuses were changed after its end."""
    counters = _counters(count_by_status(connection, unit_id))
    connection.execute(sa.update(unit).where(unit.c.id == unit_id).values(counters))


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
    rows = connection.execute(_HELD, {"incarnations": incarnations})
    return [(row.id, row.incarnation, row.begun_at is not None) for row in rows]


def settle(connection: sa.Connection, unit_id: int, incarnation: str, begun: bool, reason: str) -> None:
    """End what an incarnation that is gone for good has left, as the request's on_engine_loss says.

    Not begun goes back whole. Of a begun unit what has no result is lost, with the reason, or runs again.
    """
    if not begun:
        hand_back(connection, unit_id, incarnation)
        return
    # The unit's row first: its lock keeps a second settler out, and rows are taken in the same order everywhere.
    held = connection.execute(
        sa.select(unit.c.task_key, unit.c.attempt).where(*_held_by(unit_id, incarnation)).with_for_update()
    ).first()
    if held is None:
        return
    if _on_engine_loss(connection, held.task_key) == RERUN:
        if held.attempt < MAX_ATTEMPTS and any(s in OPEN_STATUSES for s in count_by_status(connection, unit_id)):
            give_back(connection, unit_id, incarnation, held.attempt)
            return
        reason = f"{reason} {last_attempt(held.attempt)}"
    lose_open_hosts(connection, unit_id, reason)
    end_unit(connection, unit_id, incarnation)


def _on_engine_loss(connection: sa.Connection, task_key: int) -> str:
    try:
        options = connection.execute(sa.select(task.c.options).where(task.c.key == task_key)).scalar_one()
        return str(options["on_engine_loss"])
    except (ValueError, TypeError, KeyError):  # of an older release, or no options at all
        return REPORT


def last_attempt(attempt: int) -> str:
    return f"This was attempt {attempt} of {MAX_ATTEMPTS}."
