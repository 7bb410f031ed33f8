"""What the web reads. Every statement finds its rows by an index; a test asks the databases to explain them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from contract.states import ENDED_UNITS, FINAL_STATUSES, EngineState, HostStatus, UnitState
from contract.tables import dispatch_hold, engine, host_result, task, unit
from distribute import patterns as host_patterns
from distribute.store.cancelling import OPEN_TASKS

Row = sa.Row[Any]

_PATTERNS = 50  # in one regular expression: MariaDB takes 64 KB of a compiled one, SQLite 1000 with OR between them
_TASK_COLUMNS = [column for column in task.c if column.name != "playbook_content"]  # up to a megabyte
# From a list of hosts in JSON: the id of the newest result of each, for one type of task.
_NEWEST_IDS = (
    "SELECT (SELECT host_result.id FROM host_result JOIN task ON task.`key` = host_result.task_key"
    " WHERE host_result.host = {host} AND task.type = :type ORDER BY host_result.id DESC LIMIT 1) AS id FROM {hosts}"
)
_NEWEST_IDS_SQLITE = sa.text(_NEWEST_IDS.format(host="entry.value", hosts="json_each(:hosts) AS entry"))
_NEWEST_IDS_MYSQL = sa.text(
    _NEWEST_IDS.format(
        host="CONVERT(entry.host USING ascii) COLLATE ascii_bin",
        hosts="JSON_TABLE(:hosts, '$[*]' COLUMNS (host VARCHAR(253) PATH '$')) AS entry",
    )
)


def find_task(connection: sa.Connection, task_id: str) -> Row | None:
    """The task without its playbook."""
    return connection.execute(sa.select(*_TASK_COLUMNS).where(task.c.id == task_id)).first()


def tasks_of(connection: sa.Connection, results: Sequence[Row]) -> dict[int, Row]:
    """The tasks of these host results, by their key, without their playbooks."""
    keys = {result.task_key for result in results}
    return {row.key: row for row in connection.execute(sa.select(*_TASK_COLUMNS).where(task.c.key.in_(keys)))}


def tasks(
    connection: sa.Connection, *, state: str | None, type_: str | None, before_key: int | None, limit: int
) -> Sequence[Row]:
    """Newest first; before_key is the last one of the page before."""
    statement = sa.select(*_TASK_COLUMNS).order_by(task.c.key.desc()).limit(limit)
    if state is not None:
        statement = statement.where(task.c.state == state)
    if type_ is not None:
        statement = statement.where(task.c.type == type_)
    if before_key is not None:
        statement = statement.where(task.c.key < before_key)
    return connection.execute(statement).all()


def results_of_task(
    connection: sa.Connection, task_key: int, *, patterns: Sequence[str], after_id: int, limit: int
) -> Sequence[Row]:
    """In the order of the submission, of the hosts that fit one of the patterns; without patterns of all."""
    return connection.execute(
        sa.select(host_result)
        .where(host_result.c.task_key == task_key, host_result.c.id > after_id, _fits(patterns))
        .order_by(host_result.c.id)
        .limit(limit)
    ).all()


def results_of_host(
    connection: sa.Connection, host: str, type_: str, *, before_id: int | None, limit: int
) -> Sequence[Row]:
    """Of tasks of one type, newest first."""
    statement = (
        sa.select(host_result)
        .join(task, task.c.key == host_result.c.task_key)
        .where(host_result.c.host == host, task.c.type == type_)
    )
    if before_id is not None:
        statement = statement.where(host_result.c.id < before_id)
    return connection.execute(statement.order_by(host_result.c.id.desc()).limit(limit)).all()


def newest_results(connection: sa.Connection, hosts: Sequence[str], type_: str) -> Sequence[Row]:
    """The newest result of each host, of tasks of one type, in the order of hosts; hosts without one are left out."""
    statement = _NEWEST_IDS_SQLITE if connection.dialect.name == "sqlite" else _NEWEST_IDS_MYSQL
    found = connection.scalars(statement, {"hosts": json.dumps(hosts), "type": type_})
    rows = connection.execute(
        sa.select(host_result).where(host_result.c.id.in_([id_ for id_ in found if id_ is not None]))
    )
    by_host = {row.host: row for row in rows}
    return [by_host[host] for host in hosts if host in by_host]


def hosts_of_task(
    connection: sa.Connection,
    task_key: int,
    *,
    status: str | None,
    patterns: Sequence[str],
    after: tuple[datetime | None, int] | None,
    limit: int,
) -> Sequence[Row]:
    """In the order of the submission, or those of one status, the longest unchanged first (unknown before all).

    after is since and id of the last row of the page before.
    """
    statement = (
        sa.select(host_result, unit.c.number.label("unit_number"))
        .join(unit, unit.c.id == host_result.c.unit_id)
        .where(host_result.c.task_key == task_key, _fits(patterns))
        .limit(limit)
    )
    if status is None:
        after_id = 0 if after is None else after[1]
        statement = statement.where(host_result.c.id > after_id).order_by(host_result.c.id)
    else:
        statement = statement.where(host_result.c.status == status).order_by(host_result.c.since, host_result.c.id)
        if after is not None:
            statement = statement.where(_later(*after))
    return connection.execute(statement).all()


def has_other_hosts(connection: sa.Connection, task_key: int, patterns: Sequence[str]) -> bool:
    """Whether the task has hosts that fit none of the patterns."""
    other = sa.select(host_result.c.id).where(host_result.c.task_key == task_key, ~_fits(patterns)).limit(1)
    return bool(patterns) and connection.execute(other).first() is not None


def _fits(patterns: Sequence[str]) -> sa.ColumnElement[bool]:
    """One of the patterns, as distribute.patterns.fits says of a host; true without patterns."""
    parts = [tuple(patterns[first : first + _PATTERNS]) for first in range(0, len(patterns), _PATTERNS)]
    fitting = (host_result.c.host.regexp_match(host_patterns.expression(part).pattern) for part in parts)
    return sa.or_(*fitting) if parts else sa.true()


def _later(since: datetime | None, id_: int) -> sa.ColumnElement[bool]:
    """Rows behind this one in the order of since and id, where NULL comes first on both databases."""
    same = sa.and_(host_result.c.since.is_not_distinct_from(since), host_result.c.id > id_)
    return sa.or_(same, host_result.c.since.is_not(None) if since is None else host_result.c.since > since)


def progress(connection: sa.Connection, task_key: int) -> tuple[dict[str, int], dict[str, int]]:
    """Hosts by status and units by state of a task, both with every name."""
    return _progress(connection, unit.c.task_key == task_key)


def open_progress(connection: sa.Connection) -> tuple[dict[str, int], dict[str, int]]:
    """The same of all tasks that have not ended, together."""
    return _progress(connection, unit.c.task_key.in_(sa.select(task.c.key).where(task.c.state.in_(OPEN_TASKS))))


def _progress(connection: sa.Connection, of: sa.ColumnElement[bool]) -> tuple[dict[str, int], dict[str, int]]:
    """One statement, so that the sums fit.

    Ended units have counted their hosts, those of units that were never begun are all queued; only the hosts of units
    that run, or were given back, are counted here.
    """
    ended = unit.c.state.in_(ENDED_UNITS)
    sums = [sa.func.sum(sa.case((ended, unit.c[status]), else_=0)).label(status) for status in FINAL_STATUSES]
    # Of a unit that runs, or was given back, some hosts have a result already: its rows are counted.
    rows_count = sa.or_(unit.c.state == UnitState.RUNNING, sa.and_(~ended, unit.c.attempt > 1))
    queued = sa.func.sum(sa.case((sa.or_(ended, rows_count), 0), else_=unit.c.host_count))
    by_state = (
        sa.select(unit.c.state.label("name"), sa.func.count().label("number"), queued.label("queued"), *sums)
        .where(of)
        .group_by(unit.c.state)
    )
    live = (
        sa.select(host_result.c.status, sa.func.count(), sa.null(), *(sa.null() for _ in FINAL_STATUSES))
        .select_from(unit)
        .join(host_result, host_result.c.unit_id == unit.c.id)
        .where(of, rows_count)
        .group_by(host_result.c.status)
    )
    counts = dict.fromkeys(map(str, HostStatus), 0)
    units = dict.fromkeys(map(str, UnitState), 0)
    for row in connection.execute(sa.union_all(by_state, live)):
        if row.queued is None:
            counts[row.name] += row.number
        else:
            units[row.name] = row.number
            counts[HostStatus.QUEUED] += int(row.queued)
            for status in FINAL_STATUSES:
                counts[status] += int(getattr(row, status))
    return counts, units


def hold(connection: sa.Connection) -> Row | None:
    """The row that holds all dispatching, if there is one."""
    return connection.execute(sa.select(dispatch_hold)).first()


def sees_files(connection: sa.Connection) -> bool:
    """Whether a live engine has said that the share of project files answers."""
    seeing = sa.select(engine.c.incarnation).where(engine.c.state == EngineState.LIVE, engine.c.sees_files)
    return connection.execute(seeing.limit(1)).first() is not None


def hosts_with_status(connection: sa.Connection, task_key: int, statuses: Sequence[str]) -> tuple[str, ...]:
    """In the order of the submission."""
    rows = sa.select(host_result.c.host).where(host_result.c.task_key == task_key, host_result.c.status.in_(statuses))
    return tuple(connection.scalars(rows.order_by(host_result.c.id)))


def playbook_content(connection: sa.Connection, task_key: int) -> str | None:
    return connection.scalar(sa.select(task.c.playbook_content).where(task.c.key == task_key))


def engines(connection: sa.Connection) -> list[Row]:
    """The newest incarnation of each engine, by its id."""
    rows = connection.execute(sa.select(engine).order_by(engine.c.incarnation)).all()
    newest = {row.id: row for row in sorted(rows, key=lambda row: row.started_at)}
    return [newest[id_] for id_ in sorted(newest)]
