"""Databases beside those of the fixtures: without a schema, or on a server of the test's own."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from contract.config import DatabaseSettings
from contract.database import Database
from tests.servers.mariadb import PASSWORD, USER, MariaDB


def settings_on(server: MariaDB, name: str) -> DatabaseSettings:
    return DatabaseSettings(ip="127.0.0.1", port=server.port, database=name, user=USER, password=PASSWORD)


def create(server: MariaDB, options: str = "") -> DatabaseSettings:
    """An empty database with a name of its own; options are those of CREATE DATABASE."""
    name = f"ee_{secrets.token_hex(6)}"
    server.sql(f"CREATE DATABASE {name} {options}")
    return settings_on(server, name)


@contextmanager
def created(server: MariaDB, options: str = "") -> Iterator[DatabaseSettings]:
    settings = create(server, options)
    yield settings
    server.sql(f"DROP DATABASE {settings.database}")


def rows(database: Database, query: str, **parameters: Any) -> list[tuple[Any, ...]]:
    return database.read(lambda connection: [tuple(row) for row in connection.execute(sa.text(query), parameters)])


def execute(database: Database, statement: str, **parameters: Any) -> int:
    """Returns the row count."""
    return database.write(lambda connection: connection.execute(sa.text(statement), parameters).rowcount)
