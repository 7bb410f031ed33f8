"""The services as script/install puts them under a real systemd, in a box; and a client of their REST."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import requests

from tests.daemons import BASE_PATH, Client, config_text
from tests.servers.fleet import Fleet
from tests.servers.process import free_ports, wait_for
from tests.servers.systemd_box import SystemdBox

ROOT = Path(__file__).parents[2]
RELEASE = "/srv/release"  # in the box: the checkout that is installed from
PREFIX = "/app/execute-engine"
STATE = "/var/lib/execute-engine"
ENGINE, DISTRIBUTE = "execute-engine", "distribute"
INSTALL_SECONDS = 900.0  # a hundred packages, on a machine that has other things to do
NOT_SHIPPED = shutil.ignore_patterns(
    ".venv", ".git", "data", "__pycache__", ".*_cache", ".hypothesis", "tokens", "*.key"
)


class Installed(Client):
    def __init__(self, box: SystemdBox, fleet: Fleet) -> None:
        self.box = box
        self.fleet = fleet
        (self.port,) = free_ports(1)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{BASE_PATH}{path}"

    def bring_checkout(self, place: str = RELEASE) -> None:
        self.box.copy_in(ROOT, place, NOT_SHIPPED)

    def configure(self, **sections: Mapping[str, object]) -> None:
        """Write a complete conf/server.conf, with the fleet's key beside it; sections override it."""
        merged: dict[str, dict[str, object]] = {
            "Distribute": {"PORT": self.port},
            "Exec_Engine": {"ENGINE_ID": "box", "LEASE_SECONDS": 6, "DRAIN_SECONDS": 90},
            "Ansible": {"SSH_USER": self.fleet.user, "SSH_PORT": self.fleet.port, "SSH_KEY_FILE": "conf/id"},
        }
        for section, keys in sections.items():
            merged.setdefault(section, {}).update(keys)
        self.write("conf/id", self.fleet.key.read_text())
        self.write("conf/server.conf", config_text(merged))

    def write(self, path: str, text: str) -> None:
        """A file below PREFIX, of conf's owner and for it alone; an existing one keeps both."""
        file = self.box.root / PREFIX.lstrip("/") / path
        file.touch(mode=0o600)
        file.write_text(text)
        owner = file.parent.stat()
        os.chown(file, owner.st_uid, owner.st_gid)

    def install(self, *arguments: str, script: str = f"{RELEASE}/script/install") -> str:
        return self.box.run(script, *arguments, seconds=INSTALL_SECONDS)

    def start(self, *services: str) -> None:
        """Blocks until distribute answers, if it is one of them, and the engine is seen by it."""
        self.box.run("systemctl", "restart", *(services or (DISTRIBUTE, ENGINE)))
        self.wait_until_well()

    def wait_until_well(self) -> None:
        wait_for("the services to be well", self.are_well)

    def are_well(self) -> bool:
        """Both active, distribute answers, and one engine is live that can run something."""
        if any(self.box.show(service, "ActiveState") != "active" for service in (DISTRIBUTE, ENGINE)):
            return False
        with contextlib.suppress(requests.RequestException, ValueError):
            engines = self.api("/engines/")["data"]
            return bool(self.box.processes(ENGINE, "launcher")) and [e["state"] for e in engines].count("live") == 1
        return False

    def wait_running(self, task_id: str, hosts: int = 1) -> None:
        """Until commands of the task run on the fleet."""
        wait_for("the task to run", lambda: self.task(task_id)["counts"]["running"] == hosts)

    @contextlib.contextmanager
    def drop_in(self, service: str, lines: str) -> Iterator[None]:
        """Lines of [Service] for as long as the block lasts; the service is not restarted."""
        file = self.box.root / f"etc/systemd/system/{service}.service.d/90-test.conf"
        file.write_text(f"[Service]\n{lines}\n")
        self.box.run("systemctl", "daemon-reload")
        try:
            yield
        finally:
            file.unlink()
            self.box.run("systemctl", "daemon-reload")
