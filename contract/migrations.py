"""The schema's version: distribute brings it up to date when it starts, everybody else only looks at it.

The migrations stand in sql/versions, numbered; only going up is supported. Alembic, 11 MB, is imported by the process
that runs them and by nobody who only looks.
"""

from __future__ import annotations

import functools
import logging
import time
from pathlib import Path

import sqlalchemy as sa

from contract.database import Database
from contract.errors import DatabaseAway, SchemaError, SchemaOutdated

SCRIPTS = Path(__file__).resolve().parent.parent / "sql"
LOCK_TIMEOUT_SECONDS = 600
LOCK_ASK_SECONDS = 2  # a single question to the server, well under the handle's answer_timeout_seconds
STATEMENT_TIMEOUT_SECONDS = 3600  # an index on a big table takes its time
_TABLE = sa.table("alembic_version", sa.column("version_num", sa.String))

log = logging.getLogger(__name__)


def upgrade(database: Database) -> None:
    """Bring the schema up to date; any number of processes may call it at once. Blocks while another one does it.

    Raises SchemaError when the schema is newer than this program, DatabaseError and its children otherwise.
    """
    if not _outdated(database):
        return
    if database.is_sqlite:  # its upgrade is one transaction that begins with the write lock
        _run(database)
    else:
        database.read(lambda connection: _run_locked(connection, database))


def check(database: Database) -> None:
    """Raises SchemaError when the schema is newer than this program, SchemaOutdated when it is older or missing."""
    if found := _outdated(database):
        raise SchemaOutdated(
            f"expected the database schema {_versions()[-1]}, found {found}: start distribute, which upgrades it"
        )


def _outdated(database: Database) -> str:
    """What is found when it is older than expected, else an empty string. Raises SchemaError when it is newer."""
    found = database.read(_found)
    if not found:
        return "none"
    version = ", ".join(found)
    known = _versions()
    if version not in known:
        raise SchemaError(
            f"expected the database schema {known[-1]} or an older one, found {version}, which a newer"
            " execute-engine has made: run that version here too, or give this one a database of its own"
        )
    return "" if version == known[-1] else version


def _found(connection: sa.Connection) -> list[str]:
    """As Alembic notes it: one row."""
    if not sa.inspect(connection).has_table(_TABLE.name):
        return []
    return list(connection.scalars(sa.select(_TABLE.c.version_num)))


@functools.cache
def _versions() -> tuple[str, ...]:
    """The versions this program knows, oldest first: 0001 of 0001_first.py."""
    return tuple(sorted(path.name.split("_")[0] for path in SCRIPTS.glob("versions/*_*.py")))


def _run(database: Database) -> None:
    """One transaction on SQLite; MySQL commits each statement, so the migrations can be run again after a crash."""
    seconds = STATEMENT_TIMEOUT_SECONDS
    patient = Database(database.settings, answer_timeout_seconds=seconds, lock_wait_seconds=seconds, pool_size=1)
    try:
        patient.write(_upgrade)
    finally:
        patient.close()
    log.info("the database schema is up to date", extra={"version": _versions()[-1]})


def _upgrade(connection: sa.Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    command.upgrade(config, "head")


def _run_locked(connection: sa.Connection, database: Database) -> None:
    """connection holds MySQL's named lock, which counts for the whole server and ends with the connection."""
    lock = {"name": f"execute_engine {database.settings.database}"[:64], "seconds": LOCK_ASK_SECONDS}
    deadline = time.monotonic() + LOCK_TIMEOUT_SECONDS
    while connection.scalar(sa.text("SELECT GET_LOCK(:name, :seconds)"), lock) != 1:
        if time.monotonic() > deadline:
            raise DatabaseAway(
                f"another process has been upgrading the database schema for {LOCK_TIMEOUT_SECONDS} s:"
                f" SELECT IS_USED_LOCK('{lock['name']}') names its connection"
            )
    try:
        if _outdated(database):
            _run(database)
    finally:
        connection.execute(sa.text("SELECT RELEASE_LOCK(:name)"), lock)
