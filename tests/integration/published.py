"""Tasks as they stand in the database when the dispatcher has published their units."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from contract.database import Database, now
from contract.states import HostStatus, TaskState, UnitState
from contract.tables import host_result, task, unit

OPTIONS = {
    "become": None,
    "check": False,
    "template": False,
    "parallel": 0,
    "unit_hosts": 30,
    "args_are_json": False,
    "strategies": [],
}


def publish(database: Database, hosts: Sequence[int], args: str = "ok", **values: Any) -> list[int]:
    """Insert one task with a unit for each number of hosts; returns the units' ids. values are columns of task."""
    return database.write(lambda connection: _publish(connection, hosts, {"args": args, **values}))


def _publish(connection: sa.Connection, hosts: Sequence[int], values: dict[str, Any]) -> list[int]:
    defaults = {
        "id": f"t-{secrets.token_hex(6)}",
        "name": "test",
        "type": "adhoc",
        "module": "shell",
        "timeout_seconds": 60,
        "options": OPTIONS,
        "warnings": [],
        "request_hash": "",
        "state": TaskState.QUEUED,
        "host_count": sum(hosts),
        "unit_count": len(hosts),
        "created_at": now(),
    }
    key = connection.execute(sa.insert(task).values({**defaults, **values})).inserted_primary_key[0]
    return [_publish_unit(connection, key, number, count) for number, count in enumerate(hosts, 1)]


def _publish_unit(connection: sa.Connection, task_key: int, number: int, hosts: int) -> int:
    row = {
        "task_key": task_key,
        "number": number,
        "state": UnitState.PUBLISHED,
        "host_count": hosts,
        "published_at": now(),
    }
    unit_id: int = connection.execute(sa.insert(unit).values(row)).inserted_primary_key[0]
    results = [
        {"task_key": task_key, "unit_id": unit_id, "host": f"10.{number}.0.{host}", "status": HostStatus.QUEUED}
        for host in range(1, hosts + 1)
    ]
    connection.execute(sa.insert(host_result), results)
    return unit_id


def unit_row(database: Database, unit_id: int) -> sa.Row[Any]:
    return database.read(lambda connection: connection.execute(sa.select(unit).where(unit.c.id == unit_id)).one())


def host_rows(database: Database, unit_id: int) -> list[sa.Row[Any]]:
    query = sa.select(host_result).where(host_result.c.unit_id == unit_id).order_by(host_result.c.id)
    return database.read(lambda connection: list(connection.execute(query)))
