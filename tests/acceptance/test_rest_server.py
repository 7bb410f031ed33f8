"""The REST server as a process: long queries through it, its end by signals, and configurations that it refuses."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from tests.daemons import BASE_PATH, ROOT, Daemon, Services
from tests.servers.process import wait_for

HOSTS = [f"10.{100 + number // 2500}.{100 + number // 100 % 100}.{100 + number % 100}" for number in range(5000)]
ADHOC = {"task_name": "t", "module": "shell", "args": "echo hi", "ips": "db-1"}
TITLES = {
    "distribute: supervisor": 1,
    "distribute: web": 1,
    "distribute: web worker": 2,
    "distribute: dispatcher": 1,
}
on_embedded = pytest.mark.parametrize("backend", ["embedded"], indirect=True)


def whole(daemon: Daemon) -> dict[str, set[int]]:
    """The ids of its processes by their titles, as soon as all of them are there, and none else."""

    def look() -> dict[str, set[int]]:
        found: dict[str, set[int]] = {title: set() for title in TITLES}
        for pid, line in daemon.processes().items():
            found.setdefault(line.strip(), set()).add(pid)
        return found if {title: len(ids) for title, ids in found.items()} == TITLES else {}

    return wait_for(f"{TITLES}", look)


@pytest.mark.parametrize("backend", ["embedded", "mariadb alone"], indirect=True)
def test_5_000_addresses_pass_through_a_query_string_and_through_a_body(services: Services) -> None:
    services.start_distribute(services.backend.config_file())
    task_id = services.submit_adhoc(HOSTS)
    playbook_id = services.submit_playbook(HOSTS, "- {hosts: all, tasks: []}")
    for path, of in (("/adhoc/", task_id), ("/playbook/", playbook_id)):
        by_url = services.api(f"{path}?ips={','.join(HOSTS)}")
        by_body = services.api(f"{path}query/", {"ips": HOSTS})
        assert (by_url["code"], by_url["length"]) == (200, 5000)
        assert [item["ip"] for item in by_url["data"]] == HOSTS
        assert {item["task_id"] for item in by_url["data"]} == {of}
        assert by_body == by_url


@on_embedded
@pytest.mark.parametrize("title", ["distribute: web", "distribute: web worker", "distribute: dispatcher"])
def test_after_kill_9_a_process_comes_back_and_no_task_is_lost(services: Services, title: str) -> None:
    daemon = services.start_distribute(services.backend.config_file())
    task_id = services.submit_adhoc(["db-1"])
    victims = whole(daemon)[title]

    for pid in victims:
        os.kill(pid, signal.SIGKILL)

    wait_for("others in their place", lambda: not victims & whole(daemon)[title])
    services.wait_distribute(daemon)
    assert services.api(f"/adhoc/?task_id={task_id}")["length"] == 1
    assert services.task(services.submit_adhoc(["db-2"]))["hosts"] == 1


@on_embedded
def test_sigterm_ends_everything_with_0(services: Services) -> None:
    daemon = services.start_distribute(services.backend.config_file())
    whole(daemon)
    assert daemon.stop(seconds=60) == 0, daemon.log()
    wait_for("its processes to end", lambda: not daemon.processes(), 10)


@on_embedded
def test_a_request_that_is_being_sent_at_the_sigterm_is_answered(services: Services) -> None:
    daemon = services.start_distribute(services.backend.config_file())
    body = json.dumps({**ADHOC, "task_id": "late"}).encode()
    head = f"POST {BASE_PATH}/adhoc/ HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    port = urlsplit(services.url("")).port
    assert port is not None
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:10])
        services.submit_adhoc(["db-1"])  # meanwhile others are answered
        whole(daemon)

        daemon.send(signal.SIGTERM)
        wait_for("the idle worker to end", lambda: len(daemon.processes("distribute: web worker")) == 1)
        connection.sendall(body[10:])
        answer = connection.makefile("rb").read()

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer
    assert b'"task_id":"late"' in answer
    assert daemon.stop(seconds=60) == 0


@on_embedded
def test_the_requests_of_all_workers_are_counted_together_also_after_one_has_died(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    daemon = services.start_distribute(services.backend.config_file())
    root = services.url("").removesuffix(BASE_PATH)
    line = f'distribute_requests_total{{code="404",endpoint="{BASE_PATH}/tasks/<task_id>/",method="GET"}} '

    def ask(times: int) -> None:
        for _ in range(times):
            assert requests.get(services.url("/tasks/none/"), timeout=60).status_code == 404

    def counted() -> set[float]:
        """What the workers say, each of which answers some of these."""
        pages = [requests.get(f"{root}/metrics", timeout=60).text.splitlines() for _ in range(20)]
        return {float(each.removeprefix(line)) for page in pages for each in page if each.startswith(line)}

    (folder,) = tmp_path.glob("distribute-metrics-*")
    assert folder.stat().st_mode & 0o777 == 0o700
    asked = 0
    while asked < 10 or len(list(folder.glob("counter_*.db"))) < 2:  # chance says which worker takes a request
        assert asked < 2000, "one worker alone counts here"
        ask(10)
        asked += 10
    assert counted() == {asked}

    workers = whole(daemon)["distribute: web worker"]
    for pid in workers:
        os.kill(pid, signal.SIGTERM)  # it ends by itself, through the arbiter's frames
    wait_for("others in their place", lambda: not workers & whole(daemon)["distribute: web worker"])
    services.wait_distribute(daemon)
    ask(10)
    assert counted() == {asked + 10}

    assert daemon.stop(seconds=60) == 0, daemon.log()
    assert not folder.exists()


WRONG = """\
[Distribute]
PORT = 80000
WORKERS = many
HOTS = 127.0.0.1

