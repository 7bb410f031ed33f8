"""A batch of host results as one statement. Seen: 70 us a row on MariaDB, with NULLs and any text."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, fields

import sqlalchemy as sa

from contract.database import Database
from contract.errors import DatabaseError, DatabaseRetry
from contract.states import FINAL_STATUSES, OPEN_STATUSES, UnitState
from contract.tables import host_result, unit
from execute_engine.unit import HostRow, unstorable

_KEYS = ("id", "unit_id", "attempt")
_VALUES = tuple(name.name for name in fields(HostRow) if name.name not in _KEYS)
_SETS = ", ".join(f"{name} = v.{name}" for name in _VALUES)
_OPEN = f"host_result.status IN ({', '.join(repr(str(status)) for status in OPEN_STATUSES)})"
_SAME = f"host_result.attempt = v.attempt AND {_OPEN}"

# A column of JSON_TABLE takes NULL for a text that does not fit: none of these is narrower than the table's own.
_TYPES = {"rc": "INT", "changed": "INT", "tasks_ok": "INT", "tasks_total": "INT"}
_TYPES |= dict.fromkeys(("since", "started_at", "finished_at"), "DATETIME(6)")
_TYPES |= dict.fromkeys(("status", "stage", "stopped_on_host"), "VARCHAR(16)")
_TYPES |= dict.fromkeys(("stuck_task", "engine"), "VARCHAR(255)")
_COLUMNS = ", ".join(f"{name} {_TYPES.get(name, 'MEDIUMTEXT')} PATH '$.{name}'" for name in _VALUES)
_FIELDS = ", ".join(f"json_extract(value, '$.{name}') AS {name}" for name in ("id", "attempt", *_VALUES))

_UPDATES = {
    "mysql": sa.text(
        f"UPDATE host_result JOIN JSON_TABLE(:rows, '$[*]' COLUMNS "
        f"(id BIGINT PATH '$.id', attempt INT PATH '$.attempt', {_COLUMNS})) AS v ON host_result.id = v.id "
        f"SET {', '.join(f'host_result.{name} = v.{name}' for name in _VALUES)} WHERE {_SAME}"
    ),
    "sqlite": sa.text(
        f"UPDATE host_result SET {_SETS} FROM (SELECT {_FIELDS} FROM json_each(:rows)) AS v "
        f"WHERE host_result.id = v.id AND {_SAME}"
    ),
}

log = logging.getLogger(__name__)


def store(database: Database, incarnation: str, rows: Sequence[HostRow]) -> None:
    """Write the rows (ascending by id) whose units this incarnation holds; the others are dropped and logged.

    A row that the database refuses for its content is stored without its output. Raises DatabaseRetry, and
    DatabaseError when even that is refused.
    """
    try:
        database.write(lambda connection: _update(connection, incarnation, rows))
    except DatabaseRetry:
        raise
    except DatabaseError as exc:
        if len(rows) > 1:
            for row in rows:
                store(database, incarnation, [row])
            return
        log.error("a result is refused, its output is left out", extra={"row": rows[0].id, "error": str(exc)})
        emptied = unstorable(rows[0], str(exc))
        database.write(lambda connection: _update(connection, incarnation, [emptied]))


def _update(connection: sa.Connection, incarnation: str, rows: Sequence[HostRow]) -> None:
    held = _held(connection, incarnation, {row.unit_id for row in rows})
    kept = [row for row in rows if row.unit_id in held]
    if len(kept) < len(rows):
        log.error("results of units that are held no more are dropped", extra={"rows": len(rows) - len(kept)})
    if not kept:
        return
    values = json.dumps([asdict(row) for row in kept], separators=(",", ":"))
    written = connection.execute(_UPDATES[connection.dialect.name], {"rows": values}).rowcount
    if written != len(kept):
        _explain(connection, kept)


def _held(connection: sa.Connection, incarnation: str, unit_ids: set[int]) -> set[int]:
    """Those of the units that we hold; their rows stay locked, so that nobody else settles them meanwhile."""
    found = connection.execute(
        sa.select(unit.c.id)
        .where(unit.c.id.in_(sorted(unit_ids)), unit.c.state == UnitState.RUNNING, unit.c.incarnation == incarnation)
        .order_by(unit.c.id)
        .with_for_update()
    )
    return set(found.scalars())


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
