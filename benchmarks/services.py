"""What a scenario runs on: a private ssh fleet, MariaDB and Kafka, and the real services, all gone at its end."""

from __future__ import annotations

import contextlib
import secrets
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from contract.config import DatabaseSettings
from contract.database import Database
from contract.migrations import upgrade
from tests.daemons import Backend, Services
from tests.servers import mariadb as mariadb_server
from tests.servers.fleet import Fleet
from tests.servers.git import GitServer
from tests.servers.kafka import KafkaCluster
from tests.servers.mariadb import MariaDB

ORDINARY = {"LEASE_SECONDS": 30, "DRAIN_SECONDS": 30}  # as shipped; tests have shorter ones


class Bench:
    """The servers of one run. mariadb and kafka are None on the embedded default."""

    def __init__(self, directory: Path, fleet: Fleet, mariadb: MariaDB | None, kafka: KafkaCluster | None) -> None:
        self.directory = directory
        self.fleet = fleet
        self.mariadb = mariadb
        self.kafka = kafka

    @contextlib.contextmanager
    def services(
        self, name: str = "services", engines: int = 1, distributes: int = 1, **sections: Mapping[str, object]
    ) -> Iterator[Services]:
        """distribute and engines on a fresh database and topic; sections override the configuration.

        Blocks until all of them are ready. The block may start and stop more of them, with engines=0 all of them.
        """
        directory = self.directory / name
        directory.mkdir()
        kafka = self.kafka.bootstrap if self.kafka else None
        services = Services(Backend(name, directory, f"{name}-units", self.database(name), kafka, self.fleet))
        try:
            services.start(engines, distributes, **self.sections(sections))
            yield services
        except BaseException:
            print(services.logs(), file=sys.stderr)
            raise
        finally:
            services.stop()

    @contextlib.contextmanager
    def git_project(self, group: str, name: str, files: Mapping[str, bytes]) -> Iterator[dict[str, object]]:
        """A git server of the fleet's with this project alone; [Gitlab] of services that clone from it."""
        directory = self.directory / "git"
        directory.mkdir()
        server = GitServer(directory, self.fleet)
        try:
            server.start()
            server.create(f"{group}/{name}", files)
            (address,) = self.fleet.hosts()
            login = {"SSH_KEY_FILE": self.fleet.key, "URL_TEMPLATE": server.ssh_template}
            yield {"IP": address, "GROUP": group, **login}
        finally:
            server.stop()

    def database(self, name: str) -> DatabaseSettings:
        """Of a fresh, migrated database."""
        if self.mariadb is None:
            settings = DatabaseSettings(sqlite_file=self.directory / f"{name}.db")
        else:
            own = f"ee_{secrets.token_hex(6)}"
            self.mariadb.sql(f"CREATE DATABASE {own}")
            settings = DatabaseSettings(
                ip="127.0.0.1", port=self.mariadb.port, database=own,
                user=mariadb_server.USER, password=mariadb_server.PASSWORD,
            )  # fmt: skip
        database = Database(settings)
        upgrade(database)
        database.close()
        return settings

    def sections(self, given: Mapping[str, Mapping[str, object]]) -> dict[str, dict[str, object]]:
        """given, and what the services are measured with unless it says otherwise."""
        sections: dict[str, dict[str, object]] = {
            "Ansible": {"HOST_KEY_CHECKING": "no"},
            "Exec_Engine": dict(ORDINARY),
        }
        for section, keys in given.items():
            sections.setdefault(section, {}).update(keys)
        return sections


@contextlib.contextmanager
def bench(*, embedded: bool = False) -> Iterator[Bench]:
    """The servers, started side by side: the fleet, and MariaDB and Kafka unless embedded. Blocks until they answer."""
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ee-bench-", ignore_cleanup_errors=True)))

        def directory(name: str) -> Path:
            (scratch / name).mkdir()
            return scratch / name

        fleet = Fleet(directory("fleet"))
        mariadb = None if embedded else MariaDB(directory("m"))
        kafka = None if embedded else KafkaCluster(directory("kafka"))
        with ThreadPoolExecutor() as threads:
            started = []
            for server in (fleet, mariadb, kafka):
                if server is not None:
                    stack.callback(server.stop)
                    started.append(threads.submit(server.start))
            for each in started:
                each.result()
        yield Bench(scratch, fleet, mariadb, kafka)
