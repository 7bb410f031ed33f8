"""/engines/: who runs the units."""

from __future__ import annotations

from typing import Any

from distribute import access, answers, context
from distribute.answers import moment
from distribute.inputs import Resource
from distribute.schemas import EngineAnswer
from distribute.store import queries
from distribute.tokens import Role

engines = Resource("engines", __name__)


@engines.get("/")
@engines.output(EngineAnswer)
@engines.doc(responses=[503])
@access.needs(Role.READ)
def list_engines() -> dict[str, Any]:
    """The engines, each in its newest incarnation"""
    rows = context.current().database.read(queries.engines)
    return answers.envelope(
        [
            {
                "engine_id": row.id,
                "incarnation": row.incarnation,
                "host_name": row.host_name,
                "version": row.version,
                "state": row.state,
                "slots": row.slots,
                "free_slots": row.free_slots,
                "missing": row.missing,
                "started_date": moment(row.started_at),
                "beat_date": moment(row.beat_at),
            }
            for row in rows
        ]
    )
