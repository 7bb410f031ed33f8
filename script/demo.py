"""distribute and one engine on SQLite, an sshd of the current user's own as 120 hosts, a few of them sick, two tasks.

Everything lies in a temporary directory and is gone at the end. Exit code 0 only when the sick hosts were named and no
others.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from demo_screen import Json, Progress, table

from tests.servers.private_sshd import PrivateSshd
from tests.servers.process import Process, ServerMissing, free_ports, wait_for

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_SECONDS = 24  # of each task: its sick hosts hang until then, and two cores need 12 s for the others
STARTS = 8  # but this many times what the services took to start: a machine that is slow or busy needs longer for all
POLL_SECONDS = 0.5
STUCK_SHOWN = 3
PLAYBOOK = """\
- hosts: all
  gather_facts: false
  tasks:
    - name: say who it is
      command: echo {{ inventory_hostname }}
      register: said
    - name: count
      shell: echo {{ item }}
      loop: [one, two, three]
      notify: tell
    - name: check the answer
      assert:
        that: said.stdout == inventory_hostname
  handlers:
    - name: tell
      command: echo done
"""
CONFIG = """\
[Ansible]
SSH_USER = {sshd.user}
SSH_PORT = {sshd.port}
SSH_KEY_FILE = {sshd.key}

[Distribute]
PORT = {port}

[Exec_Engine]
ENGINE_ID = demo
"""


class Client:
    """The REST API of one distribute."""

    def __init__(self, port: int) -> None:
        self.root = f"http://127.0.0.1:{port}"
        self.base = f"{self.root}/api/v1/distribute"

    def ready(self) -> bool:
        """Whether distribute answers and an engine is live."""
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{self.root}/readyz", timeout=5).close()
            return any(engine["state"] == "live" for engine in self.call("/engines/"))
        return False

    def call(self, path: str, body: Json | None = None) -> Any:
        """data of the answer to a GET, or to a POST of body."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)["data"]

    def watch(self, task_id: str) -> list[Json]:
        """Show the task until it has finished, then its table. Returns its hosts."""
        began, progress = time.monotonic(), Progress()
        while True:
            task = self.call(f"/tasks/{task_id}/")
            stuck = self.call(f"/tasks/{task_id}/hosts/?status=running&limit={STUCK_SHOWN}")
            progress.show(task, stuck)
            if task["state"] == "finished":
                break
            time.sleep(POLL_SECONDS)
        hosts: list[Json] = self.call(f"/tasks/{task_id}/hosts/?limit=1000")
        print(f"\n{table(task, hosts, time.monotonic() - began)}\n", flush=True)
        return hosts


@contextlib.contextmanager
def running_services(directory: Path) -> Iterator[tuple[Client, PrivateSshd, int]]:
    """The hosts, distribute and an engine, and the timeout of a task; all of them are stopped at the end."""
    sshd = PrivateSshd(directory)
    services = {name: Process(directory, name) for name in ("execute_engine", "distribute")}
    (port,) = free_ports(1)
    client = Client(port)
    try:
        sshd.start()
        config = directory / "conf" / "server.conf"
        config.parent.mkdir()
        config.write_text(CONFIG.format(sshd=sshd, port=port))
        began = time.monotonic()
        for name, service in services.items():
            service.start(
                [sys.executable, "-m", name, "--config", str(config)], {**os.environ, "PYTHONPATH": str(ROOT)}
            )
        wait_for("the services", lambda: all(map(_lives, services.values())) and client.ready(), 120)
        yield client, sshd, max(TIMEOUT_SECONDS, round(STARTS * (time.monotonic() - began)))
    finally:
        for service in services.values():
            service.send(signal.SIGTERM)
        for service in services.values():
            service.stop(seconds=20)
        sshd.stop()


def _lives(service: Process) -> bool:
    if not service.alive:
        raise RuntimeError(f"{service.name} ended:\n{service.log()}")
    return True


def run_adhoc(client: Client, sshd: PrivateSshd, timeout: int) -> bool:
    sick = [*sshd.hosts("hang", 3), *sshd.hosts("no_auth", 1)]
    hosts = [*sshd.hosts("healthy", 116), *sick]
    print(f"Ad hoc: shell 'uptime' on {len(hosts)} hosts; three will hang, one refuses ssh; timeout {timeout} s\n")
    body = {"task_name": "uptime", "type": "adhoc", "module": "shell", "args": "uptime", "become": False}
    return _run(client, "/adhoc/", {**body, "ips": hosts, "timeout": timeout}, sick)


def run_playbook(client: Client, sshd: PrivateSshd, timeout: int) -> bool:
    sick = sshd.hosts("block", 1)
    hosts = [*sshd.hosts("healthy", 14), *sick]
    print(f"Playbook: 3 tasks and a handler on {len(hosts)} hosts; one lets no module run; timeout {timeout} s\n")
    body = {"task_name": "playbook", "type": "playbook", "playbook_name": "demo.yml", "playbook_content": PLAYBOOK}
    return _run(client, "/playbook/", {**body, "ips": hosts, "timeout": timeout}, sick)


def _run(client: Client, path: str, body: Json, sick: list[str]) -> bool:
    """Whether exactly the sick hosts have no good result."""
    hosts = client.watch(client.call(path, body)["task_id"])
    return sorted(sick) == sorted(host["ip"] for host in hosts if host["result"] != "success")


def stay(client: Client, directory: Path) -> None:
    host = PrivateSshd.hosts("healthy", 1)[0]
    body = json.dumps(
        {"task_name": "mine", "ips": host, "module": "shell", "args": "id", "type": "adhoc", "become": False}
    )
    print(f"""It goes on until Ctrl-C; logs and database are in {directory}. Try:

  {client.root}/docs
  curl '{client.base}/tasks/'
  curl '{client.base}/tasks/ID/hosts/?status=timeout'
  curl '{client.base}/adhoc/?ip={host}'
  curl -X POST -H 'Content-Type: application/json' '{client.base}/adhoc/' \\
       -d '{body}'
""", flush=True)  # fmt: skip
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            signal.pause()


def main() -> int:
    parser = argparse.ArgumentParser(prog="script/demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="stay until Ctrl-C and print what to try")
    keep = parser.parse_args().keep
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # is stopped as cleanly as by Ctrl-C
    with tempfile.TemporaryDirectory(prefix="execute-engine-") as name:
        directory = Path(name)
        try:
            with running_services(directory) as (client, sshd, timeout):
                as_expected = [run_adhoc(client, sshd, timeout), run_playbook(client, sshd, timeout)]
                if keep:
                    stay(client, directory)
        except ServerMissing as exc:
            print(f"script/demo: {exc}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130
    if not all(as_expected):
        print("script/demo: these were not the hosts that were expected to be sick", file=sys.stderr)
    return 0 if all(as_expected) else 1


if __name__ == "__main__":
    sys.exit(main())
