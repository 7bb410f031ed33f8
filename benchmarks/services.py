"""What the benchmarks share: the ssh fleet, and distribute with one engine on the embedded default."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.servers.fleet import Fleet

ROOT = Path(__file__).resolve().parent.parent


def call(url: str, body: dict[str, object] | None = None, *, whole: bool = False) -> Any:
    """data of the answer to a GET, or to a POST of body; the whole envelope on request."""
    request = urllib.request.Request(
        url, data=None if body is None else json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        envelope = json.load(answer)
    return envelope if whole else envelope["data"]


class Services:
    """distribute and one engine, run through REST."""

    def __init__(self, scratch: Path, fleet: Fleet, port: int, slots: int) -> None:
        config = scratch / "conf" / "server.conf"
        config.parent.mkdir()
        config.write_text(
            f"[Ansible]\nSSH_USER = ee-ops\nSSH_PORT = {fleet.port}\nSSH_KEY_FILE = {fleet.key}\n"
            f"HOST_KEY_CHECKING = no\n[Distribute]\nPORT = {port}\n[Exec_Engine]\nSLOTS = {slots}\n"
        )
        self.base = f"http://127.0.0.1:{port}/api/v1/distribute"
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-m", service, "--config", str(config)], cwd=ROOT, stderr=(scratch / service).open("w")
            )
            for service in ("distribute", "execute_engine")
        ]
        self.engine_pid = self.processes[1].pid
        wait_for("a live engine", self._is_live)

    def run(self, hosts: list[str], module: str, args: str, timeout: int = 300) -> dict[str, Any]:
        """Run an ad hoc task to its end; data of GET /tasks/{id}/."""
        body = {"task_name": "benchmark", "type": "adhoc", "ips": hosts, "module": module, "args": args}
        task = call(f"{self.base}/adhoc/", {**body, "timeout": timeout, "become": False})
        url = f"{self.base}/tasks/{task['task_id']}/"
        wait_for("the task", lambda: call(url)["state"] == "finished", 1800)
        found: dict[str, Any] = call(url)
        return found

    def stop(self) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            process.wait(60)

    def _is_live(self) -> bool:
        with contextlib.suppress(OSError):
            return bool(call(f"{self.base}/engines/"))
        return False


def wait_for(what: str, condition: Callable[[], bool], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{seconds} s passed, still waiting for {what}")
        time.sleep(0.2)


@contextlib.contextmanager
def running_fleet(directory: Path) -> Iterator[Fleet]:
    directory.mkdir()
    fleet = Fleet(directory)
    fleet.start()
    try:
        yield fleet
    finally:
        fleet.stop()
