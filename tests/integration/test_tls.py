"""MySQL and Kafka by TLS: the server with the right certificate is used, any other one refused with its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from contract import migrations
from contract.config import DatabaseSettings, KafkaSettings
from contract.database import Database
from contract.errors import DatabaseAway
from contract.message import UnitMessage
from distribute import publisher
from distribute.publisher import Outcome, Publisher
from execute_engine import subscription
from execute_engine.subscription import Subscription
from tests.integration.databases import create, rows
from tests.integration.test_publisher import outcomes_of
from tests.integration.test_subscription import take
from tests.servers import kafka as kafka_server
from tests.servers.certificates import Authority
from tests.servers.kafka import KafkaCluster
from tests.servers.mariadb import MariaDB
from tests.servers.process import wait_for

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


# --- Kafka


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[KafkaCluster, Authority]]:
    directory = tmp_path_factory.mktemp("kafka")
    authority = Authority(directory)
    cluster = KafkaCluster(directory, authority)
    cluster.start()
    yield cluster, authority
    cluster.stop()


@pytest.fixture
def kafka_settings(brokers: tuple[KafkaCluster, Authority], topic: str) -> KafkaSettings:
    cluster, authority = brokers
    return KafkaSettings(
        bootstrap_servers=(cluster.bootstrap,), topic=topic, group_id=topic, partitions=2,
        security_protocol="SASL_SSL", sasl_mechanism=kafka_server.MECHANISM, sasl_username=kafka_server.USER,
        sasl_password=kafka_server.PASSWORD, ssl_cafile=authority.certificate,
    )  # fmt: skip


def test_a_topic_is_made_and_a_unit_goes_from_one_service_to_the_other_by_tls_and_scram(
    kafka_settings: KafkaSettings,
) -> None:
    sender, receiver = Publisher(kafka_settings), Subscription(kafka_settings, "engine-1", lambda: None)
    sender.start()
    wait_for("the publisher to be connected", lambda: not sender.problem())
    receiver.start()
    message = UnitMessage(1, "t", "adhoc", 1, 30)
    assert outcomes_of(sender, [message]) == [Outcome(1, True)]
    delivery = take(receiver)
    assert delivery.message == message
    receiver.done(delivery)
    assert sender.partitions == 2
    sender.close()
    receiver.close()
    sender.join(30)
    assert receiver.join(30)


WRONG = [
    ("another authority", "certificate verify failed: unable to get local issuer certificate"),
    ("another name", "certificate verify failed: Hostname mismatch, certificate is not valid for 'localhost'"),
    ("a wrong password", "invalid credentials with SASL mechanism SCRAM-SHA-512"),
]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both clients give up sooner than in a service."""
    for module in (publisher, subscription):
        usual: Callable[..., dict[str, object]] = module.client_arguments
        monkeypatch.setattr(
            module, "client_arguments", lambda *given, usual=usual: {**usual(*given), "bootstrap_timeout_ms": 2000}
        )


@pytest.mark.parametrize(("wrong", "reason"), WRONG, ids=[wrong for wrong, _ in WRONG])
def test_a_broker_that_is_not_the_right_one_is_refused_by_both_services(
    kafka_settings: KafkaSettings, tmp_path: Path, impatient: None, wrong: str, reason: str
) -> None:
    settings = {
        "another authority": replace(kafka_settings, ssl_cafile=Authority(tmp_path, "other").certificate),
        "another name": replace(
            kafka_settings, bootstrap_servers=(kafka_settings.bootstrap_servers[0].replace(ADDRESS, "localhost"),)
        ),
        "a wrong password": replace(kafka_settings, sasl_password="guessed"),
    }[wrong]
    for client in (Publisher(settings), Subscription(settings, "engine-1", lambda: None)):
        client.start()
        wait_for(f"{wrong} to be told", partial(told, client, reason))
        client.close()
        client.join(30)
        assert not client._thread.is_alive()


def told(client: Publisher | Subscription, reason: str) -> bool:
    return reason in (client.problem() or "")
