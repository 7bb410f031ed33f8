"""Fixtures of all tests. What a test may ask for:

Servers, one each for the whole run, those that the run needs started side by side at the first use:
    mariadb            tests.servers.mariadb.MariaDB: .port, .sql(text) as root
    kafka              tests.servers.kafka.KafkaCluster of one broker: .bootstrap
    fleet              tests.servers.fleet.Fleet, hosts of every kind: .port, .key, .user, .hosts(kind, count)
    git_server         tests.servers.git.GitServer on the fleet: .create(name, files), .ssh_url(name), .https_url(name)
    zabbix             tests.servers.zabbix.Zabbix: .url, .trapper_port, .api() as administrator
                       (these two start when they are asked for)
    serve(answer)      a tests.servers.trapper.TrapperServer that answers so, as many as are asked for
A test that kills, pauses or fills a server builds one of its own in `server_directory`.

What is fresh for each test:
    database_settings  DatabaseSettings of an empty, migrated database; runs the test on "sqlite" and on "mariadb"
    sqlite_settings, mariadb_settings   the same, of one kind
    database           Database(database_settings)
    topic              a topic name that nobody has used; the topic is not created
    backend            tests.daemons.Backend: "embedded" (SQLite, no Kafka) and "cluster" (MariaDB, Kafka), on request
                       also "sqlite and kafka" and "mariadb alone";
                       .config_file(engine_id=..., Exec_Engine={"SLOTS": 60}) writes a complete server.conf
    services           tests.daemons.Services on that backend: real daemons, and a client for them
    server_directory   a short-named directory for a server of the test's own

Tests that kill processes at random moments are marked `kill`: they run three times in CI, and N times with
`--kill-rounds N`.

To run on one backend only:  @pytest.mark.parametrize("backend", ["cluster"], indirect=True)
and in the same way for database_settings. A server that cannot be had skips the test with its reason; with CI=true a
skip, an xfail and an xpass fail the run.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from contract.config import DatabaseSettings
from contract.database import Database
from tests.daemons import Backend, Services
from tests.servers import mariadb as mariadb_server
from tests.servers.fixtures import while_started
from tests.servers.fleet import Fleet
from tests.servers.git import GitServer
from tests.servers.kafka import KafkaCluster, close_dropped_sockets
from tests.servers.link import Link
from tests.servers.mariadb import MariaDB
from tests.servers.process import ServerMissing
from tests.servers.trapper import Answer, Serve, TrapperServer
from tests.servers.zabbix import Zabbix

Server = MariaDB | KafkaCluster | Fleet
SERVERS: dict[str, type[Server]] = {"mariadb": MariaDB, "kafka": KafkaCluster, "fleet": Fleet}
BACKENDS = {  # the servers of each
    "embedded": frozenset[str](),
    "cluster": frozenset(("mariadb", "kafka")),
    "sqlite and kafka": frozenset(("kafka",)),
    "mariadb alone": frozenset(("mariadb",)),
}
NEEDED = pytest.StashKey[set[str]]()
REPORTS = pytest.StashKey[dict[str, pytest.TestReport]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    rounds = 3 if os.environ.get("CI") == "true" else 1
    words = f"how often each test marked kill is run, {rounds} unless told"
    parser.addoption("--kill-rounds", type=int, default=rounds, metavar="N", help=words)
    parser.addoption("--fault-seed", type=int, default=7, metavar="N", help="of the fault test's schedule and load")
    parser.addoption("--fault-seconds", type=float, default=45.0, metavar="S", help="how long faults are injected")
    parser.addoption("--zabbix-picture", type=Path, metavar="FILE", help="keep the dashboard, after a load of minutes")


def pytest_configure() -> None:
    close_dropped_sockets()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    rounds = metafunc.config.getoption("kill_rounds")
    if rounds > 1 and metafunc.definition.get_closest_marker("kill"):
        metafunc.fixturenames.append("kill_round")
        metafunc.parametrize("kill_round", range(1, rounds + 1))


def pytest_collection_finish(session: pytest.Session) -> None:
    session.config.stash[NEEDED] = {name for item in session.items for name in _servers_of(item)}


def _servers_of(item: pytest.Item) -> set[str]:
    names = set(getattr(item, "fixturenames", ()))
    parameters = getattr(item, "callspec").params.values() if hasattr(item, "callspec") else ()  # noqa: B009
    backends = {value for value in parameters if isinstance(value, str)}
    needed = names & SERVERS.keys()
    if "mariadb" in backends or "mariadb_settings" in names:
        needed.add("mariadb")
    for backend in backends & BACKENDS.keys():
        needed |= BACKENDS[backend]
    if "services" in names:
        needed.add("fleet")
    return needed


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    item.stash.setdefault(REPORTS, {})[report.when] = report
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI nothing may be left out: what was skipped was not tested."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    left_out = sum(len(reporter.stats.get(kind, ())) for kind in ("skipped", "xfailed", "xpassed")) if reporter else 0
    if os.environ.get("CI") == "true" and left_out and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    left_out = [kind for kind in ("skipped", "xfailed", "xpassed") if terminalreporter.stats.get(kind)]
    if os.environ.get("CI") == "true" and left_out:
        terminalreporter.write_line(f"CI=true: the run fails, because tests were {' and '.join(left_out)}", red=True)


@pytest.fixture
def server_directory() -> Iterator[Path]:
    """Short, because the path of a socket ends at 107 characters."""
    with tempfile.TemporaryDirectory(prefix="ee-", ignore_cleanup_errors=True) as directory:
        yield Path(directory)


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[Server]]]:
    """Every server that a test of this run asks for, being started."""

    def start(name: str) -> Server:
        directory = Path(root) / name
        directory.mkdir()
        started[name] = server = SERVERS[name](directory)
        server.start()
        return server

    started: dict[str, Server] = {}
    with tempfile.TemporaryDirectory(prefix="ee-", ignore_cleanup_errors=True) as root:
        with ThreadPoolExecutor() as pool:
            yield {name: pool.submit(start, name) for name in request.config.stash[NEEDED]}
        for server in started.values():
            server.stop()


def _server(servers: dict[str, Future[Server]], name: str) -> Server:
    try:
        return servers[name].result()
    except ServerMissing as exc:
        pytest.skip(str(exc))


@pytest.fixture(scope="session")
def mariadb(servers: dict[str, Future[Server]]) -> MariaDB:
    return cast(MariaDB, _server(servers, "mariadb"))


@pytest.fixture
def mariadb_link(mariadb: MariaDB) -> Iterator[Link]:
    """A way of its own to the server, to be slowed down or cut."""
    link = Link(mariadb.port)
    yield link
    link.close()


@pytest.fixture(scope="session")
def kafka(servers: dict[str, Future[Server]]) -> KafkaCluster:
    return cast(KafkaCluster, _server(servers, "kafka"))


@pytest.fixture(scope="session")
def fleet(servers: dict[str, Future[Server]]) -> Fleet:
    return cast(Fleet, _server(servers, "fleet"))


@pytest.fixture(scope="session")
def git_server(fleet: Fleet) -> Iterator[GitServer]:
    with tempfile.TemporaryDirectory(prefix="ee-", ignore_cleanup_errors=True) as directory:
        yield from while_started(GitServer(Path(directory), fleet))


@pytest.fixture(scope="session")
def zabbix() -> Iterator[Zabbix]:
    with tempfile.TemporaryDirectory(prefix="ee-", ignore_cleanup_errors=True) as directory:
        yield from while_started(Zabbix(Path(directory)))


@pytest.fixture
def serve() -> Iterator[Serve]:
    made: list[TrapperServer] = []

    def serve(answer: Answer) -> TrapperServer:
        made.append(TrapperServer(answer))
        return made[-1]

    yield serve
    for server in made:
        server.close()


@pytest.fixture
def topic() -> str:
    return f"units-{secrets.token_hex(6)}"


@pytest.fixture
def sqlite_settings(tmp_path: Path) -> DatabaseSettings:
    settings = DatabaseSettings(sqlite_file=tmp_path / "fresh.db")
    _migrate(settings)
    return settings


@pytest.fixture
def mariadb_settings(mariadb: MariaDB) -> Iterator[DatabaseSettings]:
    name = f"ee_{secrets.token_hex(6)}"
    mariadb.sql(f"CREATE DATABASE {name}")
    settings = DatabaseSettings(
        ip="127.0.0.1", port=mariadb.port, database=name, user=mariadb_server.USER, password=mariadb_server.PASSWORD
    )
    _migrate(settings)
    yield settings
    mariadb.sql(f"DROP DATABASE {name}")


def _migrate(settings: DatabaseSettings) -> None:
    from contract.migrations import upgrade

    database = Database(settings)
    upgrade(database)
    database.close()


@pytest.fixture(params=["sqlite", "mariadb"])
def database_settings(request: pytest.FixtureRequest) -> DatabaseSettings:
    return cast(DatabaseSettings, request.getfixturevalue(f"{request.param}_settings"))


@pytest.fixture
def database(database_settings: DatabaseSettings) -> Iterator[Database]:
    database = Database(database_settings)
    yield database
    database.close()


@pytest.fixture(params=["embedded", "cluster"])
def backend(request: pytest.FixtureRequest, tmp_path: Path, topic: str) -> Backend:
    """With the fleet's port and key in its configuration where the test uses the fleet or starts services."""
    servers = BACKENDS[request.param]
    settings = request.getfixturevalue("mariadb_settings" if "mariadb" in servers else "sqlite_settings")
    backend = Backend(str(request.param), tmp_path, topic, settings)
    if "kafka" in servers:
        backend = replace(backend, kafka=request.getfixturevalue("kafka").bootstrap)
    if {"fleet", "services"} & set(request.fixturenames):
        backend = replace(backend, fleet=request.getfixturevalue("fleet"))
    return backend


@pytest.fixture
def services(request: pytest.FixtureRequest, backend: Backend) -> Iterator[Services]:
    services = Services(backend)
    yield services
    report = request.node.stash.get(REPORTS, dict[str, Any]()).get("call")
    try:
        services.stop()
    finally:
        if report is None or report.failed:
            print(services.logs())
