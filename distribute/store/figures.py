"""What /metrics tells. Only what has not ended is counted: its cost grows with the open tasks, not with the history."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from contract.states import UnitState
from contract.tables import task, unit
from distribute.store import dispatch, queries
from distribute.store.cancelling import OPEN_TASKS
from distribute.store.queries import Row


@dataclass(frozen=True)
class Figures:
    """tasks and units by state, hosts by status; ages in seconds, of the oldest unit by state."""

    tasks: dict[str, int]
    units: dict[str, int]
    hosts: dict[str, int]
    ages: dict[str, float]
    has_leader: bool
    beat: int
    engines: list[Row]


def figures(connection: sa.Connection, moment: datetime) -> Figures:
    counted = sa.select(task.c.state, sa.func.count()).where(task.c.state.in_(OPEN_TASKS)).group_by(task.c.state)
    tasks = dict.fromkeys(map(str, OPEN_TASKS), 0) | {row[0]: row[1] for row in connection.execute(counted)}
    hosts, units = queries.open_progress(connection)
    since = {UnitState.WAITING: _waiting_since(connection), UnitState.PUBLISHED: _published_since(connection)}
    ages = {str(state): _age(moment, oldest) for state, oldest in since.items()}
    leader = dispatch.leader_row(connection) or dispatch.Leader("", 0)
    return Figures(tasks, units, hosts, ages, bool(leader.holder), leader.beat, queries.engines(connection))


def _waiting_since(connection: sa.Connection) -> datetime | None:
    """When the oldest task with a waiting unit was submitted: the first one of the index."""
    first = sa.select(unit.c.task_key).where(unit.c.state == UnitState.WAITING).order_by(unit.c.task_key).limit(1)
    since: datetime | None = connection.scalar(
        sa.select(task.c.created_at).where(task.c.key == first.scalar_subquery())
    )
    return since


def _published_since(connection: sa.Connection) -> datetime | None:
    """Published units are few: no more than the engines have slots for."""
    oldest = sa.select(sa.func.min(unit.c.published_at)).where(unit.c.state == UnitState.PUBLISHED)
    since: datetime | None = connection.scalar(oldest)
    return since


def _age(moment: datetime, since: datetime | None) -> float:
    return 0.0 if since is None else max(0.0, (moment - since).total_seconds())
