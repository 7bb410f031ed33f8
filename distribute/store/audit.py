"""The SQL of the audit: rows are added and read, never changed or deleted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from contract.database import now
from contract.tables import audit
from distribute.store.queries import Row


@dataclass(frozen=True)
class Deed:
    """Who asked for what, from where, about what, and the answer."""

    who: str
    address: str
    action: str
    target: str | None
    code: int
    msg: str


def add(connection: sa.Connection, deed: Deed) -> None:
    values = {**vars(deed), "target": deed.target and deed.target[:255], "msg": deed.msg[:1000], "at": now()}
    connection.execute(sa.insert(audit).values(values))


def deeds(
    connection: sa.Connection,
    *,
    who: str | None,
    action: str | None,
    target: str | None,
    before_id: int | None,
    limit: int,
) -> Sequence[Row]:
    """Newest first; before_id is the last one of the page before."""
    if not f"{who}{action}".isascii():
        return []  # no name or action has such letters, and MySQL does not compare them with an ascii column
    statement = sa.select(audit).order_by(audit.c.id.desc()).limit(limit)
    for column, wanted in ((audit.c.who, who), (audit.c.action, action), (audit.c.target, target)):
        if wanted is not None:
            statement = statement.where(column == wanted)
    if before_id is not None:
        statement = statement.where(audit.c.id < before_id)
    return connection.execute(statement).all()
