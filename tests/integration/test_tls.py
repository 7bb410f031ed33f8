"""MySQL and Kafka by TLS: the server with the right certificate is used, any other one refused with its reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from contract import migrations
from contract.config import DatabaseSettings
from contract.database import Database
from contract.errors import DatabaseAway
from tests.integration.databases import create, rows
from tests.servers.certificates import Authority
from tests.servers.mariadb import MariaDB

ADDRESS = "127.0.0.1"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


# --- MySQL


def with_certificate(server: MariaDB, certificate: Path, key: Path) -> DatabaseSettings:
    """Start it with this certificate; it takes nobody in who does not use TLS."""
    server.start(f"--ssl-cert={certificate}", f"--ssl-key={key}", "--require-secure-transport=ON")
    return create(server)


@pytest.fixture
def own_mariadb(server_directory: Path) -> Iterator[MariaDB]:
    server = MariaDB(server_directory)
    yield server
    server.stop()


def refusal(settings: DatabaseSettings) -> str:
    """Why the server is not used; a call that succeeds fails the test."""
    database = Database(settings)
    try:
        with pytest.raises(DatabaseAway) as refused:
            rows(database, "SELECT 1")
    finally:
        database.close()
    return str(refused.value)


def test_the_database_is_used_by_tls_and_only_with_a_certificate_of_its_authority(
    own_mariadb: MariaDB, authority: Authority, tmp_path: Path
) -> None:
    settings = replace(with_certificate(own_mariadb, *authority.issue("server", ADDRESS)), ssl_ca=authority.certificate)
    database = Database(settings)
    migrations.upgrade(database)
    ((_, cipher),) = rows(database, "SHOW STATUS LIKE 'Ssl_cipher'")
    database.close()
    assert cipher.startswith("TLS_")

    other = Authority(tmp_path, "other")
    assert "certificate verify failed" in refusal(replace(settings, ssl_ca=other.certificate))


@pytest.mark.parametrize(
    ("hosts", "days", "reason"),
    [
        (("db.example.com",), 1, "IP address mismatch, certificate is not valid for '127.0.0.1'"),
        ((ADDRESS,), -1, "certificate has expired"),
    ],
)
def test_a_database_of_another_name_or_with_an_expired_certificate_is_refused(
    own_mariadb: MariaDB, authority: Authority, hosts: tuple[str, ...], days: int, reason: str
) -> None:
    settings = with_certificate(own_mariadb, *authority.issue("server", *hosts, days=days))
    assert reason in refusal(replace(settings, ssl_ca=authority.certificate))


def test_a_database_without_tls_is_refused_where_a_certificate_is_asked_for(
    mariadb_settings: DatabaseSettings, authority: Authority
) -> None:
    """Somebody between the two who takes TLS out of the greeting gets no password."""
    assert "SSL is required" in refusal(replace(mariadb_settings, ssl_ca=authority.certificate))
