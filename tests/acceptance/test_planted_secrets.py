"""Twelve secrets are planted in the configuration, in requests and on hosts, and found nowhere after a full run.

The run has everything that could spill one: tasks that succeed, fail, time out, reach nobody and cannot be read, an
outage of the database, logs at level debug. A word that is no secret is planted beside them: it is found in every kind
of place, so that a secret would be found there too.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from kafka import KafkaConsumer

from contract import secret
from execute_engine import spool
from tests.daemons import BASE_PATH, ROOT, Services
from tests.servers import kafka as kafka_server
from tests.servers.certificates import Authority
from tests.servers.fleet import PASSWORD, Fleet
from tests.servers.kafka import KafkaCluster
from tests.servers.link import Link
from tests.servers.mariadb import MariaDB
from tests.servers.process import program, wait_for

MADE = (
    "database", "kafka", "sudo", "vault", "vaulted", "args", "playbook", "no_log",
)  # fmt: skip
SECRETS = {name: f"planted{number:02}{name.replace('_', '')}7e3a" for number, name in enumerate(MADE)}
VISIBLE = "visible-7e3a"
DEBUG = {"EXECUTE_ENGINE_LOG_LEVEL": "debug"}
LIMIT_SECONDS = 3  # of a host that hangs


class Watch:
    """Looks again and again at every process but the hosts', and at what runners have on disk."""

    def __init__(self, fleet: Fleet) -> None:
        self.seen: dict[bytes, str] = {}  # what stood there, and where
        self._hosts = Path(f"/proc/{fleet.process.pid}/ns/pid_for_children").readlink()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.1):
            for entry in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):  # ended meanwhile
                    if (entry / "ns/pid").readlink() != self._hosts:
                        for name in ("cmdline", "environ"):
                            self.seen.setdefault((entry / name).read_bytes(), f"{name} of {entry.name}")
            for folder in Path(tempfile.gettempdir()).glob("execute-engine-*"):
                for where, _, names in os.walk(folder):
                    for name in names:
                        with contextlib.suppress(OSError):
                            self.seen.setdefault(Path(where, name).read_bytes(), f"scratch {where}")


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[KafkaCluster, Authority]]:
    directory = tmp_path_factory.mktemp("kafka")
    authority = Authority(directory)
    cluster = KafkaCluster(directory, authority, SECRETS["kafka"])
    cluster.start()
    yield cluster, authority
    cluster.stop()


@pytest.fixture
def config(
    services: Services,
    fleet: Fleet,
    mariadb: MariaDB,
    mariadb_link: Link,
    brokers: tuple[KafkaCluster, Authority],
) -> Path:
    """Everything that is configured is secret of its own."""
    cluster, authority = brokers
    backend = services.backend
    mariadb.sql(
        f"CREATE OR REPLACE USER planted@'127.0.0.1' IDENTIFIED BY '{SECRETS['database']}';"
        f"GRANT ALL ON {backend.database_settings.database}.* TO planted@'127.0.0.1'"
    )
    file = backend.config_file(
        VISIBLE,
        Kafka_Cluster={
            "BOOTSTRAP_SERVERS": cluster.bootstrap, "SECURITY_PROTOCOL": "SASL_SSL",
            "SSL_CAFILE": authority.certificate, "SASL_MECHANISM": kafka_server.MECHANISM,
            "SASL_USERNAME": kafka_server.USER,
            "SASL_PASSWORD": SECRETS["kafka"], "PARTITIONS": 2,
        },
        Fil_EXEC_MySQL={"PORT": mariadb_link.port, "USER": "planted", "PASSWORD": SECRETS["database"]},
        Ansible={
            "SSH_USER": fleet.password_user, "SSH_PASSWORD": fleet.password, "SSH_SUDO_PASSWORD": SECRETS["sudo"],
            "VAULT_PASSWORD_FILE": backend.directory / VISIBLE / "conf/vault",
        },
        Distribute={"TOKENS_FILE": backend.directory / VISIBLE / "conf/tokens"},
    )  # fmt: skip
    secret.new_key(file.parent / "secret.key")
    (file.parent / "vault").write_text(SECRETS["vault"])
    return file


def command(*argv: str, given: str = "") -> str:
    done = subprocess.run(argv, cwd=ROOT, input=given, check=True, capture_output=True, text=True, timeout=60)
    return done.stdout.strip()


