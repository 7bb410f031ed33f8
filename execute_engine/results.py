"""A batch of host results as one statement. Seen: 70 us a row on MariaDB, with NULLs and any text."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import fields

import sqlalchemy as sa

from contract import units
from contract.database import Database
from contract.errors import DatabaseError, DatabaseRetry
from contract.states import FINAL_STATUSES, OPEN_STATUSES, HostStatus, UnitState
from contract.tables import host_result, unit
from execute_engine.unit import HostRow, unstorable

_KEYS = ("id", "unit_id", "attempt")
_VALUES = tuple(name.name for name in fields(HostRow) if name.name not in _KEYS)
_SETS = ", ".join(f"{name} = v.{name}" for name in _VALUES)
_OPEN = f"host_result.status IN ({', '.join(repr(str(status)) for status in OPEN_STATUSES)})"
_LOST = f"host_result.status = '{HostStatus.LOST}'"

# A column of JSON_TABLE takes NULL for a text that does not fit: none of these is narrower than the table's own.
_TYPES = {"rc": "INT", "changed": "INT", "tasks_ok": "INT", "tasks_total": "INT"}
_TYPES |= dict.fromkeys(("since", "started_at", "finished_at"), "DATETIME(6)")
_TYPES |= dict.fromkeys(("status", "stage", "stopped_on_host"), "VARCHAR(16)")
_TYPES |= dict.fromkeys(("stuck_task", "engine"), "VARCHAR(255)")
_COLUMNS = ", ".join(f"{name} {_TYPES.get(name, 'MEDIUMTEXT')} PATH '$.{name}'" for name in _VALUES)
_FIELDS = ", ".join(f"json_extract(value, '$.{name}') AS {name}" for name in ("id", "attempt", *_VALUES))


def _updates(condition: str, late: int) -> dict[str, sa.TextClause]:
    """By dialect: write the values :rows where the row is of the same attempt and fulfils the condition."""
    same = f"host_result.attempt = v.attempt AND {condition}"
    return {
        "mysql": sa.text(
            f"UPDATE host_result JOIN JSON_TABLE(:rows, '$[*]' COLUMNS "
            f"(id BIGINT PATH '$.id', attempt INT PATH '$.attempt', {_COLUMNS})) AS v ON host_result.id = v.id "
            f"SET {', '.join(f'host_result.{name} = v.{name}' for name in _VALUES)}, late = {late} WHERE {same}"
        ),
        "sqlite": sa.text(
            f"UPDATE host_result SET {_SETS}, late = {late} FROM (SELECT {_FIELDS} FROM json_each(:rows)) AS v "
            f"WHERE host_result.id = v.id AND {same}"
        ),
    }


_UNITS = (
    sa.select(unit.c.id, unit.c.state)
    .where(unit.c.id.in_(sa.bindparam("ids", expanding=True)), unit.c.incarnation == sa.bindparam("own"))
    .order_by(unit.c.id)
    .with_for_update()
)
_UPDATES, _LATE_UPDATES = _updates(_OPEN, 0), _updates(_LOST, 1)

log = logging.getLogger(__name__)


def store(database: Database, incarnation: str, rows: Sequence[HostRow]) -> int:
    """Write the rows (ascending by id) whose units are this incarnation's; returns how many were dropped, and logged.

    Where the incarnation was taken for dead meanwhile, a row takes the place of `lost` and is marked late. A row that
    the database refuses for its content is stored without its output, and dropped when even that is refused: its host
    is lost at its unit's end. Raises DatabaseRetry.
    """
    try:
        return database.write(lambda connection: _store(connection, incarnation, rows))
    except DatabaseRetry:
        raise
    except DatabaseError as exc:
        if len(rows) > 1:
            return sum(store(database, incarnation, [row]) for row in rows)
        (row,) = rows
        log.error(
            "a result is refused, its output is left out", extra={"unit": row.unit_id, "row": row.id, "error": str(exc)}
        )
        return _store_emptied(database, incarnation, unstorable(row, str(exc)))


def _store_emptied(database: Database, incarnation: str, row: HostRow) -> int:
    try:
        return database.write(lambda connection: _store(connection, incarnation, [row]))
    except DatabaseRetry:
        raise
    except DatabaseError as exc:
        log.error(
            "a result is refused even without its output", extra={"unit": row.unit_id, "row": row.id, "error": str(exc)}
        )
        return 1


def _store(connection: sa.Connection, incarnation: str, rows: Sequence[HostRow]) -> int:
    states = _states(connection, incarnation, {row.unit_id for row in rows})
    in_time = [row for row in rows if states.get(row.unit_id) == UnitState.RUNNING]
    late = [row for row in rows if states.get(row.unit_id) == UnitState.FINISHED and row.status in FINAL_STATUSES]
    if in_time and _update(connection, _UPDATES, in_time) != len(in_time):
        _explain(connection, in_time)
    if late and (replaced := _update(connection, _LATE_UPDATES, late)):
        log.warning("results came late", extra={"rows": replaced})
        for unit_id in sorted({row.unit_id for row in late}):
            units.recount(connection, unit_id)
    dropped = sum(row.unit_id not in states for row in rows)
    if dropped:
        log.error("results of units that are held no more are dropped", extra={"rows": dropped})
    return dropped


def _update(connection: sa.Connection, updates: dict[str, sa.TextClause], rows: Sequence[HostRow]) -> int:
    values = json.dumps([vars(row) for row in rows], separators=(",", ":"))
    return connection.execute(updates[connection.dialect.name], {"rows": values}).rowcount


def _states(connection: sa.Connection, incarnation: str, unit_ids: set[int]) -> dict[int, str]:
    """Of the units that are ours; their rows stay locked, so that nobody else settles them meanwhile."""
    found = connection.execute(_UNITS, {"ids": sorted(unit_ids), "own": incarnation})
    return {row.id: row.state for row in found}


def _explain(connection: sa.Connection, rows: Sequence[HostRow]) -> None:
    """Fewer rows were written than given: those that already show what was to be written are no loss.

    That is the normal end of a batch that was committed though its answer was lost.
    """
    found = connection.execute(
        sa.select(host_result.c.id, host_result.c.status, host_result.c.attempt)
        .where(host_result.c.id.in_([row.id for row in rows]))
    )  # fmt: skip
    stored = {row.id: row for row in found}
    for row in rows:
        there = stored.get(row.id)
        same_attempt = there is not None and there.attempt == row.attempt
        if there is not None and same_attempt and (there.status == row.status or row.status not in FINAL_STATUSES):
            continue
        log.error(
            "a result was not stored: the row has another one, or is of another attempt",
            extra={"row": row.id, "unit": row.unit_id, "status": row.status, "found": there.status if there else None},
        )
