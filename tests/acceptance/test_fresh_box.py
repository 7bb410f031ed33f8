"""From nothing to a green engine on Zabbix's dashboard, by the steps of docs/install.md and docs/zabbix.md alone.

A box with a real systemd, a MySQL, a Kafka, a Zabbix, and an operator who types what the documents say. Then each fault
is made, shows as what it is, and is over when it is over.
"""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract import __version__
from execute_engine.zabbix import items, provisioning
from tests.acceptance.installed import DISTRIBUTE, ENGINE, PREFIX, Installed
from tests.servers import zabbix as zabbix_server
from tests.servers.fixtures import while_started
from tests.servers.fleet import Fleet
from tests.servers.kafka import KafkaCluster
from tests.servers.mariadb import MariaDB
from tests.servers.process import wait_for
from tests.servers.systemd_box import SystemdBox
from tests.servers.zabbix import Zabbix

HOST = "fresh-box"
BEAT_SECONDS = 2
BROKER = 1
DATABASE_PASSWORD = "of the database"
NO_PING, STUCK = "Engine: no ping", "Engine: consumer is stuck"
RESTARTS = "Engine: children end again and again"
DATABASE_AWAY, KAFKA_AWAY = "Engine: database is away", "Engine: Kafka is away"
SHOWN_SECONDS = 240.0


@pytest.fixture
def box(server_directory: Path) -> Iterator[SystemdBox]:
    (directory := server_directory / "box").mkdir()
    yield from while_started(SystemdBox(directory))


@pytest.fixture(autouse=True)
def what_went_wrong(box: SystemdBox) -> Iterator[None]:
    """The end of both journals, shown where the test fails."""
    yield
    for service in (DISTRIBUTE, ENGINE):
        print(f"--- {service}\n{box.journal(service)[-4000:]}")


@pytest.fixture
def mysql(server_directory: Path) -> Iterator[MariaDB]:
    (directory := server_directory / "mysql").mkdir()
    yield from while_started(MariaDB(directory))


@pytest.fixture
def own_kafka(server_directory: Path) -> Iterator[KafkaCluster]:
    (directory := server_directory / "kafka").mkdir()
    yield from while_started(KafkaCluster(directory))


@pytest.fixture
def own_zabbix(zabbix: Zabbix) -> Iterator[Zabbix]:
    """With no host of other tests on the dashboard, and none of this one afterwards."""
    _delete_hosts(zabbix)
    yield zabbix
    _delete_hosts(zabbix)


def _delete_hosts(zabbix: Zabbix) -> None:
    api = zabbix.api()
    groups = [each["groupid"] for each in api.hostgroup.get(filter={"name": [items.HOST_GROUP]}, output=["groupid"])]
    if hosts := [each["hostid"] for each in api.host.get(groupids=groups, output=["hostid"])] if groups else []:
        api.host.delete(*hosts)


class Operator(Installed):
    """Types what docs/install.md and docs/zabbix.md say, in their order."""

    def types(self, *command: str) -> str:
        """As root, in the folder of the program. What it prints."""
        return self.box.run("sh", "-c", f"cd {PREFIX} && {shlex.join(command)}")

    def edits(self, **sections: dict[str, object]) -> None:
        """conf/server.conf as it was shipped: each key is there already, and gets a value."""
        lines, section = self.box.run("cat", f"{PREFIX}/conf/server.conf").splitlines(), ""
        left = {(name, key): value for name, keys in sections.items() for key, value in keys.items()}
        for number, line in enumerate(lines):
            key = line.partition(" =")[0]
            section = line.strip("[]") if line.startswith("[") else section
            if (section, key) in left:
                lines[number] = f"{key} = {left.pop((section, key))}"
        assert not left, f"conf/server.conf has no {left.keys()}"
        self.write("conf/server.conf", "\n".join([*lines, ""]))

    def makes_a_database(self, mysql: MariaDB) -> None:
        mysql.sql(
            "CREATE DATABASE execute_engine;"
            f"CREATE USER execute_engine@'127.0.0.1' IDENTIFIED BY '{DATABASE_PASSWORD}';"
            "GRANT ALL ON execute_engine.* TO execute_engine@'127.0.0.1'"
        )

    def configures(self, mysql: MariaDB, kafka: KafkaCluster, zabbix: Zabbix) -> None:
        database = {"IP": "127.0.0.1", "PORT": mysql.port, "USER": "execute_engine", "PASSWORD": DATABASE_PASSWORD}
        self.edits(
            Kafka_Cluster={"BOOTSTRAP_SERVERS": kafka.bootstrap},
            Fil_EXEC_MySQL=database,
            Zabbix={"IP": "127.0.0.1", "ZABBIX_PORT": zabbix.trapper_port, "HOST": HOST},
            Data_Send={"ZABBIX": BEAT_SECONDS},
            Ansible={"SSH_USER": self.fleet.user, "SSH_PORT": self.fleet.port, "SSH_KEY_FILE": "conf/id"},
            Distribute={"PORT": self.port, "TOKENS_FILE": "conf/tokens"},
            Exec_Engine={"FILES_DIR": "data/files"},
        )
        self.box.copy_in(self.fleet.key, "/root/fleet_key")
        self.types(*shlex.split("install -o execute-engine -g execute-engine -m 600 /root/fleet_key conf/id"))

    def makes_a_token(self) -> str:
        said = self.types(".venv/bin/python", "-m", "distribute", "token", "add", "deploy", "--role", "submit")
        return next(line for line in said.splitlines() if line.startswith("ee_"))

    def provisions(self, zabbix: Zabbix) -> str:
        password = self.box.root / "root/zabbix-password"
        password.write_text(f"{zabbix_server.PASSWORD}\n")
        return self.types(
            ".venv/bin/python", "-m", "execute_engine.zabbix", "provision", "--url", f"{zabbix.url}/", "--runs", "both",
            "--user", zabbix_server.USER, "--password-file", "/root/zabbix-password",
        )  # fmt: skip