def new_token(config: Path) -> str:
    add = ("token", "add", "deploy", "--role", "admin")
    return command(sys.executable, "-m", "distribute", "--config", str(config), *add)


def vaulted(config: Path) -> str:
    vault = str(Path(sys.executable).with_name("ansible-vault"))
    options = ("encrypt_string", "--vault-password-file", str(config.parent / "vault"), "-")
    return command(vault, *options, given=SECRETS["vaulted"]).replace("\n", "\n    ")


def leak(fleet: Fleet, config: Path) -> str:
    """What a host may know of the engine's secrets, and print; longer than what is kept, so that one is cut."""
    known = [SECRETS[name] for name in ("database", "kafka", "sudo", "vault")] + [fleet.password, fernet_key(config)]
    return f"{json.dumps(known)} {VISIBLE}" + (SECRETS["database"] + VISIBLE) * 5000


def fernet_key(config: Path) -> str:
    return (config.parent / "secret.key").read_text().strip()


def submit_all(services: Services, fleet: Fleet, config: Path, on_hosts: Path) -> list[str]:
    """Secret and plain tasks of both types: each succeeds, fails, times out, reaches nobody or cannot be read."""
    fine, nobody = fleet.hosts(count=2), fleet.hosts("refused")
    (on_hosts / "no_log").write_text(SECRETS["no_log"])
    (on_hosts / "leak").write_text(leak(fleet, config))
    commands = {
        "fine": f"echo {SECRETS['args']}; echo {SECRETS['args']} >> {on_hosts}/said",
        "fails": f"echo {SECRETS['args']}; echo {SECRETS['args']} >&2; exit 3",
        "hangs": f"echo {SECRETS['args']}; sleep 600",
        "unreadable": f"echo it's {SECRETS['args']}",
    }
    made = [
        services.submit_adhoc(
            [*fine, *nobody], text, task_id=f"{VISIBLE}-{name}", secret_args=True, become=False,
            host_timeout=LIMIT_SECONDS if name == "hangs" else None,
        )
        for name, text in commands.items()
    ]  # fmt: skip
    made.append(services.submit_adhoc(fine, f"echo {VISIBLE}", task_id=f"{VISIBLE}-plain", become=False))
    made.append(services.submit_adhoc(fine, f"cat {on_hosts}/leak", task_id=f"{VISIBLE}-leak", become=False))
    # sudo asks for another password than the one that is configured.
    made.append(services.submit_adhoc(fine, f"echo {VISIBLE}", task_id=f"{VISIBLE}-sudo"))
    word = SECRETS["playbook"]
    play = f"- name: {word}\n  hosts: all\n  gather_facts: false\n  vars: {{word: {word}}}\n"
    playbooks = {
        "fine": f"    - {{name: '{{{{ word }}}}', shell: 'echo {{{{ word }}}} >> {on_hosts}/said'}}\n",
        "fails": "    - {name: '{{ word }}', shell: 'echo {{ word }}; exit 3'}\n",
        "hangs": "    - {name: '{{ word }}', shell: 'echo {{ word }}; sleep 600'}\n",
        "unreadable": f"    - {{name: '{{{{ word }}}}', shell: x, {word}: x}}\n",
    }
    made += [
        services.submit_playbook(
            [*fine, *nobody], f"{play}  tasks:\n{tasks}", task_id=f"{VISIBLE}-play-{name}", secret_args=True,
            host_timeout=LIMIT_SECONDS if name == "hangs" else None,
        )
        for name, tasks in playbooks.items()
    ]  # fmt: skip
    plain = f"""\
- name: {VISIBLE}
  hosts: all
  gather_facts: false
  vars:
    word: {vaulted(config)}
  tasks:
    - {{name: vaulted, shell: 'echo {{{{ word }}}} | tee -a {on_hosts}/said; exit 3', no_log: true, failed_when: false}}
    - {{name: read, shell: 'cat {on_hosts}/no_log | tee -a {on_hosts}/said', no_log: true, register: found}}
    - {{name: use, debug: {{msg: '{{{{ found.stdout }}}}'}}, no_log: true}}
    - {{name: {VISIBLE}, shell: 'echo {VISIBLE}; exit 3'}}
"""
    made.append(services.submit_playbook(fine, plain, task_id=f"{VISIBLE}-play-plain"))
    return made


