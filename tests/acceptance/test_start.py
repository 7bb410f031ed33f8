"""Services that start while something is missing: they wait, say what for, and go on by themselves."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from kafka import KafkaConsumer, TopicPartition

from contract.message import UnitMessage
from tests.acceptance.service_manager import ServiceManager
from tests.daemons import Backend, Daemon, Services
from tests.integration.databases import create
from tests.integration.test_subscription import send
from tests.servers.fleet import Fleet
from tests.servers.kafka import KafkaCluster
from tests.servers.mariadb import MariaDB
from tests.servers.process import wait_for

CLUSTER = pytest.mark.parametrize("backend", ["cluster"], indirect=True)


def launch_engine(services: Services, config: Path, env: dict[str, str] | None = None) -> Daemon:
    """Unlike services.start_engine it does not wait for anything."""
    return _launch(services, "execute_engine", config, services.engines, env)


def launch_distribute(services: Services, config: Path, env: dict[str, str] | None = None) -> Daemon:
    return _launch(services, "distribute", config, services.distributes, env)


def _launch(services: Services, module: str, config: Path, among: list[Daemon], env: dict[str, str] | None) -> Daemon:
    name = f"{module}-{len(among) + 1}"
    daemon = Daemon(services.backend.directory, name, module, config, secrets.token_hex(8))
    among.append(daemon)
    daemon.launch(env)
    return daemon


def consumer_of(engine: Daemon) -> int:
    """The process id of its consumer."""
    (pid,) = engine.processes("execute-engine: consumer")
    return pid


def wait_log(daemon: Daemon, *texts: str) -> None:
    """Until one line of the log holds all of them."""

    def said() -> bool:
        lines = daemon.log_file.read_text(errors="replace").splitlines()
        return any(all(text in line for text in texts) for line in lines)

    daemon.wait_until(said)


def wait_live(services: Services, engine_id: str = "engine-1") -> None:
    wait_for("the engine to be live", lambda: services.live_incarnations(engine_id))


@contextmanager
def running_on(backend: Backend) -> Iterator[Services]:
    """As the fixture `services`, on a backend of the test's own."""
    services = Services(backend)
    try:
        yield services
    except BaseException:
        print(services.logs())
        raise
    finally:
        services.stop()


@pytest.fixture
def own_mariadb(server_directory: Path) -> Iterator[MariaDB]:
    server = MariaDB(server_directory)
    server.start()
    yield server
    server.stop()


@pytest.mark.parametrize("how", ["down", "hanging"])
@CLUSTER
def test_services_that_start_before_mysql_wait_for_it_and_say_so(
    backend: Backend, fleet: Fleet, own_mariadb: MariaDB, service_manager: ServiceManager, how: str
) -> None:
    with running_on(replace(backend, database_settings=create(own_mariadb))) as services:
        config = services.backend.config_file()
        if how == "down":
            own_mariadb.stop()
        else:
            own_mariadb.pause()
        engine = launch_engine(services, config, service_manager.environment)
        distribute = launch_distribute(services, config)
        wait_log(engine, "msg=waiting", 'what="the database"')
        wait_log(distribute, "process=dispatcher", "waiting for the database")
        wait_for("the status", lambda: service_manager.has_heard("waiting for the database for "))
        consumer = consumer_of(engine)
        wait_for("the engine to be ready", lambda: service_manager.has_heard("READY=1"))

        if how == "down":
            own_mariadb.start()
        else:
            own_mariadb.resume()
        services.wait_distribute(distribute)
        wait_live(services)
        assert consumer_of(engine) == consumer  # it has waited, and was not started again
        task = services.submit_adhoc(fleet.hosts("healthy", 2))
        assert services.wait_task(task)["counts"]["success"] == 2


@pytest.fixture
def no_schema(request: pytest.FixtureRequest, backend: Backend) -> None:
    """The backend's database is as empty as on the day of its installation."""
    settings = backend.database_settings
    if settings.ip:
        server: MariaDB = request.getfixturevalue("mariadb")
        server.sql(f"DROP DATABASE {settings.database}; CREATE DATABASE {settings.database}")
    else:
        for file in settings.sqlite_file.parent.glob(f"{settings.sqlite_file.name}*"):
            file.unlink()


def test_an_engine_that_starts_before_distribute_waits_for_the_schema(
    no_schema: None, services: Services, fleet: Fleet
) -> None:
    config = services.backend.config_file()
    engine = launch_engine(services, config)
    wait_log(engine, 'what="the database"', "found none: start distribute, which upgrades it")
    consumer = consumer_of(engine)

    services.start_distribute(config)
    wait_live(services)
    assert consumer_of(engine) == consumer
    task = services.submit_adhoc(fleet.hosts("healthy", 2))
    assert services.wait_task(task)["counts"]["success"] == 2


