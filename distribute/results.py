"""Host results as answers: which rows a query means, in pages, and what an item shows of its row."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa
from flask import Response

from contract.database import Database
from contract.states import OPEN_STATUSES, HostStatus
from distribute import access, answers, context, cursors
from distribute.access import Client
from distribute.answers import Item, moment
from distribute.errors import NotFound
from distribute.schemas import AuditQuery, ResultQuery, TaskQuery
from distribute.store import queries
from distribute.store.queries import Row

_STREAMED_ROWS = 300  # read, held and sent at once when all items are wanted
_KINDS = {"adhoc": "ad hoc task", "playbook": "playbook task"}

P = TypeVar("P")
Rows = tuple[list[Row], P | None]
Pager = Callable[[sa.Connection, int | None, int], Rows[int]]  # rows from a position, and where the next ones begin
MakeItem = Callable[[Row, Row], Item]  # from a host result and its task


def answer(query: ResultQuery, type_: str, make_item: MakeItem) -> Response | dict[str, Any]:
    """GET /adhoc/, GET /playbook/ and their POST .../query/. Raises NotFound, BadRequest and DatabaseError."""
    database = context.current().database
    pager, name = _pager(database, query, type_, access.client())
    start = cursors.decode(query.cursor, name, cursors.KEY)
    if query.limit is None:
        return answers.streamed(_pages(database, pager, make_item, start))
    items, following = _read(database, pager, make_item, start, query.limit)
    return answers.page(items, cursors.encode(following, name))


def adhoc_item(row: Row, task: Row) -> Item:
    detail = row.detail or {}
    return {
        **_item(row, task),
        "task_name": task.name,
        "module": task.module,
        "args": _args(task),
        "stdout": row.stdout,
        "stderr": row.stderr,
        "msg": row.msg,
        "rc": row.rc,
        "cmd": detail.get("cmd"),
        "dest": detail.get("dest"),
        "changed": row.changed,
        "created_date": moment(task.created_at),
        "finished_date": moment(row.finished_at),
        "blame": row.blame,
    }


def _args(task: Row) -> Any:
    if task.options.get("secret_args"):  # absent from tasks of former releases
        return None
    return json.loads(task.args) if task.options["args_are_json"] else task.args


def playbook_item(row: Row, task: Row) -> Item:
    return {
        **_item(row, task),
        "success_rate": _success_rate(row),
        "datetime": moment(row.finished_at or row.started_at or task.created_at),
        "tasks_ok": row.tasks_ok,
        "tasks_total": row.tasks_total,
        "stuck_task": row.stuck_task,
        "blame": row.blame,
    }


def task_host_item(row: Row, task: Row) -> Item:
    """row is one of queries.hosts_of_task."""
    return {
        **adhoc_item(row, task),
        "unit": row.unit_number,
        "attempt": row.attempt,
        "engine": row.engine,
        "stage": row.stage,
        "since": moment(row.since),
        "stuck_task": row.stuck_task,
        "tasks_ok": row.tasks_ok,
        "tasks_total": row.tasks_total,
        "stopped_on_host": row.stopped_on_host,
        "late": bool(row.late),
        "started_date": moment(row.started_at),
        "tasks": (row.detail or {}).get("tasks"),
    }


def _item(row: Row, task: Row) -> Item:
    result = None if row.status in OPEN_STATUSES else "success" if row.status == HostStatus.SUCCESS else "fail"
    return {"ip": row.host, "result": result, "status": row.status, "task_id": task.id}


def _success_rate(row: Row) -> str | None:
    if row.tasks_total:
        return f"{100 * (row.tasks_ok or 0) // row.tasks_total}%"
    if row.status in OPEN_STATUSES:
        return None
    return "100%" if row.status == HostStatus.SUCCESS else "0%"


def _pager(database: Database, query: ResultQuery, type_: str, client: Client) -> tuple[Pager, str]:
    """How to read the rows that the client may see, and the name of the query in its cursors."""
    if query.task_id is not None:
        return _task_pager(database, query.task_id, type_, client.hosts), f"{type_} task_id {query.task_id}"
    if query.ip is not None:
        pager = _host_pager(query.ip, type_) if client.may_use(query.ip) else _no_rows
        return pager, f"{type_} ip {query.ip}"
    assert query.ips is not None
    hosts = tuple(filter(client.may_use, query.ips.names))
    return _hosts_pager(hosts, type_), f"{type_} ips {','.join(query.ips.names)}"


def _no_rows(_connection: sa.Connection, _start: int | None, _limit: int) -> Rows[int]:
    return [], None


def _task_pager(database: Database, task_id: str, type_: str, patterns: tuple[str, ...]) -> Pager:
    task = database.read(lambda connection: queries.find_task(connection, task_id))
    if task is None or task.type != type_:
        raise NotFound(f"There is no {_KINDS[type_]} {task_id}.")

    def page(connection: sa.Connection, start: int | None, limit: int) -> Rows[int]:
        rows = queries.results_of_task(connection, task.key, patterns=patterns, after_id=start or 0, limit=limit + 1)
        return cut(rows, limit, lambda last: int(last.id))

    return page


def _host_pager(host: str, type_: str) -> Pager:
    def page(connection: sa.Connection, start: int | None, limit: int) -> Rows[int]:
        rows = queries.results_of_host(connection, host, type_, before_id=start, limit=limit + 1)
        return cut(rows, limit, lambda last: int(last.id))

    return page


def _hosts_pager(hosts: tuple[str, ...], type_: str) -> Pager:
    """A host without a result takes no place in a page: its part of the hosts is only shorter."""

    def page(connection: sa.Connection, start: int | None, limit: int) -> Rows[int]:
        first = start or 0
        rows = queries.newest_results(connection, hosts[first : first + limit], type_)
        return list(rows), first + limit if first + limit < len(hosts) else None

    return page


def paged(
    name: str,
    query: TaskQuery | AuditQuery,
    read: Callable[[sa.Connection, int | None, int], Sequence[Row]],
    key: Callable[[Row], int],
    make_item: Callable[[Row], Item],
) -> dict[str, Any]:
    """A page of a list whose rows have a key; read(connection, the key of the last row before, how many).

    name names the list with its filters. Raises BadRequest and DatabaseError.
    """
    before = cursors.decode(query.cursor, name, cursors.KEY)
    rows = context.current().database.read(lambda connection: read(connection, before, query.limit + 1))
    page, following = cut(rows, query.limit, key)
    return answers.page([make_item(row) for row in page], cursors.encode(following, name))


def cut(rows: Sequence[Row], limit: int, position: Callable[[Row], P]) -> Rows[P]:
    """Of limit + 1 rows, the page and where the next one begins."""
    return list(rows[:limit]), position(rows[limit - 1]) if len(rows) > limit else None


def _pages(database: Database, pager: Pager, make_item: MakeItem, start: int | None) -> Iterator[list[Item]]:
    items, following = _read(database, pager, make_item, start, _STREAMED_ROWS)
    yield items
    while following is not None:
        items, following = _read(database, pager, make_item, following, _STREAMED_ROWS)
        yield items


def _read(
    database: Database, pager: Pager, make_item: MakeItem, start: int | None, limit: int
) -> tuple[list[Item], int | None]:
    """One page in a transaction of its own, so that a slow client holds none."""

    def read(connection: sa.Connection) -> tuple[Rows[int], dict[int, Row]]:
        found = pager(connection, start, limit)
        return found, queries.tasks_of(connection, found[0])

    (rows, following), tasks = database.read(read)
    return [make_item(row, tasks[row.task_key]) for row in rows], following