def memory(pid: int) -> bytes:
    """All that the process has written to."""
    found = []
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as opened:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            area, rights = line.split()[:2]
            if rights.startswith("rw") and "[v" not in line:
                start, end = (int(number, 16) for number in area.split("-"))
                opened.seek(start)
                with contextlib.suppress(OSError):  # a page that is not there
                    found.append(opened.read(end - start))
    return b"".join(found)


def connected_ports(pid: int) -> set[int]:
    """The ports that the process has open connections to."""
    links = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}
    table = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return {int(row[2].rpartition(":")[2], 16) for row in table if f"socket:[{row[9]}]" in links}


def open_files(pid: int) -> set[str]:
    return {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}


def look_into_runners(services: Services, known: dict[str, str], ports: set[int]) -> None:
    """What a client's text could find where it runs. The consumer, which has it all, shows that it would be found."""
    (consumer,) = services.processes("execute-engine: consumer")
    assert [name for name, word in known.items() if word.encode() not in memory(consumer)] == []
    assert connected_ports(consumer) & ports
    for title in ("launcher", "guard", "runner"):
        pids = services.processes(f"execute-engine: {title}")
        assert pids
        for pid in pids:
            held = memory(pid)
            assert [name for name, word in known.items() if word.encode() in held] == [], title
            assert not connected_ports(pid) & ports, title
            assert [path for path in open_files(pid) if "/conf/" in path or "/state" in path] == [], title
            assert (title != "runner") or PASSWORD.encode() in held


def spooled(services: Services) -> int:
    return sum(len(left.rows) for left in spool.leftovers(services.backend.directory / VISIBLE / "state/spool"))


def files(services: Services, config: Path) -> Iterator[tuple[str, bytes]]:
    """Of the services and all that they have written."""
    for path in services.backend.directory.rglob("*"):
        if path.is_file() and config.parent not in path.parents:
            yield str(path), path.read_bytes()


def answers(services: Services, tasks: list[str], host: str) -> Iterator[tuple[str, bytes]]:
    """Of every call that reads, and of some that are refused."""
    root = services.url("").removesuffix(BASE_PATH)
    right = {"Authorization": f"Bearer {services.token}"}
    paths = ["/tasks/", "/engines/", "/audit/", "/nothing/"]
    for kind in ("adhoc", "playbook"):
        paths += [f"/{kind}/?ip={host}", f"/{kind}/?ips={host}", *(f"/{kind}/?task_id={task}" for task in tasks)]
    for task in tasks:
        paths += [f"/tasks/{task}/", f"/tasks/{task}/hosts/"]
    for path in [
        *(f"{BASE_PATH}{path}" for path in paths),
        "/metrics",
        "/openapi.json",
        "/docs",
        "/healthz",
        "/readyz",
    ]:
        yield f"answer of {path}", requests.get(root + path, headers=right, timeout=60).content
    wrong = {"Authorization": f"Bearer {services.token[:-1]}"}
    yield "answer to a wrong token", requests.get(services.url("/tasks/"), headers=wrong, timeout=60).content
    again = services.api(f"/tasks/{VISIBLE}-unreadable/rerun/", {})
    yield "answer to a rerun", json.dumps([again, services.wait_task(again["data"]["task_id"])]).encode()


def messages(topic: str, cluster: KafkaCluster, authority: Authority) -> Iterator[tuple[str, bytes]]:
    consumer = KafkaConsumer(
        topic, bootstrap_servers=cluster.bootstrap, auto_offset_reset="earliest", consumer_timeout_ms=3000,
        security_protocol="SASL_SSL", sasl_mechanism=kafka_server.MECHANISM, ssl_cafile=str(authority.certificate),
        sasl_plain_username=kafka_server.USER, sasl_plain_password=SECRETS["kafka"],
    )  # fmt: skip
    with contextlib.closing(consumer):
        for record in consumer:
            yield "a message", record.value + (record.key or b"") + repr(record.headers).encode()


def dump(mariadb: MariaDB, database: str) -> bytes:
    argv = [program("mariadb-dump", "mariadb-client"), "--no-defaults", f"--socket={mariadb.directory}/s", "-uroot"]
    return subprocess.run([*argv, database], check=True, capture_output=True).stdout