@CLUSTER
def test_an_engine_that_waits_for_one_thing_after_the_other_names_each(backend: Backend, own_mariadb: MariaDB) -> None:
    with running_on(replace(backend, database_settings=create(own_mariadb))) as services:
        own_mariadb.stop()
        engine = launch_engine(services, services.backend.config_file())
        wait_log(engine, "msg=waiting", "Can't connect to MySQL server")
        own_mariadb.start()
        wait_log(engine, "msg=waiting", "found none: start distribute")


@CLUSTER
def test_tasks_that_came_while_kafka_was_away_run_when_it_is_there(
    backend: Backend, fleet: Fleet, server_directory: Path
) -> None:
    cluster = KafkaCluster(server_directory)
    cluster.start()
    cluster.stop()
    try:
        with running_on(replace(backend, kafka=cluster.bootstrap)) as services:
            services.start()
            task = services.submit_adhoc(fleet.hosts("healthy", 3))
            wait_for("the engine to say what is missing", lambda: services.api("/engines/")["data"][0]["missing"])
            missing = services.api("/engines/")["data"][0]["missing"]
            assert missing.startswith(f"waiting for Kafka {cluster.bootstrap} for ")
            wait_log(services.distribute, "process=dispatcher", "Kafka cannot be used, trying again")
            assert services.task(task)["counts"]["queued"] == 3
            consumer = consumer_of(services.engines[0])

            cluster.start()
            assert services.wait_task(task)["counts"]["success"] == 3
            assert consumer_of(services.engines[0]) == consumer
            wait_for("nothing to be missing", lambda: not services.api("/engines/")["data"][0]["missing"])
    finally:
        cluster.stop()


def test_a_second_engine_of_the_same_id_is_refused_while_the_first_one_lives(services: Services, fleet: Fleet) -> None:
    services.start()
    first = services.live_incarnations("engine-1")
    second = launch_engine(services, services.backend.config_file("engine-2", Exec_Engine={"ENGINE_ID": "engine-1"}))
    expected = f"expected to be the only engine 'engine-1', found one alive on {socket.gethostname()}"
    wait_log(second, "process=consumer", "the engine cannot go on", expected, "ENGINE_ID of its own")
    wait_log(second, "process=supervisor", "child=consumer", 'reason="exit status 1"')
    assert services.live_incarnations("engine-1") == first
    task = services.submit_adhoc(fleet.hosts("healthy", 2))
    assert services.wait_task(task)["counts"]["success"] == 2

    services.engines[0].stop()
    wait_for("the second one to take its place", lambda: services.live_incarnations("engine-1") - first)
    task = services.submit_adhoc(fleet.hosts("healthy", 2))
    assert services.wait_task(task)["counts"]["success"] == 2


@CLUSTER
def test_messages_that_name_no_unit_of_ours_are_logged_committed_and_passed_over(
    services: Services, fleet: Fleet
) -> None:
    services.start(Kafka_Cluster={"PARTITIONS": 2})
    backend = services.backend
    assert backend.kafka
    task = services.submit_adhoc(fleet.hosts("healthy", 2))
    assert services.wait_task(task)["counts"]["success"] == 2

    unknown = UnitMessage(987654321, "t", "adhoc", 1, 30).encode()
    values = [os.urandom(200), b"", unknown.replace(b'"version":1', b'"version":2'), unknown]
    for partition in (0, 1):
        send(backend.kafka, backend.topic, *values, partition=partition)

    (engine,) = services.engines
    wait_log(engine, "not understood", "count=6")
    wait_log(engine, "unit=987654321", "count=2")
    wait_for("every message to be committed", lambda: lag(backend) == 0)
    task = services.submit_adhoc(fleet.hosts("healthy", 2))
    assert services.wait_task(task)["counts"]["success"] == 2
    wait_for("the last one too", lambda: lag(backend) == 0)
    assert len(engine.processes("execute-engine: consumer")) == 1


def lag(backend: Backend) -> int:
    """Messages of the topic that the engines' group has not committed."""
    servers = [backend.kafka]
    partitions = [TopicPartition(backend.topic, number) for number in (0, 1)]
    consumer = KafkaConsumer(bootstrap_servers=servers, group_id=backend.topic)
    try:
        ends = consumer.end_offsets(partitions)
        return sum(ends[partition] - (consumer.committed(partition) or 0) for partition in partitions)
    finally:
        consumer.close()
