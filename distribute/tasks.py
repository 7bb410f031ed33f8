"""/tasks/: what was submitted, how far it is, and its hosts."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from contract.database import now
from contract.states import OPEN_STATUSES
from distribute import access, answers, audit, context, cursors, holding, results, submissions
from distribute.answers import Item, moment
from distribute.cursors import SinceAndKey
from distribute.errors import NotFound
from distribute.inputs import Resource
from distribute.schemas import (
    TASK_ID,
    HostQuery,
    NoFields,
    Rerun,
    RerunAnswer,
    TaskAnswer,
    TaskHostPage,
    TaskPage,
    TaskQuery,
)
from distribute.store import cancelling, queries
from distribute.store.cancelling import NOT_BEGUN
from distribute.store.queries import Row
from distribute.store.submission import submit
from distribute.tokens import Role

tasks = Resource("tasks", __name__)


@tasks.get("/")
@tasks.input(TaskQuery, location="query", arg_name="query")
@tasks.output(TaskPage)
@tasks.doc(responses=[400, 503])
@access.needs(Role.READ)
def list_tasks(query: TaskQuery) -> dict[str, Any]:
    """Tasks, newest first"""
    return results.paged(
        f"tasks {query.state} {query.type}",
        query,
        lambda connection, before, limit: queries.tasks(
            connection, state=query.state, type_=query.type, before_key=before, limit=limit
        ),
        lambda row: int(row.key),
        lambda row: {**_task(row), "playbook_name": row.playbook_name, "rerun_of": row.rerun_of},
    )


@tasks.get("/<task_id>/")
@tasks.output(TaskAnswer)
@tasks.doc(responses=[404, 503])
@access.needs(Role.READ)
def read_task(task_id: str) -> dict[str, Any]:
    """How far a task is, how fast, how long still"""
    return context.current().database.read(lambda connection: _progress(connection, task_id))


@tasks.post("/<task_id>/cancel/")
@tasks.input(NoFields, arg_name="_body")
@tasks.output(TaskAnswer)
@tasks.doc(responses=[400, 404, 413, 415, 503])
@access.needs(Role.SUBMIT, "cancel")
def cancel(task_id: str, _body: NoFields) -> dict[str, Any]:
    """Stop a task

    What waits ends at once, what runs within seconds; hosts that have a result keep it. For a task that has ended, or
    was cancelled before, nothing changes.
    """

    def end(connection: sa.Connection) -> tuple[dict[str, Any], str]:
        task = _find(connection, task_id)
        access.require_owner(task.submitted_by)
        _require_all_hosts(connection, task)
        has_changed = cancelling.cancel(connection, task.key)
        return _progress(connection, task_id), audit.outcome(has_changed)

    return audit.change(task_id, end)


@tasks.post("/<task_id>/rerun/")
@tasks.input(Rerun, arg_name="request")
@tasks.output(RerunAnswer)
@tasks.doc(responses=[400, 404, 409, 413, 415, 503])
@access.needs(Role.SUBMIT, "rerun")
def rerun(task_id: str, request: Rerun) -> dict[str, Any]:
    """Run an ended task again on the hosts that had no good result

    Answered like a submission: task_id is the new task's. Twice with the same task_id runs once.
    """

    def store(connection: sa.Connection) -> tuple[Row, str]:
        before = _find(connection, task_id)
        access.require_owner(before.submitted_by)
        stored = submit(connection, submissions.rerun(connection, before, request))
        return stored.row, f"{submissions.outcome(stored)}: the new task is {stored.row.id}"

    return submissions.summary(audit.change(task_id, store), duplicates=0)


def _progress(connection: sa.Connection, task_id: str) -> dict[str, Any]:
    task = _find(connection, task_id)
    counts, units = queries.progress(connection, task.key)
    waits = any(units[state] for state in NOT_BEGUN)
    finished = task.host_count - sum(counts[status] for status in OPEN_STATUSES)
    return answers.envelope(
        {
            **_task(task),
            "counts": counts,
            "units_by_state": units,
            "finished": finished,
            "percent": 100 * finished // task.host_count,
            **_speed(task, finished),
            "projects": {name: version.partition("+")[0] for name, version in (task.projects or {}).items()},
            "warnings": task.warnings,
            "waits_for": holding.sentence(connection, bool(task.needs_files)) if waits else None,
            "rerun_of": task.rerun_of,
            "cancelled_date": moment(task.cancelled_at),
        }
    )


@tasks.get("/<task_id>/hosts/")
@tasks.input(HostQuery, location="query", arg_name="query")
@tasks.output(TaskHostPage)
@tasks.doc(responses=[400, 404, 503])
@access.needs(Role.READ)
def list_hosts(task_id: str, query: HostQuery) -> dict[str, Any]:
    """The hosts of a task, in pages

    status=running shows what it is stuck on: those that have changed least recently come first.
    """
    name = f"hosts of {task_id} {query.status}"
    start, patterns = cursors.decode(query.cursor, name, cursors.SINCE_AND_KEY), access.client().hosts

    def read(connection: sa.Connection) -> tuple[Row, list[Row]]:
        task = _find(connection, task_id)
        found = queries.hosts_of_task(
            connection,
            task.key,
            status=query.status,
            patterns=patterns,
            after=start,
            limit=query.limit + 1,
        )
        return task, list(found)

    task, rows = context.current().database.read(read)
    page, following = results.cut(rows, query.limit, _since_and_key)
    items = [results.task_host_item(row, task) for row in page]
    return answers.page(items, cursors.encode(following, name))


def _since_and_key(row: Row) -> SinceAndKey:
    return row.since, row.id


def _find(connection: sa.Connection, task_id: str) -> Row:
    task = queries.find_task(connection, task_id) if TASK_ID.fullmatch(task_id) else None
    if task is None:
        raise NotFound(f"There is no task {task_id[:160]}.")
    return task


def _require_all_hosts(connection: sa.Connection, task: Row) -> None:
    """Raises Forbidden when the task has hosts that the client may not use."""
    if queries.has_other_hosts(connection, task.key, access.client().hosts):
        raise access.beyond_hosts(task.id)


def _task(row: Row) -> Item:
    return {
        "task_id": row.id,
        "task_name": row.name,
        "type": row.type,
        "submitted_by": row.submitted_by,
        "module": row.module,
        "state": row.state,
        "hosts": row.host_count,
        "units": row.unit_count,
        "timeout": row.timeout_seconds,
        "created_date": moment(row.created_at),
        "started_date": moment(row.started_at),
        "finished_date": moment(row.finished_at),
    }


def _speed(task: Row, finished: int) -> dict[str, float | None]:
    """Since the first unit began. Clocks of several machines meet here: it informs, and decides nothing."""
    if task.started_at is None:
        return {"hosts_per_second": 0.0, "seconds_left": None}
    seconds = max(((task.finished_at or now()) - task.started_at).total_seconds(), 0.001)
    rate, left = finished / seconds, task.host_count - finished
    if not left:
        return {"hosts_per_second": round(rate, 3), "seconds_left": 0.0}
    return {"hosts_per_second": round(rate, 3), "seconds_left": round(left / rate, 1) if finished else None}
