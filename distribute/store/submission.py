"""Writing a task with its units and hosts: once, however often and from however many sides it is asked for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from contract.database import now
from contract.states import HostStatus, TaskState, UnitState
from contract.tables import task, unit
from distribute.errors import Conflict
from distribute.store.queries import find_task

_HOSTS_A_STATEMENT = 10_000  # at most 2.6 MB of JSON, well under a server's max_allowed_packet

_INSERT_HOSTS = "INSERT INTO host_result (task_key, unit_id, host, status) SELECT unit.task_key, unit.id, "
_FROM_JSON_SQLITE = sa.text(
    _INSERT_HOSTS + "entry.value, :status FROM json_each(:hosts) AS entry"
    " JOIN unit ON unit.task_key = :task_key AND unit.number = (:start + entry.key) / :unit_hosts + 1"
    " ORDER BY entry.key"
)
_FROM_JSON_MYSQL = sa.text(
    _INSERT_HOSTS + "entry.host, :status FROM JSON_TABLE(:hosts, '$[*]' COLUMNS"
    " (position FOR ORDINALITY, host VARCHAR(253) PATH '$')) AS entry"
    " JOIN unit ON unit.task_key = :task_key AND unit.number = (:start + entry.position - 1) DIV :unit_hosts + 1"
    " ORDER BY entry.position"
)


@dataclass(frozen=True)
class NewTask:
    """A valid submission; hosts are unique and in their stored spelling, the rest are columns of task."""

    id: str
    name: str
    type: str
    timeout_seconds: int
    options: dict[str, Any]
    warnings: list[str]
    request_hash: str
    hosts: tuple[str, ...]
    unit_hosts: int
    submitted_by: str
    module: str | None = None
    args: str | None = None
    playbook_name: str | None = None
    playbook_content: str | None = None
    rerun_of: str | None = None
    projects: dict[str, str] | None = None
    needs_files: bool = False

    @property
    def unit_count(self) -> int:
        return -(-len(self.hosts) // self.unit_hosts)


@dataclass(frozen=True)
class Stored:
    """The task's row, and whether it was written now: else the same request was there already."""

    row: sa.Row[Any]
    is_new: bool


def submit(connection: sa.Connection, new: NewTask) -> Stored:
    """Write it all, or nothing when the task is there already.

    Raises Conflict when the id belongs to another request, or to anybody else's. Of several writers at once the unique
    id lets one win; the others wait for its end and find its task.
    """
    before = find_task(connection, new.id)
    stored = _insert(connection, new) if before is None else Stored(before, is_new=False)
    if stored.row.submitted_by != new.submitted_by:  # what it is, or that it is the same, is nobody else's business
        raise Conflict(f"The task_id {new.id} is taken; nothing was done. Choose another task_id.")
    if stored.row.request_hash != new.request_hash:
        raise Conflict(f"The task_id {new.id} belongs to another request; nothing was done. Choose another task_id.")
    return stored


def _insert(connection: sa.Connection, new: NewTask) -> Stored:
    """Its own row, or that of a writer who was faster."""
    try:
        task_key = _insert_task(connection, new)
    except IntegrityError:
        if (other := find_task(connection, new.id)) is None:
            raise
        return Stored(other, is_new=False)
    _insert_units(connection, task_key, new)
    _insert_hosts(connection, task_key, new)
    stored = find_task(connection, new.id)
    assert stored is not None
    return Stored(stored, is_new=True)


def _insert_task(connection: sa.Connection, new: NewTask) -> int:
    inserted = connection.execute(
        sa.insert(task).values(
            id=new.id,
            name=new.name,
            type=new.type,
            module=new.module,
            args=new.args,
            playbook_name=new.playbook_name,
            playbook_content=new.playbook_content,
            rerun_of=new.rerun_of,
            projects=new.projects or None,
            needs_files=new.needs_files and bool(new.projects),
            timeout_seconds=new.timeout_seconds,
            options=new.options,
            warnings=new.warnings,
            request_hash=new.request_hash,
            submitted_by=new.submitted_by,
            state=TaskState.QUEUED,
            host_count=len(new.hosts),
            unit_count=new.unit_count,
            created_at=now(),
        )
    )
    assert inserted.inserted_primary_key is not None
    task_key: int = inserted.inserted_primary_key[0]
    return task_key


def _insert_units(connection: sa.Connection, task_key: int, new: NewTask) -> None:
    sizes = [len(new.hosts[start : start + new.unit_hosts]) for start in range(0, len(new.hosts), new.unit_hosts)]
    connection.execute(
        sa.insert(unit),
        [
            {"task_key": task_key, "number": number, "state": UnitState.WAITING, "host_count": size}
            for number, size in enumerate(sizes, 1)
        ],
    )


def _insert_hosts(connection: sa.Connection, task_key: int, new: NewTask) -> None:
    """A row a host, made by the server from a JSON list: half the time of sending it row by row."""
    statement = _FROM_JSON_SQLITE if connection.dialect.name == "sqlite" else _FROM_JSON_MYSQL
    for start in range(0, len(new.hosts), _HOSTS_A_STATEMENT):
        parameters = {
            "hosts": json.dumps(new.hosts[start : start + _HOSTS_A_STATEMENT]),
            "start": start,
            "task_key": task_key,
            "unit_hosts": new.unit_hosts,
            "status": HostStatus.QUEUED.value,
        }
        connection.execute(statement, parameters)
