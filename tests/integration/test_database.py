"""The database handle on SQLite and on MariaDB: transactions, conflicts, forks, and a server that is away or hangs."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pymysql
import pytest
import sqlalchemy as sa

from contract import database as handle
from contract.config import DatabaseSettings
from contract.database import HELLO_SECONDS, Database
from contract.errors import DatabaseAway, DatabaseConflict, DatabaseError, DatabaseRetry
from contract.tables import engine
from tests.integration.databases import create, execute, rows
from tests.servers.mariadb import MariaDB
from tests.servers.process import ServerMissing

ANSWER_SECONDS = 2.0
ADD = "UPDATE leader SET beat = beat + 1 WHERE name = :name"
INSERT = "INSERT INTO leader (name, holder, beat) VALUES (:name, '', 0)"


class Expected(Exception):
    """Raised by a test's own work."""


def beat(database: Database, name: str) -> int:
    ((found,),) = rows(database, "SELECT beat FROM leader WHERE name = :name", name=name)
    return int(found)


def add(connection: sa.Connection, name: str) -> None:
    assert connection.execute(sa.text(ADD), {"name": name}).rowcount == 1


@pytest.fixture
def rows_a_and_b(database: Database) -> None:
    for name in "ab":
        execute(database, INSERT, name=name)


# --- transactions


def test_what_a_write_returns_is_committed_and_what_raises_is_undone(
    database: Database, database_settings: DatabaseSettings, rows_a_and_b: None
) -> None:
    def work(connection: sa.Connection) -> str:
        add(connection, "a")
        return "done"

    def fail(connection: sa.Connection) -> None:
        add(connection, "b")
        raise Expected

    assert database.write(work) == "done"
    with pytest.raises(Expected):
        database.write(fail)
    other = Database(database_settings)
    assert (beat(other, "a"), beat(other, "b")) == (1, 0)
    other.close()


def test_a_transaction_sees_what_others_have_committed_since_it_began_or_is_alone(
    database: Database, database_settings: DatabaseSettings, rows_a_and_b: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """READ COMMITTED on MySQL; on SQLite one snapshot, and the write lock from the begin of a write on."""
    monkeypatch.setattr(handle, "CONFLICT_SECONDS", 0)
    other = Database(database_settings, answer_timeout_seconds=0.1 if database.is_sqlite else 15)

    def work(connection: sa.Connection) -> list[int]:
        query = sa.text("SELECT beat FROM leader WHERE name = 'a'")
        before = connection.scalar(query)
        if database.is_sqlite:
            with pytest.raises(DatabaseConflict):
                execute(other, ADD, name="a")
        else:
            execute(other, ADD, name="a")
        return [before, connection.scalar(query)]

    assert database.write(work) == ([0, 0] if database.is_sqlite else [0, 1])
    other.close()


# --- conflicts


def test_after_a_deadlock_the_whole_transaction_runs_again(
    mariadb_settings: DatabaseSettings,
) -> None:
    databases = [Database(mariadb_settings) for _ in range(2)]
    for name in "ab":
        execute(databases[0], INSERT, name=name)
    barrier = threading.Barrier(2)
    tries: list[str] = []

    def run(database: Database, first: str, second: str) -> None:
        waited = False

        def work(connection: sa.Connection) -> None:
            nonlocal waited
            tries.append(first)
            add(connection, first)
            if not waited:
                waited = True
                barrier.wait(30)  # both hold their first row, and want the other's
            add(connection, second)

        database.write(work)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, databases, "ab", "ba"))
    assert len(tries) == 3
    assert (beat(databases[0], "a"), beat(databases[0], "b")) == (2, 2)
    for database in databases:
        database.close()


