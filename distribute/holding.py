"""/hold/ and /release/: stop and resume all dispatching; what runs goes on."""

from __future__ import annotations

import logging
from typing import Any

import sqlalchemy as sa
from flask import request

from distribute import answers, context
from distribute.answers import moment
from distribute.inputs import Resource
from distribute.schemas import HoldAnswer, NoFields
from distribute.store import holding, queries

hold = Resource("hold", __name__)
release = Resource("release", __name__)

log = logging.getLogger(__name__)


@hold.post("/")
@hold.input(NoFields, arg_name="_body")
@hold.output(HoldAnswer)
@hold.doc(responses=[400, 503])
def stop_dispatching(_body: NoFields) -> dict[str, Any]:
    """Stop all dispatching

    Units that run go on; nothing else is started until it is released, also not after a restart.
    """
    held_by = request.remote_addr or "unknown"
    context.current().database.write(lambda connection: holding.hold(connection, held_by))
    log.warning("dispatching is held", extra={"by": held_by})
    return _answer()


@release.post("/")
@release.input(NoFields, arg_name="_body")
@release.output(HoldAnswer)
@release.doc(responses=[400, 503])
def resume_dispatching(_body: NoFields) -> dict[str, Any]:
    """Resume all dispatching"""
    context.current().database.write(holding.release)
    log.warning("dispatching is released", extra={"by": request.remote_addr or "unknown"})
    return _answer()


def _answer() -> dict[str, Any]:
    row = context.current().database.read(queries.hold)
    if row is None:
        return answers.envelope({"held": False, "held_by": None, "since": None})
    return answers.envelope({"held": True, "held_by": row.held_by, "since": moment(row.since)})


def sentence(connection: sa.Connection) -> str | None:
    """Why nothing goes out, while all is held."""
    row = queries.hold(connection)
    return row and f"all dispatching is held since {moment(row.since)} by {row.held_by}: POST /release/ resumes it"
