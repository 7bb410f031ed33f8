"""/audit/: who did what, with what answer. A change and its row here are one transaction."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import sqlalchemy as sa
from flask import g

from contract.errors import DatabaseError
from distribute import access, context, results
from distribute.answers import Item, moment
from distribute.errors import RequestError
from distribute.inputs import Resource
from distribute.schemas import AuditPage, AuditQuery
from distribute.store import audit as store
from distribute.store.audit import Deed
from distribute.store.queries import Row
from distribute.tokens import Role

T = TypeVar("T")

audit = Resource("audit", __name__)

log = logging.getLogger(__name__)


@audit.get("/")
@audit.input(AuditQuery, location="query", arg_name="query")
@audit.output(AuditPage)
@audit.doc(responses=[400, 503])
@access.needs(Role.ADMIN)
def read(query: AuditQuery) -> dict[str, Any]:
    """Who did what, newest first"""
    return results.paged(
        f"audit {query.who} {query.action} {query.target}",
        query,
        lambda connection, before, limit: store.deeds(
            connection, who=query.who, action=query.action, target=query.target, before_id=before, limit=limit
        ),
        lambda row: int(row.id),
        _item,
    )


def _item(row: Row) -> Item:
    return {
        "date": moment(row.at),
        "who": row.who,
        "address": row.address,
        "action": row.action,
        "target": row.target,
        "code": row.code,
        "msg": row.msg,
    }


def change(target: str | None, work: Callable[[sa.Connection], T]) -> T:
    """Do what the request asks for, and note it, in one transaction. Raises what work raises, and DatabaseError."""
    g.target = target
    deed = _deed(200, "done")

    def both(connection: sa.Connection) -> T:
        result = work(connection)
        store.add(connection, deed)
        return result

    result = context.current().database.write(both)
    log.info("a change", extra=_facts(deed))
    return result


def about(target: str) -> None:
    """What the request would change, for the row of its refusal."""
    g.target = target


def refused(error: RequestError) -> None:
    """A change that was not made. Where the database does not take the row, the log has it."""
    if not access.action() or "client" not in g:
        return
    deed = _deed(error.STATUS, error.message)
    log.warning("a change was refused", extra=_facts(deed))
    try:
        context.current().database.write(lambda connection: store.add(connection, deed))
    except DatabaseError as exc:
        log.error("a refusal is not in the audit", extra={"error": str(exc)})


def _facts(deed: Deed) -> dict[str, object]:
    """For a log record, where msg is a name of its own."""
    return {"answer" if name == "msg" else name: value for name, value in vars(deed).items()}


def _deed(code: int, msg: str) -> Deed:
    client = access.client()
    return Deed(client.name, client.address, access.action(), g.get("target"), code, msg)
