"""/hold/ and /release/: stop and resume all dispatching; what runs goes on."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from distribute import access, answers, audit
from distribute.answers import moment
from distribute.inputs import Resource
from distribute.schemas import HoldAnswer, NoFields
from distribute.store import holding, queries
from distribute.tokens import Role

hold = Resource("hold", __name__)
release = Resource("release", __name__)


@hold.post("/")
@hold.input(NoFields, arg_name="_body")
@hold.output(HoldAnswer)
@hold.doc(responses=[400, 413, 415, 503])
@access.needs(Role.OPERATE, "hold")
def stop_dispatching(_body: NoFields) -> dict[str, Any]:
    """Stop all dispatching

    Units that run go on; nothing else is started until it is released, also not after a restart.
    """
    client = access.client()

    def stop(connection: sa.Connection) -> tuple[dict[str, Any], str]:
        has_changed = holding.hold(connection, f"{client.name} at {client.address}")
        return _answer(connection), audit.outcome(has_changed)

    return audit.change(None, stop)


@release.post("/")
@release.input(NoFields, arg_name="_body")
@release.output(HoldAnswer)
@release.doc(responses=[400, 413, 415, 503])
@access.needs(Role.OPERATE, "release")
def resume_dispatching(_body: NoFields) -> dict[str, Any]:
    """Resume all dispatching"""

    def resume(connection: sa.Connection) -> tuple[dict[str, Any], str]:
        has_changed = holding.release(connection)
        return _answer(connection), audit.outcome(has_changed)

    return audit.change(None, resume)


def _answer(connection: sa.Connection) -> dict[str, Any]:
    row = queries.hold(connection)
    if row is None:
        return answers.envelope({"held": False, "held_by": None, "since": None})
    return answers.envelope({"held": True, "held_by": row.held_by, "since": moment(row.since)})


def sentence(connection: sa.Connection, needs_files: bool) -> str | None:
    """Why nothing of a task goes out: all is held, or it needs project files and no engine sees them."""
    row = queries.hold(connection)
    if row is not None:
        return f"all dispatching is held since {moment(row.since)} by {row.held_by}: POST /release/ resumes it"
    if needs_files and not queries.sees_files(connection):
        return "no live engine sees the project files that it may read: GET /engines/ says what each one misses"
    return None