@pytest.mark.parametrize("backend", ["mariadb alone"], indirect=True)
def test_twelve_planted_secrets_are_found_nowhere(
    services: Services,
    fleet: Fleet,
    config: Path,
    mariadb: MariaDB,
    mariadb_link: Link,
    brokers: tuple[KafkaCluster, Authority],
    server_directory: Path,
) -> None:
    on_hosts = server_directory  # the hosts, which are this machine, write there
    on_hosts.chmod(0o777)
    services.token = new_token(config)
    places: list[tuple[str, bytes]] = []
    with Watch(fleet) as watch:
        services.start_distribute(config, DEBUG)
        services.start_engine(config, DEBUG)
        tasks = submit_all(services, fleet, config, on_hosts)
        ended = {task: services.wait_task(task) for task in tasks}
        hold = f"echo {VISIBLE}; while ! test -e {on_hosts}/go; do sleep 0.1; done"
        tasks += [
            services.submit_adhoc(fleet.hosts(count=3), hold, task_id=f"{VISIBLE}-outage", become=False),
            services.submit_adhoc(
                fleet.hosts(count=3), f"echo {SECRETS['args']}; {hold}", task_id=f"{VISIBLE}-secret-outage",
                become=False, secret_args=True,
            ),
        ]  # fmt: skip
        wait_for("the hosts to run", lambda: all(services.task(t)["counts"]["running"] == 3 for t in tasks[-2:]))
        known = {name: SECRETS[name] for name in ("database", "kafka")} | {"fernet": fernet_key(config)}
        look_into_runners(services, known, {mariadb_link.port, int(brokers[0].bootstrap.rpartition(":")[2])})
        mariadb_link.cut()
        (on_hosts / "go").touch()
        wait_for("the results to be on disk", lambda: spooled(services) == 6)
        places += [(f"in the outage {place}", text) for place, text in files(services, config)]
        mariadb_link.mend()
        ended |= {task: services.wait_task(task) for task in tasks[-2:]}
        places += answers(services, tasks, fleet.hosts()[0])
        for daemon in (*services.engines, *services.distributes):
            daemon.stop(seconds=60)
    places += [(place, text) for text, place in watch.seen.items()]
    places += files(services, config)
    places += messages(services.backend.topic, *brokers)
    places.append(("the dump", dump(mariadb, services.backend.database_settings.database)))

    said = (on_hosts / "said").read_text()
    used = [SECRETS[name] for name in ("args", "playbook", "vaulted", "no_log")]
    assert {word: said.count(word) for word in used} == dict.fromkeys(used, 2), "the secrets did not reach the hosts"
    assert {task.removeprefix(f"{VISIBLE}-"): counted(data) for task, data in ended.items()} == {
        "fine": {"success": 2, "unreachable": 1},
        "fails": {"failed": 2, "unreachable": 1},
        "hangs": {"timeout": 2, "unreachable": 1},
        "unreadable": {"failed": 3},
        "plain": {"success": 2},
        "leak": {"success": 2},
        "sudo": {"failed": 2},
        "play-fine": {"success": 2, "unreachable": 1},
        "play-fails": {"failed": 2, "unreachable": 1},
        "play-hangs": {"timeout": 2, "unreachable": 1},
        "play-unreadable": {"failed": 3},
        "play-plain": {"failed": 2},
        "outage": {"success": 3},
        "secret-outage": {"success": 3},
    }
    private_key = fleet.key.read_text().splitlines()[2]
    planted = {
        **SECRETS,
        "ssh": fleet.password,
        "fernet": fernet_key(config),
        "token": services.token,
        "ssh key": private_key,
    }
    assert len(set(planted.values())) == 12
    assert [(place, name) for place, text in places for name, word in planted.items() if word.encode() in text] == []

    assert any(b"logger=gunicorn" in text for place, text in places if place.endswith(".log"))
    for kind in (
        "cmdline of",
        "environ of",
        "in the outage",
        ".spool",
        ".log",
        "a message",
        "the dump",
        "answer of /api",
    ):
        holding = [place for place, text in places if kind in place and VISIBLE.encode() in text]
        assert holding, f"the word that is no secret is not found in {kind}: a secret would not be either"


def counted(task: dict[str, dict[str, int]]) -> dict[str, int]:
    return {status: count for status, count in task["counts"].items() if count}
