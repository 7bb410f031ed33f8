"""The SQL of retention: an expired task goes a batch at a time, its hosts first, then its units, itself last."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from contract.states import ENDED_TASKS
from contract.tables import host_result, task, unit

FIRST_TASKS = 200  # of each state; while all of them were finished too late, those behind them wait


@dataclass(frozen=True)
class ExpiredTask:
    key: int
    id: str
    host_count: int


def oldest_expired(connection: sa.Connection, before: datetime, now: datetime) -> ExpiredTask | None:
    """The first ended task that was finished before this moment."""
    for state in ENDED_TASKS:
        # finished_at is in no index: a condition on it alone would read every task that is kept. They stand nearly in
        # the order of their ends, so a few tell. What seems to end later than now had a wrong clock, and hides none.
        first = (
            sa.select(task.c.key, task.c.id, task.c.host_count, task.c.finished_at)
            .where(task.c.state == state, task.c.finished_at <= now)
            .order_by(task.c.key)
            .limit(FIRST_TASKS)
            .subquery()
        )
        row = connection.execute(sa.select(first).where(first.c.finished_at < before).order_by(first.c.key)).first()
        if row is not None:
            return ExpiredTask(row.key, row.id, row.host_count)
    return None


def delete_some(connection: sa.Connection, task_key: int, before: datetime, limit: int) -> bool:
    """Delete at most so many rows of a task if it is expired still; True when the task itself was the last of them.

    Hosts and units never go in one transaction: everywhere else a unit's row is locked before its hosts'.
    """
    still = sa.select(task.c.key).where(task.c.key == task_key, *_expired(before))
    if connection.execute(still.with_for_update()).first() is None:
        return False
    # By id, from a SELECT before: SQLite knows no DELETE with a limit, MySQL none with its own table below it.
    hosts = sa.select(host_result.c.id).where(host_result.c.task_key == task_key).order_by(host_result.c.id)
    if host_ids := list(connection.scalars(hosts.limit(limit))):
        connection.execute(sa.delete(host_result).where(host_result.c.id.in_(host_ids)))
        return False
    units = sa.select(unit.c.id).where(unit.c.task_key == task_key).order_by(unit.c.number)
    unit_ids = list(connection.scalars(units.limit(limit)))
    connection.execute(sa.delete(unit).where(unit.c.id.in_(unit_ids)))
    if len(unit_ids) == limit:
        return False  # there may be more
    gone = connection.execute(sa.delete(task).where(task.c.key == task_key, *_expired(before)))
    return gone.rowcount == 1


def _expired(before: datetime) -> tuple[sa.ColumnElement[bool], ...]:
    return task.c.state.in_(ENDED_TASKS), task.c.finished_at < before
