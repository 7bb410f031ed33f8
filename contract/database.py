"""The database handle of both services: SQLite, or MySQL / MariaDB, behind the same two calls.

    database.read(lambda connection: connection.execute(...).all())
    database.write(lambda connection: ...)       # one transaction, tried again after a deadlock

Every driver error leaves here as one of contract.errors; nothing else imports a driver.
"""

from __future__ import annotations

import os
import random
import sqlite3
import ssl
import time
import weakref
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import pymysql
import sqlalchemy as sa
from sqlalchemy import exc as sa_exc

from contract.config import DatabaseSettings
from contract.errors import DatabaseAway, DatabaseConflict, DatabaseError

T = TypeVar("T")

HELLO_SECONDS = 2  # for a connection, its greeting, and the ping before its use: who is away is known in twice that
LOCK_WAIT_SECONDS = 2
IDLE_SECONDS = 60  # then the server ends a connection, also in a transaction: who is stopped in one holds no lock
CONFLICT_SECONDS = 3  # for so long a transaction begins again after a conflict; then its caller decides
PINGED_IN_VAIN = "pinged_in_vain"
ANSWERED_AT = "answered_at"

_CONFLICTS = {1205, 1213, 3572}  # lock wait timeout, deadlock, nowait
_AWAY = {
    1040, 1041, 1042, 1043, 1044, 1045, 1047, 1053, 1077, 1079, 1080, 1129, 1152, 1153, 1158, 1159, 1160, 1161,
    1203, 1226, 1290, 1317, 1698, 1836, 1927, 2002, 2003, 2006, 2013, 2026, 2055, 4031, 4151,
}  # fmt: skip


def now() -> datetime:
    """The time that is written into rows: UTC, microseconds, without a zone because MySQL's DATETIME has none."""
    return datetime.now(UTC).replace(tzinfo=None)


