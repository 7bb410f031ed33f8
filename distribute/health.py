"""What stands outside the base path and the envelope: /healthz, /readyz and the contract as a page."""

from __future__ import annotations

from typing import Any, cast

from apiflask import APIBlueprint, APIFlask
from flask import current_app, render_template

from distribute import context
from distribute.schemas import HealthOut, ReadinessOut

_NOT_READY = {
    "description": "Not ready",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ReadinessOut"}}},
}

health = APIBlueprint("health", __name__, tag="health")


@health.get("/healthz")
@health.output(HealthOut)
def healthz() -> dict[str, str]:
    """Whether this process answers"""
    return {"status": "ok"}


@health.get("/readyz")
@health.output(ReadinessOut)
@health.doc(responses={503: _NOT_READY})
def readyz() -> tuple[dict[str, Any], int]:
    """Whether requests can be answered, and what is missing"""
    missing = context.current().missing()
    return {"status": "not ready" if missing else "ready", "missing": missing}, 503 if missing else 200


@health.get("/docs")
@health.doc(hide=True)
def docs() -> str:
    """The OpenAPI document for people; needs nothing from elsewhere, as it may be read where there is no internet."""
    return render_template("docs.html", spec=cast(APIFlask, current_app).spec)
