"""The SQL of holding all dispatching: a row that stands while it is held."""

from __future__ import annotations

import sqlalchemy as sa

from contract.database import now
from contract.tables import dispatch_hold

ALL = "all"  # the row's name


def hold(connection: sa.Connection, held_by: str) -> bool:
    """False where it is held already, and nothing has changed: who came first and when stays known."""
    insert = sa.insert(dispatch_hold).prefix_with("IGNORE", dialect="mysql").prefix_with("OR IGNORE", dialect="sqlite")
    return connection.execute(insert.values(name=ALL, held_by=held_by, since=now())).rowcount == 1


def release(connection: sa.Connection) -> bool:
    """False where it was not held, and nothing has changed."""
    return connection.execute(sa.delete(dispatch_hold).where(dispatch_hold.c.name == ALL)).rowcount == 1
