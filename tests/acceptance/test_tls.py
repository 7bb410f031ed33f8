"""Client, distribute, MySQL, Kafka and engines by TLS; and what the services say where a CA file is the wrong one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from contract.config import DatabaseSettings
from tests.acceptance.service_manager import ServiceManager
from tests.acceptance.test_start import (
    launch_distribute,
    launch_engine,
    running_on,
    wait_live,
    wait_log,
)
from tests.daemons import BASE_PATH, ROOT, Backend, Services
from tests.integration.databases import create
from tests.servers import kafka as kafka_server
from tests.servers.certificates import Authority
from tests.servers.fleet import Fleet
from tests.servers.kafka import KafkaCluster
from tests.servers.mariadb import MariaDB
from tests.servers.nginx import Nginx
from tests.servers.process import wait_for

ADDRESS = "127.0.0.1"
REASON = "certificate verify failed"


@dataclass(frozen=True)
class Secured:
    """Servers that speak TLS alone, with certificates of one authority; the CA files are what the services read."""

    settings: DatabaseSettings
    bootstrap: str
    authority: Authority
    mysql_ca: Path
    kafka_ca: Path

    def sections(self) -> dict[str, dict[str, object]]:
        return {
            "Fil_EXEC_MySQL": {"SSL_CA": self.mysql_ca},
            "Kafka_Cluster": {
                "SECURITY_PROTOCOL": "SASL_SSL",
                "SASL_MECHANISM": kafka_server.MECHANISM,
                "SASL_USERNAME": kafka_server.USER,
                "SASL_PASSWORD": kafka_server.PASSWORD,
                "SSL_CAFILE": self.kafka_ca,
            },
        }


@pytest.fixture
def secured(server_directory: Path, tmp_path: Path) -> Iterator[Secured]:
    """Both CA files hold another authority's certificate."""
    authority, other = Authority(server_directory), Authority(server_directory, "other")
    certificate, key = authority.issue("mysql", ADDRESS)
    mariadb, kafka = MariaDB(server_directory), KafkaCluster(server_directory, authority)
    mysql_ca, kafka_ca = (shutil.copy(other.certificate, tmp_path / f"{name}-ca.pem") for name in ("mysql", "kafka"))
    try:
        with ThreadPoolExecutor() as pool:
            started = pool.submit(kafka.start)
            mariadb.start(f"--ssl-cert={certificate}", f"--ssl-key={key}", "--require-secure-transport=ON")
            started.result()
        settings = replace(create(mariadb), ssl_ca=authority.certificate)
        yield Secured(settings, kafka.bootstrap, authority, mysql_ca, kafka_ca)
    finally:
        kafka.stop()
        mariadb.stop()


@pytest.fixture
def services(secured: Secured, fleet: Fleet, tmp_path: Path, topic: str) -> Iterator[Services]:
    backend = Backend("cluster", tmp_path, topic, secured.settings, secured.bootstrap, fleet)
    with running_on(backend) as services:
        yield services


@pytest.fixture
def managers(server_directory: Path) -> Iterator[list[ServiceManager]]:
    """What distribute tells its service manager, and what the engine does."""
    managers = []
    for name in ("distribute", "engine"):
        (server_directory / name).mkdir()
        managers.append(ServiceManager(server_directory / name))
    yield managers
    for manager in managers:
        manager.close()


class Client(requests.Session):
    """Of the API at nginx, with a token."""

    def __init__(self, nginx: Nginx, token: str) -> None:
        super().__init__()
        self.trust_env = False  # REQUESTS_CA_BUNDLE would take the place of verify
        self.verify = str(nginx.authority.certificate)
        self.headers["Authorization"] = f"Bearer {token}"
        self._base = f"https://{ADDRESS}:{nginx.port}{BASE_PATH}"

    def call(self, path: str, json: object = None) -> Any:
        answer = self.request("GET" if json is None else "POST", self._base + path, json=json, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]


@pytest.fixture
def nginx(server_directory: Path, secured: Secured) -> Iterator[Nginx]:
    nginx = Nginx(server_directory, secured.authority)
    yield nginx
    nginx.stop()


def make_token(config: Path, name: str) -> str:
    command = [sys.executable, "-m", "distribute", "token", "add", name, "--role", "submit", "--config", str(config)]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


def test_a_task_goes_by_tls_from_the_client_to_the_host_and_waits_while_a_ca_file_is_wrong(
    secured: Secured, services: Services, managers: list[ServiceManager], nginx: Nginx, fleet: Fleet, tmp_path: Path
) -> None:
    config = services.backend.config_file(**secured.sections(), Distribute={"TOKENS_FILE": tmp_path / "tokens"})
    token = make_token(config, "tester")
    distribute, engine = (
        launch(services, config, manager.environment)
        for launch, manager in zip((launch_distribute, launch_engine), managers, strict=True)
    )

    def both_say(*texts: str) -> None:
        for manager in managers:
            wait_for(f"{texts} in the status", partial(manager.has_heard, "STATUS=", *texts))

    def restart_both() -> None:
        for daemon, manager in zip((distribute, engine), managers, strict=True):
            daemon.stop()
            daemon.launch(manager.environment)

    both_say("waiting for the database for ", REASON)
    wait_log(distribute, "waiting for the database", REASON)
    wait_log(engine, 'what="the database"', REASON)

    shutil.copy(secured.authority.certificate, secured.mysql_ca)
    restart_both()
    services.wait_distribute(distribute)
    nginx.start(urlsplit(services.url("")).port or 0)
    client = Client(nginx, token)
    body = {"task_name": "t", "type": "adhoc", "module": "shell", "args": "echo hi", "ips": fleet.hosts(count=2)}
    task = f"/tasks/{client.call('/adhoc/', body)['task_id']}/"
    wait_live(services)
    both_say("waiting for Kafka ", REASON)
    wait_for("the engine to say it too", lambda: REASON in (client.call("/engines/")[0]["missing"] or ""))
    assert client.call(task)["counts"]["queued"] == 2

    shutil.copy(secured.authority.certificate, secured.kafka_ca)
    restart_both()
    services.wait_distribute(distribute)
    wait_for("the task to end", lambda: client.call(task)["state"] == "finished")
    assert [host["stdout"] for host in client.call(f"{task}hosts/")] == ["hi", "hi"]
