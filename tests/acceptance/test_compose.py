"""docker-compose.yml, the Dockerfile and script/setup compose in real containers: what a user types, and what holds."""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.servers import zabbix
from tests.servers.compose import ROOT, Compose, run
from tests.servers.process import ServerMissing, wait_for

OURS = ("distribute-1", "distribute-2", "execute-engine")
ZABBIX = ("zabbix-database", "zabbix-server", "zabbix-web")
SERVICES = ("database", "kafka-1", "nginx", *OURS, "host-1", "host-2", "host-hangs", "host-refuses", *ZABBIX)
WRITE_INTO_THEIR_IMAGES = {"kafka-1", "zabbix-server", "zabbix-web"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    try:
        compose = Compose(tmp_path_factory.mktemp("compose"))
    except ServerMissing as exc:
        pytest.skip(str(exc))
    try:
        compose.start()
        for service in ("database", "kafka-1", *OURS):
            compose.wait_until_healthy(service)
        wait_for("nginx", lambda: "live" in curl(compose, "/engines/"))
        yield compose
    finally:
        compose.stop()


def printed(cluster: Compose) -> list[str]:
    """The curl lines that script/setup compose printed."""
    return [line for line in cluster.said.splitlines() if line.startswith("curl ")]


def shell(cluster: Compose, line: str) -> str:
    ended = subprocess.run(
        ["sh", "-c", line], cwd=cluster.directory, capture_output=True, text=True, timeout=60, check=False
    )
    return ended.stdout


def curl(cluster: Compose, path: str, body: dict[str, Any] | None = None, header: str = "demo_token_header") -> str:
    """As the printed lines do it, with the token of the demo unless told."""
    root = re.search(r"'(http://.*)/adhoc/'", cluster.said)
    assert root, cluster.said
    data = "" if body is None else f"-H 'Content-Type: application/json' -d {shlex.quote(json.dumps(body))}"
    return shell(cluster, f"curl -sS -H @secrets/{header} {data} '{root[1]}{path}'")


def submit(cluster: Compose, args: str, *hosts: str, timeout: int = 90, **more: object) -> str:
    body = {
        "task_name": "test", "type": "adhoc", "ips": list(hosts), "module": "shell", "args": args, "become": False,
        "timeout": timeout, **more,
    }  # fmt: skip
    answer = json.loads(curl(cluster, "/adhoc/", body))
    assert answer["code"] == 200, answer
    return str(answer["data"]["task_id"])


def task(cluster: Compose, task_id: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(curl(cluster, f"/tasks/{task_id}/"))["data"]
    return found


def is_running(cluster: Compose, task_id: str) -> bool:
    return bool(task(cluster, task_id)["counts"]["running"] > 0)


def statuses(cluster: Compose, task_id: str, seconds: float = 120) -> dict[str, str]:
    """By host, when the task has finished."""
    wait_for(f"the end of {task_id}", lambda: task(cluster, task_id)["state"] == "finished", seconds)
    rows = json.loads(curl(cluster, f"/adhoc/?task_id={task_id}"))["data"]
    print([row for row in rows if row["status"] != "success"])  # for whoever sees a test fail
    return {row["ip"]: row["status"] for row in rows}


def test_the_printed_lines_give_a_result_that_names_the_sick_hosts(cluster: Compose) -> None:
    submission, query = printed(cluster)

    assert json.loads(shell(cluster, submission))["code"] == 200

    assert statuses(cluster, "first") == {
        "host-1": "success", "host-2": "success", "host-hangs": "timeout", "host-refuses": "unreachable",
    }  # fmt: skip
    rows = {row["ip"]: row for row in json.loads(shell(cluster, query))["data"]}
    assert "load average" in rows["host-1"]["stdout"]
    assert "running 'shell'" in json.dumps(rows["host-hangs"]["blame"])


def test_the_token_of_the_demo_is_for_its_hosts_alone(cluster: Compose) -> None:
    body = {"task_name": "x", "type": "adhoc", "ips": "10.0.0.1", "module": "ping", "args": ""}

    assert json.loads(curl(cluster, "/adhoc/", body))["code"] == 403


def test_a_token_is_made_in_a_container_and_known_at_once(cluster: Compose) -> None:
    header = cluster.directory / "secrets" / "reader_header"
    header.write_text(f"Authorization: Bearer {_token(cluster, 'reader', 'read')}\n")

    assert json.loads(curl(cluster, "/tasks/?limit=1", header="reader_header"))["code"] == 200
    assert json.loads(curl(cluster, "/tasks/x/cancel/", {}, header="reader_header"))["code"] == 403
    header.unlink()


def test_the_audit_has_the_address_that_nginx_sees_and_none_that_a_client_makes_up(cluster: Compose) -> None:
    """Of this machine that is the gateway's of nginx's network."""
    token = _token(cluster, "auditor", "admin")
    header = cluster.directory / "secrets" / "auditor_header"
    header.write_text(f"Authorization: Bearer {token}\nX-Forwarded-For: 203.0.113.9\n")
    (network,) = json.loads(cluster.podman.run("network", "inspect", f"{cluster.name}_frontend"))
    of_container = """
import sys, urllib.request
headers = {"Authorization": f"Bearer {sys.argv[1]}", "X-Forwarded-For": "203.0.113.9"}
url = "http://nginx:8080/api/v1/distribute/release/"
urllib.request.urlopen(urllib.request.Request(url, b"", headers), timeout=60)
"""

    def newest() -> str:
        (row,) = json.loads(curl(cluster, "/audit/?limit=1", header="auditor_header"))["data"]
        return str(row["address"])

    assert json.loads(curl(cluster, "/release/", {}, header="auditor_header"))["code"] == 200
    assert newest() == network["subnets"][0]["gateway"]
    cluster.podman.run("exec", cluster.container("distribute-2"), "python", "-c", of_container, token)
    assert newest() == cluster.address("distribute-2", "frontend") != cluster.address("nginx", "frontend")
    header.unlink()


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_is_nobody_in_particular_and_writes_nothing_of_its_image(cluster: Compose, service: str) -> None:
    container = cluster.container(service)
    shipped = cluster.shipped["services"][service]

    status = cluster.podman.run("exec", container, "cat", "/proc/1/status")
    kept = {key: value.split() for key, _, value in (line.partition(":") for line in status.splitlines())}
    assert "0" not in kept["Uid"]
    assert {kept[name][0] for name in ("CapEff", "CapPrm", "CapBnd")} == {"0" * 16}
    assert kept["NoNewPrivs"] == ["1"]
    wrote = cluster.podman.run(
        "exec", "-u", "0", container, "sh", "-c", "touch /etc/here 2>&1 && echo wrote", check=False
    )
    assert ("Read-only file system" in wrote) == bool(shipped.get("read_only")), wrote
    assert shipped.get("read_only") or service in WRITE_INTO_THEIR_IMAGES


def test_no_secret_is_in_the_file_an_image_or_what_inspect_shows(cluster: Compose) -> None:
    folder = cluster.directory / "secrets"
    secrets = [path.read_text() for path in folder.iterdir() if path.is_file() and path.suffix != ".pub"]
    words = {word for text in secrets for word in text.split() if len(word) > 30}
    assert len(words) >= 7  # three passwords, the key, the token, two private keys
    images = {cluster.inspect(cluster.container(service))["Image"] for service in SERVICES}
    shown = {
        "docker-compose.yml": (cluster.directory / "docker-compose.yml").read_text(),
        ".env": (cluster.directory / ".env").read_text(),
        "what setup said": cluster.said,
        **{image: cluster.podman.run("image", "inspect", image) for image in images},
        **{f"history {image}": cluster.podman.run("history", "--no-trunc", image) for image in images},
        **{service: cluster.podman.run("inspect", cluster.container(service)) for service in SERVICES},
        **{f"log {service}": cluster.logs(service) for service in SERVICES},
        **{
            f"environment {service}": cluster.podman.run("exec", cluster.container(service), "env")
            for service in SERVICES
        },
    }

    assert [place for place, text in shown.items() if any(word in text for word in words)] == []
    assert "/run/secrets/database_password" in shown["distribute-1"]  # what is looked through does say such things


def test_the_secrets_are_closed_to_others_and_ignored(cluster: Compose) -> None:
    folder = cluster.directory / "secrets"

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    # Read by the databases' users, who are others: the folder keeps everybody else on this machine out.
    open_files = {path.name for path in folder.rglob("*") if stat.S_IMODE(path.stat().st_mode) & 0o077}
    assert open_files == {"database_password", "database_root_password", "zabbix_password"}
    ignored = run(["git", "check-ignore", "secrets/ssh_key", ".env"], dict(os.environ), ROOT)
    assert ignored.split() == ["secrets/ssh_key", ".env"]


def test_setup_again_keeps_what_is_there(cluster: Compose) -> None:
    before = {path: path.read_bytes() for path in (cluster.directory / "secrets").rglob("*") if path.is_file()}

    assert cluster.set_up() == cluster.said

    assert {path: path.read_bytes() for path in before} == before


def test_a_second_engine_takes_units_and_the_stop_of_one_lets_its_unit_finish(cluster: Compose) -> None:
    cluster.up(2, "execute-engine")
    cluster.wait_until_healthy("execute-engine", 2)
    names = {
        cluster.podman.run("exec", cluster.container("execute-engine", number), "hostname").strip() for number in (1, 2)
    }
    assert len(names) == 2
    wait_for("both engines", lambda: _live(cluster) >= names)
    task_ids: list[str] = []

    def another_unit_is_on_both() -> bool:
        """The first engine gets all of them until the second one has its share of Kafka's partitions."""
        task_ids.append(submit(cluster, f"sleep 15; echo {len(task_ids)}", "host-1"))
        time.sleep(1)  # not one in each poll
        return _busy(cluster) >= names

    wait_for("units on both", another_unit_is_on_both)
    cluster.stop_service("execute-engine", 2)

    ended = cluster.inspect(cluster.container("execute-engine", 2))["State"]
    assert ended["ExitCode"] == 0
    assert [statuses(cluster, task_id) for task_id in task_ids] == [{"host-1": "success"}] * len(task_ids)


def test_an_engine_that_was_killed_comes_back_and_its_unit_is_answered_for(cluster: Compose) -> None:
    lost = submit(cluster, "sleep 60", "host-1")
    again = submit(cluster, "sleep 3; echo again", "host-2", on_engine_loss="rerun")
    wait_for("the unit to run", lambda: is_running(cluster, lost))

    cluster.podman.run("kill", "--signal", "KILL", cluster.container("execute-engine"))
    cluster.podman.run("start", cluster.container("execute-engine"))

    cluster.wait_until_healthy("execute-engine")
    assert statuses(cluster, lost) == {"host-1": "lost"}
    assert statuses(cluster, again) == {"host-2": "success"}
    assert statuses(cluster, submit(cluster, "echo back", "host-1")) == {"host-1": "success"}


def test_zabbix_knows_each_container_by_the_name_of_the_file_and_has_its_pings(cluster: Compose) -> None:
    pings = {
        "distribute-1": "exec.distribute.ping",
        "distribute-2": "exec.distribute.ping",
        "execute-engine-1": "exec.engine.ping",
    }
    cluster.configure(ENGINE_NAME="execute-engine-1")
    cluster.up_anew("execute-engine")
    for service in (*ZABBIX, *OURS):
        cluster.wait_until_healthy(service)
    password = cluster.directory / "secrets" / "zabbix_admin_password"
    password.touch(0o600)
    password.write_text(f"{zabbix.PASSWORD}\n")

    said = cluster.shell(_provisioning_of_readme()).splitlines()

    assert {f"created   host {host}" for host in pings} <= set(said)
    api = zabbix.login(f"http://127.0.0.1:{cluster.settings()['ZABBIX_PORT']}")
    wait_for(f"{pings}", lambda: all("1" in zabbix.history(api, host, key) for host, key in pings.items()))


def test_zabbix_finds_neither_our_database_nor_kafka(cluster: Compose) -> None:
    for service in ("zabbix-server", "zabbix-web"):
        container = cluster.container(service)
        assert cluster.podman.run("exec", container, "getent", "hosts", "execute-engine", "distribute-1")
        assert not cluster.podman.run("exec", container, "getent", "hosts", "database", "kafka-1", check=False)


def test_one_distribute_is_enough(cluster: Compose) -> None:
    cluster.stop_service("distribute-1")

    assert cluster.inspect(cluster.container("distribute-1"))["State"]["ExitCode"] == 0
    assert statuses(cluster, submit(cluster, "echo there", "host-1")) == {"host-1": "success"}


def _token(cluster: Compose, name: str, role: str) -> str:
    said = cluster.run_tool("token", "add", name, "--role", role).splitlines()
    (token,) = [line for line in said if line.startswith("ee_")]
    return token


def _provisioning_of_readme() -> str:
    """The block that makes all hosts."""
    blocks = (ROOT / "README.md").read_text().split("\n\n")
    (block,) = [block for block in blocks if "docker compose exec" in block and "zabbix provision" in block]
    return block


def _engines(cluster: Compose) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(curl(cluster, "/engines/"))["data"]
    return [engine for engine in found if engine["state"] == "live"]


def _live(cluster: Compose) -> set[str]:
    return {engine["engine_id"] for engine in _engines(cluster)}


def _busy(cluster: Compose) -> set[str]:
    return {engine["engine_id"] for engine in _engines(cluster) if engine["free_slots"] < engine["slots"]}
