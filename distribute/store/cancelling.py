"""The SQL of a cancel: what waits ends at once, what runs is asked to stop; the engines do the rest."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from contract import units
from contract.database import now
from contract.states import OPEN_STATUSES, HostStatus, TaskState, UnitState
from contract.tables import host_result, task, unit

NOT_BEGUN = (UnitState.WAITING, UnitState.PUBLISHED)
OPEN_TASKS = (TaskState.QUEUED, TaskState.RUNNING)
REASON = "The task was cancelled before this host was begun."


def cancel(connection: sa.Connection, task_key: int) -> bool:
    """Ask for the end of an open task. False for one that has ended, or was cancelled before: nothing has changed."""
    asked = connection.execute(
        sa.update(task)
        .where(task.c.key == task_key, task.c.state.in_(OPEN_TASKS), task.c.cancelled_at.is_(None))
        .values(cancelled_at=now())
    )
    if asked.rowcount == 0:
        return False
    end_waiting(connection, task_key)
    running = sa.update(unit).where(unit.c.task_key == task_key, unit.c.state == UnitState.RUNNING)
    connection.execute(running.values(stop_requested=True))
    return True


def end_waiting(connection: sa.Connection, task_key: int) -> int:
    """Units of a cancelled task that were not begun -> cancelled, with their hosts; returns how many.

    Units before hosts, in ascending order, as everywhere: an engine that claims one meanwhile waits, and loses.
    """
    ours: tuple[Any, ...] = (unit.c.task_key == task_key, unit.c.state.in_(NOT_BEGUN))
    ended = list(connection.scalars(sa.select(unit.c.id).where(*ours).order_by(unit.c.id).with_for_update()))
    if ended:
        connection.execute(
            sa.update(unit)
            .where(unit.c.id.in_(ended), unit.c.state.in_(NOT_BEGUN))
            .values(state=UnitState.CANCELLED, finished_at=now(), cancelled=unit.c.host_count)
        )
        connection.execute(
            sa.update(host_result)
            .where(host_result.c.task_key == task_key, host_result.c.status.in_(OPEN_STATUSES))
            .where(
                host_result.c.unit_id.in_(
                    sa.select(unit.c.id).where(unit.c.task_key == task_key, unit.c.state == UnitState.CANCELLED)
                )
            )
            .values(status=HostStatus.CANCELLED, msg=REASON, blame=REASON, finished_at=now())
        )
        given_back = sa.select(unit.c.id).where(unit.c.id.in_(ended), unit.c.attempt > 1)
        for unit_id in connection.scalars(given_back).all():  # some of its hosts have results
            units.recount(connection, unit_id)
    return len(ended)
