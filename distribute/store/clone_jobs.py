"""The SQL of clones in the background: begun, how far, ended."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from contract.database import now
from contract.states import CloneState
from contract.tables import clone_job
from distribute.store.queries import Row

KEPT = 20  # ended ones of a project, the newest


def add(connection: sa.Connection, id_: str, project: str, submitted_by: str) -> None:
    """A clone that runs; the oldest ended ones of its project go."""
    ended = (clone_job.c.project == project, clone_job.c.state != CloneState.RUNNING)
    newest = (
        sa.select(clone_job.c.id).where(*ended).order_by(clone_job.c.started_at.desc()).offset(KEPT - 1).limit(1000)
    )
    old = list(connection.scalars(newest))
    connection.execute(sa.delete(clone_job).where(clone_job.c.id.in_(old)))
    values = {"id": id_, "project": project, "state": CloneState.RUNNING, "submitted_by": submitted_by}
    connection.execute(sa.insert(clone_job).values(**values, started_at=now()))


def progress(connection: sa.Connection, id_: str, step: dict[str, Any]) -> None:
    running = (clone_job.c.id == id_, clone_job.c.state == CloneState.RUNNING)
    connection.execute(sa.update(clone_job).where(*running).values(progress=step))


def end(connection: sa.Connection, id_: str, state: CloneState, answer: dict[str, Any]) -> bool:
    """False where it has ended already."""
    running = (clone_job.c.id == id_, clone_job.c.state == CloneState.RUNNING)
    ended = sa.update(clone_job).where(*running).values(state=state, answer=answer, finished_at=now())
    return connection.execute(ended).rowcount == 1


def find(connection: sa.Connection, id_: str) -> Row | None:
    if not id_.isascii():
        return None  # MySQL does not compare it with an ascii column
    return connection.execute(sa.select(clone_job).where(clone_job.c.id == id_)).first()
