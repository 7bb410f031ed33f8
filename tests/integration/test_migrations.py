"""The schema: made by the migrations, the same as the tables in the code and as sql/schema.sql, and never guessed."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.dialects import mysql

from contract import migrations, tables
from contract.config import DatabaseSettings
from contract.database import Database
from contract.errors import DatabaseAway, SchemaError, SchemaOutdated
from tests.integration.databases import created, execute, rows
from tests.servers.mariadb import MariaDB

HEAD = "0005"
SCHEMA_SQL = Path(__file__).parents[2] / "sql" / "schema.sql"


@pytest.fixture(params=["sqlite", "mariadb"])
def empty_settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DatabaseSettings]:
    if request.param == "sqlite":
        yield DatabaseSettings(sqlite_file=tmp_path / "empty.db")
    else:
        with created(request.getfixturevalue("mariadb")) as settings:
            yield settings


@pytest.fixture
def empty(empty_settings: DatabaseSettings) -> Iterator[Database]:
    with opened(empty_settings) as database:
        yield database


@contextmanager
def opened(settings: DatabaseSettings) -> Iterator[Database]:
    database = Database(settings)
    yield database
    database.close()


def schema(database: Database) -> dict[str, Any]:
    """Every table, described so that equal descriptions are equal tables; the order of keys says nothing."""
    return database.read(lambda connection: {name: _table(connection, name) for name in _names(connection)})


def _names(connection: sa.Connection) -> list[str]:
    return sorted(sa.inspect(connection).get_table_names())


def _table(connection: sa.Connection, name: str) -> Any:
    if connection.dialect.name == "mysql":
        lines = connection.exec_driver_sql(f"SHOW CREATE TABLE `{name}`").one()[1].splitlines()
        columns = [line.rstrip(",") for line in lines if line.startswith("  `")]
        return columns, sorted(line.rstrip(",") for line in lines if not line.startswith("  `"))
    inspector = sa.inspect(connection)
    columns = [
        (column["name"], str(column["type"]), column["nullable"], column["default"])
        for column in inspector.get_columns(name)
    ]
    indexes = sorted((index["name"], index["column_names"]) for index in inspector.get_indexes(name))
    unique = sorted((found["name"] or "", found["column_names"]) for found in inspector.get_unique_constraints(name))
    foreign = sorted(
        (found["constrained_columns"], found["referred_table"]) for found in inspector.get_foreign_keys(name)
    )
    return columns, inspector.get_pk_constraint(name)["constrained_columns"], indexes, unique, foreign


def version(database: Database) -> list[tuple[Any, ...]]:
    return rows(database, "SELECT version_num FROM alembic_version")


def test_an_empty_database_is_brought_up_to_date_and_a_current_one_is_left_alone(empty: Database) -> None:
    migrations.upgrade(empty)
    migrations.check(empty)
    assert version(empty) == [(HEAD,)]
    assert set(schema(empty)) == {*tables.metadata.tables, "alembic_version"}
    execute(empty, "INSERT INTO leader (name, holder, beat) VALUES ('kept', 'me', 7)")
    migrations.upgrade(empty)
    assert rows(empty, "SELECT name, holder, beat FROM leader") == [("kept", "me", 7)]


def test_of_many_that_upgrade_at_once_each_finds_the_work_done(
    empty_settings: DatabaseSettings, empty: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    barrier, looked = threading.Barrier(4), threading.local()
    look = migrations._outdated

    def look_together(database: Database) -> str:
        """The first look of each thread: nobody goes on before all have seen that there is no schema."""
        found = look(database)
        if not hasattr(looked, "once"):
            looked.once = found
            barrier.wait(60)
            assert found == "none"
        return found

    def upgrade(_: int) -> None:
        with opened(empty_settings) as database:
            migrations.upgrade(database)
            migrations.check(database)

    monkeypatch.setattr(migrations, "_outdated", look_together)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(upgrade, range(4))) == [None] * 4
    assert version(empty) == [(HEAD,)]


def test_an_upgrade_that_died_after_any_of_its_statements_is_finished_by_the_next_one(
    empty: Database, mariadb_settings: DatabaseSettings
) -> None:
    """SQLite keeps nothing of it, MySQL what was done; either way the result is the whole schema."""

    died_at: set[tuple[str, str]] = set()

    def die(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        """At each statement that changes something, the first time that it comes."""
        this = (statement, repr(parameters))
        if statement.lstrip().startswith(("CREATE", "ALTER", "INSERT", "UPDATE")) and this not in died_at:
            died_at.add(this)
            raise KeyboardInterrupt(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", die)
    try:
        while True:
            try:
                migrations.upgrade(empty)
                break
            except KeyboardInterrupt:
                with pytest.raises(SchemaOutdated):
                    migrations.check(empty)
                if empty.is_sqlite:
                    assert schema(empty) == {}
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", die)
    assert len(died_at) > len(tables.metadata.tables)
    assert set(schema(empty)) == {*tables.metadata.tables, "alembic_version"}
    if not empty.is_sqlite:
        with opened(mariadb_settings) as whole:
            assert schema(empty) == schema(whole)


@pytest.mark.parametrize("call", [migrations.check, migrations.upgrade])
def test_a_newer_schema_is_refused_and_not_touched(database: Database, call: Callable[[Database], None]) -> None:
    execute(database, "UPDATE alembic_version SET version_num = '9999'")
    before = schema(database)
    with pytest.raises(SchemaError, match=f"expected the database schema {HEAD} or an older one, found 9999") as caught:
        call(database)
    assert "run that version here too" in str(caught.value)
    assert schema(database) == before
    assert version(database) == [("9999",)]


def test_the_versions_that_the_files_are_named_by_are_alembics() -> None:
    scripts = ScriptDirectory(str(migrations.SCRIPTS)).walk_revisions()
    assert list(migrations._versions()) == [script.revision for script in scripts][::-1]


def test_who_only_looks_at_the_version_does_not_import_alembic() -> None:
    code = "import sys, distribute.web, distribute.dispatcher, execute_engine.consumer; print('alembic' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert printed.stdout == "False\n"


def test_a_missing_schema_is_outdated_and_only_looked_at(empty: Database) -> None:
    with pytest.raises(SchemaOutdated, match=f"expected the database schema {HEAD}, found none: start distribute"):
        migrations.check(empty)
    assert schema(empty) == {}


def test_an_older_schema_is_outdated(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "_versions", lambda: (HEAD, "9999"))
    with pytest.raises(SchemaOutdated, match=f"expected the database schema 9999, found {HEAD}: start distribute"):
        migrations.check(database)


def test_a_lock_that_is_held_too_long_is_named(mariadb: MariaDB, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "LOCK_TIMEOUT_SECONDS", 0)
    with created(mariadb) as settings, opened(settings) as database, opened(settings) as other:

        def upgrade_meanwhile(connection: sa.Connection) -> str:
            name = f"execute_engine {settings.database}"
            assert connection.scalar(sa.text("SELECT GET_LOCK(:name, 0)"), {"name": name}) == 1
            with pytest.raises(DatabaseAway, match="another process has been upgrading") as caught:
                migrations.upgrade(database)
            return str(caught.value)

        problem = other.read(upgrade_meanwhile)
        assert f"SELECT IS_USED_LOCK('execute_engine {settings.database}')" in problem
        other.close()  # the lock ends with its connection, however that ends
        migrations.upgrade(database)
        migrations.check(database)


def test_alembic_finds_no_difference_between_the_migrations_and_the_code(database: Database) -> None:
    def differences(connection: sa.Connection) -> list[Any]:
        options = {"compare_type": True, "compare_server_default": True}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), tables.metadata))

    assert database.read(differences) == []


def test_the_migrations_make_the_same_tables_as_the_code_would(database: Database) -> None:
    migrated = schema(database)
    del migrated["alembic_version"]
    database.write(tables.metadata.drop_all)
    database.write(tables.metadata.create_all)
    made_by_the_code = schema(database)
    del made_by_the_code["alembic_version"]
    assert migrated == made_by_the_code


@pytest.mark.parametrize("options", ["CHARACTER SET latin1", "CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci"])
def test_ids_are_compared_by_case_whatever_the_database_s_own_collation_is(mariadb: MariaDB, options: str) -> None:
    ascii_columns = {
        (table.name, column.name)
        for table in tables.metadata.tables.values()
        for column in table.columns
        if getattr(column.type.dialect_impl(mysql.dialect()), "collation", None) == "ascii_bin"
    }
    assert {("task", "id"), ("host_result", "host"), ("unit", "incarnation"), ("host_key", "host")} <= ascii_columns
    with created(mariadb, options) as settings, opened(settings) as database:
        migrations.upgrade(database)
        found = rows(
            database,
            "SELECT table_name, column_name, collation_name FROM information_schema.columns WHERE table_schema = :name"
            " AND collation_name IS NOT NULL AND table_name != 'alembic_version'",
            name=settings.database,
        )
    assert {row[:2] for row in found if row[2] == "ascii_bin"} == ascii_columns
    assert {row[2] for row in found} == {"ascii_bin", "utf8mb4_bin"}


def test_two_ids_that_differ_by_case_are_two(database: Database) -> None:
    add = "INSERT INTO leader (name, holder, beat) VALUES (:name, '', 0)"
    for name in ("Id", "id"):
        execute(database, add, name=name)
    assert rows(database, "SELECT COUNT(*) FROM leader WHERE name = 'id'") == [(1,)]


def test_schema_sql_is_what_the_migrations_make(mariadb: MariaDB, mariadb_settings: DatabaseSettings) -> None:
    with created(mariadb) as settings, opened(settings) as by_hand, opened(mariadb_settings) as migrated:
        mariadb.sql(f"USE {settings.database};\n{SCHEMA_SQL.read_text()}")
        assert schema(by_hand) == schema(migrated)
        assert version(by_hand) == version(migrated)
        migrations.check(by_hand)