class Database:
    """A pool of connections that is never carried over a fork.

    answer_timeout_seconds bounds each statement on MySQL (PyMySQL's read_timeout, which covers the greeting too)
    and the wait for the write lock on SQLite; lock_wait_seconds the wait for locks of rows and tables on MySQL.
    A connection that has answered less than trusted_seconds ago is used without a ping: one that died since then is
    an error then, which the caller has to expect, and a server that hangs is known after a whole answer timeout.
    """

    def __init__(
        self,
        settings: DatabaseSettings,
        *,
        answer_timeout_seconds: float = 15,
        lock_wait_seconds: int = LOCK_WAIT_SECONDS,
        pool_size: int = 4,
        trusted_seconds: float = 0.0,
    ) -> None:
        self.settings = settings
        self.is_sqlite = not settings.ip
        if self.is_sqlite:
            self.engine = _sqlite(settings, answer_timeout_seconds, pool_size)
        else:
            self.engine = _mysql(settings, answer_timeout_seconds, lock_wait_seconds, pool_size, trusted_seconds)
        _forget_at_fork(self.engine)

    def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Run work in a transaction that only reads. Raises DatabaseError and its children."""
        return self._once(work, self.engine)

    def write(self, work: Callable[[sa.Connection], T]) -> T:
        """Run work in one transaction and commit it; after a deadlock or lock wait the whole of it runs again.

        work must therefore have no effect but on the database. Raises DatabaseConflict when the conflict stays for
        CONFLICT_SECONDS: who waits for a lock that somebody keeps holds up nobody else.
        """
        engine = self.engine.execution_options(writes=True)
        give_up_at = time.monotonic() + CONFLICT_SECONDS
        pause = 0.01
        while True:
            try:
                return self._once(work, engine)
            except DatabaseConflict:
                if time.monotonic() >= give_up_at:
                    raise
            time.sleep(random.uniform(0, pause))
            pause *= 2

    def close(self) -> None:
        self.engine.dispose()

    @staticmethod
    def _once(work: Callable[[sa.Connection], T], engine: sa.Engine) -> T:
        try:
            with engine.begin() as connection:
                return work(connection)
        except sa_exc.DBAPIError as exc:
            raise _translated(exc) from exc
        except sa_exc.TimeoutError as exc:  # the pool has been empty for its whole timeout
            raise DatabaseAway(f"no free connection to the database: {exc}") from exc


def _translated(exc: sa_exc.DBAPIError) -> DatabaseError:
    original = exc.orig
    text = str(original)
    if isinstance(original, sqlite3.OperationalError):
        if "locked" in text or "busy" in text:
            return DatabaseConflict(f"the SQLite database is locked: {text}")
        if any(words in text for words in ("unable to open", "disk I/O", "is full", "readonly")):
            return DatabaseAway(f"the SQLite database cannot be used: {text}")
        return DatabaseError(text)
    number = original.args[0] if isinstance(original, pymysql.MySQLError) and original.args else None
    if number in _CONFLICTS:
        return DatabaseConflict(text)
    if number in _AWAY or exc.connection_invalidated or isinstance(original, pymysql.InterfaceError):
        return DatabaseAway(text)
    return DatabaseError(text)


def _sqlite(settings: DatabaseSettings, answer_timeout_seconds: float, pool_size: int) -> sa.Engine:
    settings.sqlite_file.parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(
        f"sqlite:///{settings.sqlite_file}",
        hide_parameters=True,
        connect_args={"timeout": answer_timeout_seconds, "check_same_thread": False},
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=answer_timeout_seconds,
    )

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None  # we begin ourselves: sqlite3's own BEGIN is always a deferred one
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        # A read that turns into a write fails at once with "database is locked", whatever the busy timeout.
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _mysql(
    settings: DatabaseSettings,
    answer_timeout_seconds: float,
    lock_wait_seconds: int,
    pool_size: int,
    trusted_seconds: float,
) -> sa.Engine:
    url = sa.URL.create(
        "mysql+pymysql", settings.user, settings.password, settings.ip, settings.port, settings.database,
        {"charset": "utf8mb4"},
    )  # fmt: skip
    arguments: dict[str, Any] = {
        "connect_timeout": HELLO_SECONDS,
        "read_timeout": HELLO_SECONDS,
        "write_timeout": answer_timeout_seconds,
        "init_command": f"SET SESSION innodb_lock_wait_timeout = {lock_wait_seconds},"
        f" lock_wait_timeout = {lock_wait_seconds}, wait_timeout = {IDLE_SECONDS}, time_zone = '+00:00'",
    }
    if settings.ssl_ca:
        arguments["ssl"] = ssl.create_default_context(cafile=str(settings.ssl_ca))
    engine = sa.create_engine(
        url,
        hide_parameters=True,  # what a task holds has no place in an error's text, and so in a log
        connect_args=arguments,
        isolation_level="READ COMMITTED",
        pool_reset_on_return=None,  # _once() has ended every transaction; else each of them costs one more ROLLBACK
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=answer_timeout_seconds,
        pool_recycle=600,
    )

    @sa.event.listens_for(engine, "checkin")
    def note(_connection: Any, record: Any) -> None:
        record.info[ANSWERED_AT] = time.monotonic()

    @sa.event.listens_for(engine, "checkout")
    def ping(connection: Any, record: Any, _fairy: Any) -> None:
        """As pool_pre_ping does, and with a limit of its own: a statement may take longer than a sign of life."""
        if time.monotonic() < record.info.get(ANSWERED_AT, float("-inf")) + trusted_seconds:
            return
        connection._read_timeout = HELLO_SECONDS
        try:
            connection.ping(reconnect=False)
        except pymysql.MySQLError as exc:
            if record.record_info.pop(PINGED_IN_VAIN, False):
                raise  # the second one, made for this: it is the server
            record.record_info[PINGED_IN_VAIN] = True
            raise sa_exc.DisconnectionError from exc
        record.record_info.pop(PINGED_IN_VAIN, None)
        connection._read_timeout = answer_timeout_seconds

    return engine


def _forget_at_fork(engine: sa.Engine) -> None:
    """A child that wrote to its parent's connection would corrupt both: it starts with an empty pool."""
    reference = weakref.ref(engine)

    def forget() -> None:
        if (alive := reference()) is not None:
            alive.dispose(close=False)

    os.register_at_fork(after_in_child=forget)