def test_after_a_lock_that_was_not_to_be_had_the_whole_transaction_runs_again(
    database: Database, database_settings: DatabaseSettings, rows_a_and_b: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MySQL by itself would undo no more than the statement that has waited."""
    waiting = Database(database_settings, answer_timeout_seconds=1 if database.is_sqlite else 15, lock_wait_seconds=1)
    holding, conflict = threading.Event(), threading.Event()
    undo = waiting._once

    def once(*arguments: Any) -> Any:
        try:
            return undo(*arguments)
        except DatabaseConflict:
            conflict.set()
            raise

    monkeypatch.setattr(waiting, "_once", once)

    def hold(connection: sa.Connection) -> None:
        add(connection, "b")
        holding.set()
        assert conflict.wait(60)

    def both(connection: sa.Connection) -> None:
        add(connection, "a")
        add(connection, "b")

    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(database.write, hold)
        assert holding.wait(60)
        waiting.write(both)
        held.result()
    assert (beat(database, "a"), beat(database, "b")) == (1, 2)
    waiting.close()


def test_a_conflict_that_stays_is_an_error_that_may_be_tried_again(
    database: Database, database_settings: DatabaseSettings, rows_a_and_b: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handle, "CONFLICT_SECONDS", 1.5)
    waiting = Database(database_settings, answer_timeout_seconds=0.2 if database.is_sqlite else 15, lock_wait_seconds=1)
    tries = []

    def blocked(connection: sa.Connection) -> None:
        tries.append(1)
        add(connection, "a")

    def hold(connection: sa.Connection) -> None:
        add(connection, "a")
        with pytest.raises(DatabaseConflict) as caught:
            waiting.write(blocked)
        assert isinstance(caught.value, DatabaseRetry)

    database.write(hold)
    assert len(tries) == (0 if database.is_sqlite else 2)  # SQLite has its lock from BEGIN on
    waiting.write(blocked)
    assert beat(database, "a") == 2
    waiting.close()


@pytest.mark.parametrize("call", ["read", "write"])
def test_a_table_that_somebody_keeps_locked_is_a_conflict_long_before_a_statement_would_be_given_up(
    mariadb_settings: DatabaseSettings, call: str
) -> None:
    """As an ALTER TABLE does that waits for a long transaction: MySQL's own limit is a day."""
    holder, waiting = Database(mariadb_settings), Database(mariadb_settings, answer_timeout_seconds=600)

    def hold(connection: sa.Connection) -> None:
        connection.exec_driver_sql("LOCK TABLES leader WRITE")
        begun = time.monotonic()
        with pytest.raises(DatabaseConflict):
            getattr(waiting, call)(lambda connection: connection.exec_driver_sql("SELECT beat FROM leader"))
        assert time.monotonic() - begun < 60
        connection.exec_driver_sql("UNLOCK TABLES")

    holder.read(hold)
    assert rows(waiting, "SELECT beat FROM leader") == []
    for database in (holder, waiting):
        database.close()


def test_many_writers_at_once_all_get_their_turn(
    database: Database, database_settings: DatabaseSettings, rows_a_and_b: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each reads before it writes: what SQLite refuses at once when the transaction did not begin as a writer."""
    if database.is_sqlite:
        monkeypatch.setattr(handle, "CONFLICT_SECONDS", 0)
    each = 15
    barrier = threading.Barrier(6)

    def write_all(_: int) -> None:
        own = Database(database_settings)
        barrier.wait(60)
        for _ in range(each):
            own.write(read_then_write)
        own.close()

    def read_then_write(connection: sa.Connection) -> None:
        lock = "" if database.is_sqlite else " FOR UPDATE"
        found = connection.scalar(sa.text(f"SELECT beat FROM leader WHERE name = 'a'{lock}"))
        connection.execute(sa.text("UPDATE leader SET beat = :beat WHERE name = 'a'"), {"beat": found + 1})

    with ThreadPoolExecutor(barrier.parties) as pool:
        list(pool.map(write_all, range(barrier.parties)))
    assert beat(database, "a") == barrier.parties * each


def test_readers_of_sqlite_are_not_stopped_by_a_writer(sqlite_settings: DatabaseSettings) -> None:
    writer, reader = Database(sqlite_settings), Database(sqlite_settings, answer_timeout_seconds=0)

    def work(connection: sa.Connection) -> list[tuple[Any, ...]]:
        connection.execute(sa.text(INSERT), {"name": "a"})
        return rows(reader, "SELECT name FROM leader")

    assert writer.write(work) == []
    assert rows(reader, "SELECT name FROM leader") == [("a",)]
    for database in (writer, reader):
        database.close()


# --- forks


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_gets_connections_of_its_own_and_leaves_its_parent_s_alone(
    database: Database, rows_a_and_b: None
) -> None:
    """Forked in the middle of a transaction, while another connection rests in the pool."""
    opened: list[int] = []
    sa.event.listen(database.engine, "connect", lambda *_: opened.append(os.getpid()))

    def child(writes: int) -> None:
        code = 1
        try:
            execute(database, ADD, name="b")
            code = 0 if opened == [os.getpid()] else 2
        except BaseException as exc:  # noqa: BLE001 - the child must not go on as a test run
            os.write(writes, repr(exc).encode())
        finally:
            os._exit(code)

    def work(connection: sa.Connection) -> None:
        before = connection.scalar(sa.text(identity))
        reads, writes = os.pipe()
        if (pid := os.fork()) == 0:
            child(writes)
        os.close(writes)
        with open(reads) as said:
            assert (os.waitpid(pid, 0)[1], said.read()) == (0, "")
        assert connection.scalar(sa.text(identity)) == before

    identity = "SELECT 1" if database.is_sqlite else "SELECT CONNECTION_ID()"
    database.read(lambda connection: rows(database, "SELECT 1"))  # two connections are made
    opened.clear()
    database.read(work)
    assert database.read(lambda connection: rows(database, "SELECT 1")) == [(1,)]
    assert opened == []
    assert beat(database, "b") == 1


# --- errors


@pytest.mark.parametrize(
    "statement",
    ["SELECT nothing FROM leader", "SELECT 1 FROM no_such_table", "no SQL", "INSERT INTO leader (name) VALUES (NULL)"],
)
def test_a_statement_that_is_wrong_is_an_error_that_no_retry_would_help(database: Database, statement: str) -> None:
    tries = []

    def work(connection: sa.Connection) -> None:
        tries.append(1)
        connection.exec_driver_sql(statement)

    with pytest.raises(DatabaseError) as caught:
        database.write(work)
    assert not isinstance(caught.value, DatabaseRetry)
    assert len(tries) == 1


def test_a_row_that_is_there_already_is_an_error(database: Database, rows_a_and_b: None) -> None:
    with pytest.raises(DatabaseError) as caught:
        execute(database, INSERT, name="a")
    assert not isinstance(caught.value, DatabaseRetry)


def test_a_pool_that_stays_empty_counts_as_away(database_settings: DatabaseSettings) -> None:
    database = Database(database_settings, answer_timeout_seconds=0.5, pool_size=1)

    def one_more(depth: int) -> None:
        if depth:
            database.read(lambda connection: one_more(depth - 1))
            return
        begun = time.monotonic()
        with pytest.raises(DatabaseAway, match="no free connection"):
            rows(database, "SELECT 1")
        assert time.monotonic() - begun < 10

    one_more(2)
    assert rows(database, "SELECT 1") == [(1,)]
    database.close()


def test_a_sqlite_file_that_cannot_be_opened_counts_as_away(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    database = Database(DatabaseSettings(sqlite_file=tmp_path / "taken"))
    with pytest.raises(DatabaseAway, match="cannot be used"):
        rows(database, "SELECT 1")
    (tmp_path / "taken").rmdir()
    assert rows(database, "SELECT 1") == [(1,)]
    database.close()


# --- a server that is away


@pytest.fixture(scope="module")
def own_server() -> Iterator[MariaDB]:
    """One that these tests kill and pause, and leave running."""
    with tempfile.TemporaryDirectory(prefix="ee-", ignore_cleanup_errors=True) as directory:
        server = MariaDB(Path(directory))
        try:
            server.start()
        except ServerMissing as exc:
            pytest.skip(str(exc))
        yield server
        server.stop()


@pytest.fixture
def own_database(own_server: MariaDB) -> Iterator[Database]:
    database = Database(create(own_server), answer_timeout_seconds=ANSWER_SECONDS)
    execute(database, "CREATE TABLE leader (name VARCHAR(8) PRIMARY KEY, holder VARCHAR(8), beat INTEGER)")
    execute(database, INSERT, name="a")
    yield database
    database.close()


def away_after(work: Callable[[], object]) -> float:
    """How long it takes until the database counts as away."""
    begun = time.monotonic()
    with pytest.raises(DatabaseAway):
        work()
    return time.monotonic() - begun


def test_a_server_that_died_is_away_and_the_same_handle_works_when_it_is_back(
    own_server: MariaDB, own_database: Database
) -> None:
    own_server.kill()
    try:
        with pytest.raises(DatabaseAway, match="Can't connect"):
            beat(own_database, "a")
        away_after(lambda: execute(own_database, ADD, name="a"))
    finally:
        own_server.start()
    execute(own_database, ADD, name="a")
    assert beat(own_database, "a") == 1


def test_a_server_that_dies_in_a_transaction_has_done_nothing_of_it(
    own_server: MariaDB, own_database: Database
) -> None:
    tries = []

    def work(connection: sa.Connection) -> None:
        tries.append(1)
        add(connection, "a")
        own_server.kill()
        add(connection, "a")

    try:
        away_after(lambda: own_database.write(work))
        assert len(tries) == 1  # whether it was committed is not known in general: only a conflict is tried again
    finally:
        own_server.start()
    assert beat(own_database, "a") == 0


def test_a_server_that_hangs_is_away_long_before_a_statement_would_be(
    own_server: MariaDB, own_database: Database
) -> None:
    """A statement may take minutes; that nobody is there is known by the ping, and by the greeting that is missing."""
    pooled, new = (Database(own_database.settings, answer_timeout_seconds=600) for _ in range(2))
    assert beat(pooled, "a") == 0
    own_server.pause()
    try:
        seconds = [away_after(lambda: beat(database, "a")) for database in (pooled, new)]  # noqa: B023
    finally:
        own_server.resume()
    assert all(HELLO_SECONDS <= waited < 60 for waited in seconds), seconds
    assert beat(pooled, "a") == beat(new, "a") == 0
    pooled.close()
    new.close()


def test_a_server_that_hangs_in_a_transaction_is_away_after_the_answer_timeout(
    own_server: MariaDB, own_database: Database
) -> None:
    def work(connection: sa.Connection) -> None:
        add(connection, "a")
        own_server.pause()
        add(connection, "a")

    try:
        assert away_after(lambda: own_database.write(work)) < 2 * ANSWER_SECONDS + 5
    finally:
        own_server.resume()
    execute(own_database, ADD, name="a")  # the lock of the transaction that was given up is gone
    assert beat(own_database, "a") == 1


def test_a_statement_that_takes_too_long_is_given_up(own_database: Database) -> None:
    assert away_after(lambda: rows(own_database, "SELECT SLEEP(60)")) < ANSWER_SECONDS + 10
    assert beat(own_database, "a") == 0


def test_a_connection_that_the_server_has_ended_is_replaced_unseen(own_server: MariaDB, own_database: Database) -> None:
    ((number,),) = rows(own_database, "SELECT CONNECTION_ID()")
    own_server.sql(f"KILL {number}")
    assert beat(own_database, "a") == 0
    assert rows(own_database, "SELECT CONNECTION_ID()") != [(number,)]


@pytest.mark.parametrize(("trusted_seconds", "pings"), [(0.0, 3), (60.0, 0)])
def test_a_connection_that_has_just_answered_is_pinged_unless_it_is_trusted(
    own_database: Database, monkeypatch: pytest.MonkeyPatch, trusted_seconds: float, pings: int
) -> None:
    database = Database(own_database.settings, trusted_seconds=trusted_seconds)
    rows(database, "SELECT 1")
    seen = []
    ping = pymysql.Connection.ping
    monkeypatch.setattr(pymysql.Connection, "ping", lambda *args, **options: (seen.append(1), ping(*args, **options)))
    for _ in range(3):
        rows(database, "SELECT 1")
    assert len(seen) == pings
    database.close()


def test_a_trusted_connection_that_died_is_an_error_once(own_server: MariaDB, own_database: Database) -> None:
    database = Database(own_database.settings, trusted_seconds=60.0)
    ((number,),) = rows(database, "SELECT CONNECTION_ID()")
    own_server.sql(f"KILL {number}")
    with pytest.raises(DatabaseAway):
        rows(database, "SELECT 1")
    assert rows(database, "SELECT 1") == [(1,)]
    database.close()


def test_a_server_that_hangs_up_on_each_new_connection_is_away_not_asked_for_ever(own_database: Database) -> None:
    """Its greeting comes, and then nothing: as from a proxy before a server that died."""
    made = []

    def hang_up(connection: Any, _record: Any) -> None:
        made.append(connection)
        connection._sock.shutdown(socket.SHUT_RDWR)

    fresh = Database(own_database.settings)
    sa.event.listen(fresh.engine, "connect", hang_up)
    for tries in (1, 2):
        away_after(lambda: beat(fresh, "a"))
        assert len(made) == 2 * tries  # one that may have been old, and one made for this
    sa.event.remove(fresh.engine, "connect", hang_up)
    assert beat(fresh, "a") == 0
    fresh.close()


@pytest.mark.parametrize(
    ("before", "after", "answer"),
    [
        ("SET GLOBAL read_only = 1", "SET GLOBAL read_only = 0", "read-only"),
        ("SET GLOBAL max_connections = 10", "SET GLOBAL max_connections = 151", "Too many connections"),
    ],
)
def test_a_server_that_is_read_only_or_full_is_away(
    own_server: MariaDB, own_database: Database, before: str, after: str, answer: str
) -> None:
    own_server.sql(before)
    others = [Database(own_database.settings, pool_size=1) for _ in range(12)]

    def add_by_all() -> None:
        for other in others:
            execute(other, ADD, name="a")

    try:
        with pytest.raises(DatabaseAway, match=answer):
            add_by_all()
    finally:
        own_server.sql(after)
        for other in others:
            other.close()
    execute(own_database, ADD, name="a")


def test_a_wrong_password_is_no_secret_told_and_may_be_put_right_meanwhile(own_database: Database) -> None:
    wrong = Database(
        DatabaseSettings(ip="127.0.0.1", port=own_database.settings.port, user="ee", password="not-this-one")
    )
    with pytest.raises(DatabaseAway, match="Access denied") as caught:
        rows(wrong, "SELECT 1")
    assert "not-this-one" not in str(caught.value)
    wrong.close()


def test_an_error_tells_nothing_of_what_was_to_be_stored(database: Database) -> None:
    refused = sa.insert(engine).values(incarnation="x", id="a secret text", host_name=None)
    with pytest.raises(DatabaseError) as caught:
        database.write(lambda connection: connection.execute(refused))
    assert "a secret text" not in "".join(traceback.format_exception(caught.value))
