"""The servers that the other tests rely on do what their descriptions say, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pymysql
import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient, NewTopic

from contract.config import DatabaseSettings
from tests.servers import sick_hosts
from tests.servers.fleet import Fleet
from tests.servers.kafka import KafkaCluster
from tests.servers.mariadb import PASSWORD, USER, MariaDB
from tests.servers.private_sshd import PrivateSshd
from tests.servers.process import Process, ServerMissing, wait_for

ROOT = Path(__file__).parents[2]


def ssh(server: Fleet | PrivateSshd, host: str, command: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
    options = ["-F", "none", "-i", str(server.key), "-p", str(server.port), "-o", "BatchMode=yes"]
    options += ["-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
    argv = ["ssh", *options, f"{server.user}@{host}", command]
    return subprocess.run(argv, capture_output=True, text=True, timeout=seconds, check=False)


def test_mariadb_has_a_user_for_fresh_databases_and_for_nothing_else(mariadb_settings: DatabaseSettings) -> None:
    settings = mariadb_settings
    connection = pymysql.connect(host=settings.ip, port=settings.port, user=USER, password=PASSWORD)
    with connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT COUNT(*) FROM {settings.database}.task")
        with pytest.raises(pymysql.OperationalError):
            cursor.execute("SELECT * FROM mysql.user")


def test_mariadb_keeps_data_and_port_over_a_crash(server_directory: Path) -> None:
    server = MariaDB(server_directory)
    try:
        start(server)
        port = server.port
        server.sql("CREATE DATABASE ee_kept")
        server.kill()
        server.start()
        assert server.port == port
        assert "ee_kept" in server.sql("SHOW DATABASES")
    finally:
        server.stop()


def test_kafka_delivers_what_was_sent(kafka: KafkaCluster, topic: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    admin.create_topics([NewTopic(topic, num_partitions=2, replication_factor=1)])
    admin.close()
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap, acks="all")
    producer.send(topic, b"unit").get(timeout=60)
    producer.close()
    consumer = KafkaConsumer(topic, bootstrap_servers=kafka.bootstrap, group_id=topic, auto_offset_reset="earliest")
    try:
        records = wait_for("the message", lambda: consumer.poll(timeout_ms=500))
        assert [record.value for batch in records.values() for record in batch] == [b"unit"]
    finally:
        consumer.close()


def test_fleet_runs_commands_as_its_own_user_with_sudo(fleet: Fleet) -> None:
    for host in fleet.hosts("healthy", 3):
        assert ssh(fleet, host, "id -un; sudo -n id -un").stdout.split() == ["ee-ops", "root"]


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [("no_auth", "Permission denied"), ("refused", "Connection refused"), ("unreachable", "No route to host")],
)
def test_fleet_has_hosts_that_cannot_be_reached(fleet: Fleet, kind: str, complaint: str) -> None:
    done = ssh(fleet, fleet.hosts(kind)[0], "true")
    assert done.returncode == 255
    assert complaint in done.stderr


def test_fleet_shows_what_a_hanging_host_runs(fleet: Fleet) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        ssh(fleet, fleet.hosts("hang", 250)[249], "true", seconds=3)
    assert any("sleep" in line for line in fleet.processes().values())


def test_private_sshd_logs_in_only_who_started_it(server_directory: Path) -> None:
    server = PrivateSshd(server_directory)
    try:
        start(server)
        assert ssh(server, server.hosts()[0], "id -un").stdout.strip() == server.user
        assert "Permission denied" in ssh(server, server.hosts("no_auth")[0], "true").stderr
        server.user = "nobody"
        assert "Permission denied" in ssh(server, server.hosts()[0], "true").stderr
    finally:
        server.stop()


def test_private_sshd_ends_what_its_hosts_run(server_directory: Path) -> None:
    server = PrivateSshd(server_directory)
    try:
        start(server)
        with pytest.raises(subprocess.TimeoutExpired):
            ssh(server, server.hosts("hang")[0], "true", seconds=3)
        assert server.processes()
    finally:
        server.stop()
    wait_for("the hosts' processes to end", lambda: not server.processes(), 30)


def test_a_kind_of_host_without_root_is_refused_where_it_needs_root() -> None:
    for kind in sick_hosts.BY_THE_NETWORK:
        with pytest.raises(AssertionError, match=kind):
            PrivateSshd.hosts(kind)


def test_servers_end_with_whoever_started_them(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from tests.servers.process import Process\n"
        f"server = Process(Path({str(tmp_path)!r}), 'sleeper')\n"
        "server.start(['sh', '-c', 'sleep 1000 & echo $!; wait'])\n"
        "print(server.pid, flush=True); sys.stdin.read()"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    with starter:
        assert starter.stdout is not None
        leader = int(starter.stdout.readline())
        child = int(wait_for("the child", (tmp_path / "sleeper.log").read_text))
        starter.send_signal(signal.SIGKILL)
    wait_for("the server and its child to end", lambda: not running(leader) and not running(child), 60)


def test_a_stopped_server_takes_its_children_with_it(tmp_path: Path) -> None:
    server = Process(tmp_path, "sleeper")
    server.start(["sh", "-c", "trap 'exit 3' TERM; (trap '' TERM; echo $$; exec sleep 1000) & wait"])
    child = int(wait_for("the child", server.log)) and next(iter(children(server.pid)))
    assert server.stop() == 3
    wait_for("the child to end", lambda: not running(child), 60)


def start(server: MariaDB | PrivateSshd) -> None:
    try:
        server.start()
    except ServerMissing as exc:
        pytest.skip(str(exc))


def children(pid: int) -> list[int]:
    return [int(number) for number in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
