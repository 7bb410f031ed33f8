"""/audit/: who did what, with what answer. A change and its row here are one transaction."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import sqlalchemy as sa
from flask import g, request

from contract.database import Database
from contract.errors import DatabaseError
from distribute import access, context, limits, results
from distribute.answers import Item, moment
from distribute.inputs import Resource
from distribute.schemas import AuditPage, AuditQuery
from distribute.store import audit as store
from distribute.store.audit import Deed
from distribute.store.queries import Row
from distribute.tokens import Role

T = TypeVar("T")

DONE = "done"

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


def change(target: str | None, work: Callable[[sa.Connection], tuple[T, str]]) -> T:
    """Do what the request asks for, and note it, in one transaction. Raises what work raises, and DatabaseError.

    work returns its result and what the row says became of it: DONE, or why nothing has changed.
    """
    g.target = target

    def both(connection: sa.Connection) -> tuple[T, Deed]:
        result, became = work(connection)
        deed = deed_of_request(200, became)
        store.add(connection, deed)
        return result, deed

    result, deed = context.current().database.write(both)
    log.info("a change", extra=_facts(deed))
    return result


def outcome(has_changed: bool) -> str:
    """What the row says of a change that asks for a state, and may find it there."""
    return DONE if has_changed else "nothing changed"


def about(target: str) -> None:
    """What the request would change, for the row of its refusal."""
    g.target = target


def refused(code: int, msg: str) -> None:
    """A change that was not made, where one was asked for by somebody who is known. Raises nothing.

    The log has all of them; the table as many of each client as limits.Refusals lets through, and how many more.
    """
    if not access.action() or "client" not in g:
        return
    deed = deed_of_request(code, msg)
    log.warning("a change was refused", extra=_facts(deed))
    here = context.current()

    def tell(left_out: int) -> None:
        words = f"{left_out} more refusals within {limits.WINDOW_SECONDS:g} s; the log has them"
        _try_to_add(here.database, replace(deed, action="refused", target=None, code=429, msg=words))

    if here.refusals.admits(deed.who, tell):
        _try_to_add(here.database, deed)


def _try_to_add(database: Database, deed: Deed) -> None:
    try:
        database.write(lambda connection: store.add(connection, deed))
    except DatabaseError as exc:
        log.error("a refusal is not in the audit", extra={"error": str(exc)})
    except Exception as exc:  # whatever it is, it makes no answer another one
        log.error("a refusal is not in the audit", exc_info=exc)


def _facts(deed: Deed) -> dict[str, object]:
    """For a log record, where msg is a name of its own."""
    return {"answer" if name == "msg" else name: value for name, value in vars(deed).items()}


def deed_of_request(code: int, msg: str) -> Deed:
    """Who asks for what, from where, about what."""
    client = access.client()
    path = request.view_args or {}
    target = g.get("target") or path.get("task_id") or path.get("project")  # the path's, until somebody has said more
    return Deed(client.name, client.address, access.action(), target, code, msg)