[Fil_EXEC_MySQL]
IP = 127.0.0.1

[Exec_Engin]
NUMBER = 30
"""


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EXECUTE_ENGINE_")}
    return subprocess.run(
        [sys.executable, "-m", "distribute", *arguments],
        cwd=ROOT, env={**kept, **environment}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("role", [[], ["web"], ["dispatcher"]])
def test_a_wrong_configuration_ends_with_78_and_one_message_that_lists_every_problem(
    tmp_path: Path, role: list[str]
) -> None:
    file = tmp_path / "server.conf"
    file.write_text(WRONG)
    ended = run(*role, "--config", str(file), EXECUTE_ENGINE_DISTRIBUTE_PARALLEL="-1")
    assert ended.returncode == 78
    assert ended.stdout == ""
    first, *problems = ended.stderr.splitlines()
    assert first == "the configuration cannot be used:"
    where = [problem.strip().replace(str(file), "FILE") for problem in problems]
    assert where == [
        "FILE:2: [Distribute] PORT: expected a whole number from 1 to 65535, found '80000'",
        "FILE:3: [Distribute] WORKERS: expected a whole number from 1 to 256, found 'many'",
        "FILE:4: unknown key HOTS in [Distribute], expected one of FILES_DIR, HOST, LOG_LEVEL, NO_AUTH, PARALLEL,"
        " PORT, REQUESTS_PER_SECOND, RETENTION_DAYS, TOKENS_FILE, TRUSTED_PROXIES, WORKERS",
        "FILE:7: [Fil_EXEC_MySQL] IP: a MySQL server needs USER too",
        "FILE:9: unknown section [Exec_Engin], expected one of Kafka_Cluster, Fil_EXEC_MySQL, MySQL, Zabbix, Ansible,"
        " Data_Send, Distribute, Exec_Engine, Gitlab",
        "EXECUTE_ENGINE_DISTRIBUTE_PARALLEL: [Distribute] PARALLEL: expected a whole number from 0 to 1000000,"
        " found '-1'",
    ]


def test_a_configuration_that_is_not_there_ends_with_78(tmp_path: Path) -> None:
    ended = run("--config", str(tmp_path / "none.conf"))
    assert ended.returncode == 78
    assert str(tmp_path / "none.conf") in ended.stderr
    assert "Traceback" not in ended.stderr


@on_embedded
def test_a_token_is_made_used_and_revoked_while_the_server_runs(services: Services, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    config = services.backend.config_file(Distribute={"TOKENS_FILE": file})

    def token(*arguments: str) -> str:
        command = [sys.executable, "-m", "distribute", "--config", str(config), "token", *arguments]
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60).stdout.strip()

    made = token("add", "deploy", "--role", "submit", "--hosts", "db-*")
    daemon = services.start_distribute(config)

    def submit(headers: dict[str, str], ips: str = "db-1") -> int:
        body = {**ADHOC, "ips": ips, "task_id": "t"}
        return requests.post(services.url("/adhoc/"), json=body, headers=headers, timeout=60).status_code

    right = {"Authorization": f"Bearer {made}"}
    assert [submit({}), submit({"Authorization": "Bearer ee_wrong"}), submit(right, "web-1")] == [401, 401, 403]
    assert submit(right) == 200
    token("revoke", "deploy")
    assert submit(right) == 401
    log = daemon.log(100_000)
    assert 'msg="a change" who=deploy address=127.0.0.1 action=submit target=t code=200' in log
    assert made not in log
    assert made not in " ".join(services.processes().values())
    with services.database.engine.connect() as connection:
        assert made not in "\n".join(connection.connection.dbapi_connection.iterdump())  # type: ignore[union-attr]
