"""No password appears anywhere that anybody but its owner reads: not in logs, processes, messages, rows or answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sqlalchemy as sa
from kafka import KafkaConsumer

from contract.tables import metadata
from tests.daemons import Services
from tests.servers import mariadb
from tests.servers.fleet import Fleet
from tests.servers.kafka import KafkaCluster
from tests.servers.process import wait_for


def commands_and_environments(services: Services) -> dict[str, bytes]:
    found = {}
    for pid in services.processes():
        for name in ("cmdline", "environ"):
            found[f"{name} of {pid}"] = Path(f"/proc/{pid}/{name}").read_bytes()
    return found


def rows(services: Services) -> dict[str, bytes]:
    return {
        table.name: repr(services.database.read(lambda c, table=table: c.execute(sa.select(table)).all())).encode()  # type: ignore[misc]
        for table in metadata.sorted_tables
    }


def messages(kafka: KafkaCluster, topic: str) -> bytes:
    consumer = KafkaConsumer(
        topic, bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest", consumer_timeout_ms=3000
    )
    try:
        return b"\n".join(record.value for record in consumer)
    finally:
        consumer.close()


@pytest.mark.parametrize("backend", ["cluster"], indirect=True)
@pytest.mark.parametrize("connection", ["asyncssh", "openssh"])
def test_no_password_shows_anywhere(
    services: Services, fleet: Fleet, kafka: KafkaCluster, topic: str, connection: str
) -> None:
    password, database_password = fleet.password, mariadb.PASSWORD
    ansible = {
        "SSH_USER": fleet.password_user,
        "SSH_PASSWORD": password,
        "SSH_SUDO_PASSWORD": password,
        "SSH_KEY_FILE": "",
        "CONNECTION": connection,
    }
    services.start(Ansible=ansible)
    hosts = fleet.hosts("healthy", 3)
    # What runs on a host may print anything; what the engine itself knows is masked in it.
    talkative = services.submit_adhoc(hosts, f"printf '%s' 'the {password[:4]}''{password[4:]} is it'; sleep 5")
    wait_for("the unit to run", lambda: services.processes("execute-engine: runner"))
    wait_for("its hosts to run", lambda: services.task(talkative)["counts"]["running"] == 3)
    during = commands_and_environments(services)
    assert services.wait_task(talkative)["counts"]["success"] == 3, services.hosts(talkative)
    wrong = services.submit_playbook(hosts, "- hosts: all\n  tasks:\n    - debug: {msg: '{{ ansible_password }}'}\n")
    services.wait_task(wrong)

    items = services.hosts(talkative)
    assert {item["stdout"] for item in items} == {"the *** is it"}
    places = {
        **during,
        **rows(services),
        "messages": messages(kafka, topic),
        "answers": json.dumps([items, services.hosts(wrong)]).encode(),
        **{daemon.name: daemon.log(10_000_000).encode() for daemon in (*services.distributes, *services.engines)},
    }
    assert places["messages"].count(b"unit_id") == 2
    for secret in (password, database_password):
        shown = [place for place, text in places.items() if secret.encode() in text]
        assert not shown, f"a secret shows in {shown}"