def test_a_fresh_box_becomes_a_green_engine_and_each_fault_shows_as_what_it_is(
    box: SystemdBox, fleet: Fleet, mysql: MariaDB, own_kafka: KafkaCluster, own_zabbix: Zabbix
) -> None:
    zabbix, operator = own_zabbix, Operator(box, fleet)
    operator.bring_checkout()
    operator.install()
    operator.makes_a_database(mysql)
    operator.configures(mysql, own_kafka, zabbix)
    operator.install("--here", script=f"{PREFIX}/script/install")
    operator.token = operator.makes_a_token()
    box.run("systemctl", "start", DISTRIBUTE, ENGINE)
    operator.wait_until_well()
    for service in (DISTRIBUTE, ENGINE):  # that Zabbix does not know it yet, and what to do
        wait_for("a hint", lambda service=service: "zabbix provision makes them" in box.show(service, "StatusText"))  # type: ignore[misc]
    assert f"created   host {HOST}\n" in operator.provisions(zabbix)

    task = operator.wait_task(operator.submit_adhoc(fleet.hosts(count=3)))
    assert task["counts"]["success"] == 3, task
    expect_green(zabbix)

    mysql.kill()
    expect_problem(zabbix, DATABASE_AWAY)
    mysql.start()
    expect_no_problem(zabbix)

    own_kafka.brokers[BROKER].stop(first=signal.SIGKILL)
    expect_problem(zabbix, KAFKA_AWAY)
    own_kafka.start_broker(BROKER)
    expect_no_problem(zabbix)

    of_kafka = len(zabbix.history(HOST, "exec.engine.kafka"))
    os.kill(hung := consumer(box), signal.SIGSTOP)
    expect_problem(zabbix, STUCK)
    os.kill(hung, signal.SIGKILL)  # as its supervisor would do after 30 s
    expect_no_problem(zabbix)
    os.kill(killed := consumer(box), signal.SIGKILL)
    expect_another_consumer(box, zabbix, killed)

    box.run("systemctl", "stop", ENGINE)
    expect_problem(zabbix, NO_PING)
    zabbix.open_to_guests(items.HOST_GROUP)
    page = zabbix.page(zabbix.dashboard(provisioning.DASHBOARD))
    assert page.count("svg-graph-line") >= len(provisioning.GRAPHS), "the graphs have no data"
    assert NO_PING in page
    box.run("systemctl", "start", ENGINE)
    expect_no_problem(zabbix)
    after = operator.wait_task(operator.submit_adhoc(fleet.hosts(count=3)))
    assert after["counts"]["success"] == 3, after
    assert (
        "0" not in zabbix.history(HOST, "exec.engine.kafka")[of_kafka:]
    )  # its group waits for the killed ones: no more


def expect_green(zabbix: Zabbix) -> None:
    """All that a healthy machine tells, and not one problem."""
    told = {"ping": "1", "consumer": "1", "share": "1", "database": "1", "kafka": "1", "version": __version__}

    def newest() -> dict[str, str]:
        found = {name: zabbix.history(HOST, f"exec.engine.{name}", is_text=name == "version") for name in told}
        return {name: values[-1] for name, values in found.items() if values}

    wait_for("its figures", lambda: newest() == told)
    assert int(zabbix.history(HOST, "exec.engine.slots")[-1]) > 0
    wait_for("the hosts of the task", lambda: sum(map(int, zabbix.history(HOST, "exec.engine.hosts_finished"))) == 3)
    wait_for("distribute's ping", lambda: zabbix.history(HOST, "exec.distribute.ping"))
    expect_no_problem(zabbix)


def expect_problem(zabbix: Zabbix, name: str) -> None:
    """Of the engine it is the only one. Distribute may have its own say: without a database it does not ping either."""
    shown = set[str]()

    def shows() -> bool:
        nonlocal shown
        shown = {problem for problem in problems(zabbix) if problem.startswith("Engine: ")}
        return shown == {name}

    try:
        wait_for(name, shows, SHOWN_SECONDS)
    except TimeoutError:
        assert shown == {name}
        raise


def expect_no_problem(zabbix: Zabbix) -> None:
    shown: list[str] = []

    def is_well() -> bool:
        nonlocal shown
        shown = sorted(problems(zabbix))
        return not shown

    try:
        wait_for("no problem", is_well, SHOWN_SECONDS)
    except TimeoutError:
        assert shown == []
        raise


def problems(zabbix: Zabbix) -> set[str]:
    """Without the restarts, which stay for 15 minutes, and may be real where Ansible does not load in its 20 s."""
    return zabbix.problems(HOST) - {RESTARTS}


def consumer(box: SystemdBox) -> int:
    (pid,) = wait_for("one consumer", lambda: box.processes(ENGINE, "execute-engine: consumer"))
    return pid


def expect_another_consumer(box: SystemdBox, zabbix: Zabbix, killed: int) -> None:
    """One that was killed is no problem: its supervisor starts another, which pings."""
    wait_for("another consumer", lambda: box.processes(ENGINE, "execute-engine: consumer").keys() - {killed})
    pings = len(zabbix.history(HOST, "exec.engine.ping"))
    wait_for("pings", lambda: len(zabbix.history(HOST, "exec.engine.ping")) >= pings + 3)
    expect_no_problem(zabbix)
