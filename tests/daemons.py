"""The real services for acceptance tests: a backend to run on, the daemons, and a client of their REST."""

from __future__ import annotations

import configparser
import contextlib
import io
import os
import secrets
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
import sqlalchemy as sa

from contract import tables
from contract.config import DatabaseSettings
from contract.database import Database
from contract.states import EngineState, TaskState
from execute_engine import former
from tests.project_share import mark_share
from tests.servers.fleet import Fleet
from tests.servers.process import Process, free_ports, wait_for

ROOT = Path(__file__).resolve().parent.parent
BASE_PATH = "/api/v1/distribute"
MARK = "SERVICES_UNDER_TEST"  # in the environment of every process of a daemon
Envelope = dict[str, Any]
Sections = dict[str, dict[str, object]]


@dataclass(frozen=True)
class Backend:
    """What the services run on; name is one of tests.conftest.BACKENDS."""

    name: str
    directory: Path
    topic: str
    database_settings: DatabaseSettings
    kafka: str | None = None  # bootstrap servers
    fleet: Fleet | None = None
    ports: dict[str, int] = field(default_factory=dict)  # distribute's, by engine id

    def config_file(self, engine_id: str = "engine-1", **sections: Mapping[str, object]) -> Path:
        """Write a complete conf/server.conf and return its path; sections override it: Exec_Engine={"SLOTS": 60}.

        Each engine id has a file, a STATE_DIR and a port for distribute of its own, the same at each call.
        """
        merged = self._defaults(engine_id)
        for section, keys in sections.items():
            merged.setdefault(section, {}).update(keys)
        path = self.directory / engine_id / "conf" / "server.conf"
        path.parent.mkdir(parents=True, exist_ok=True)
        mark_share(Path(str(merged["Exec_Engine"]["FILES_DIR"])))
        path.write_text(config_text(merged))
        path.chmod(0o600)
        return path

    def _defaults(self, engine_id: str) -> Sections:
        if engine_id not in self.ports:
            (self.ports[engine_id],) = free_ports(1)
        settings = self.database_settings
        sections: Sections = {
            "Kafka_Cluster": {"BOOTSTRAP_SERVERS": self.kafka or "", "GROUP_ID": self.topic, "TOPIC": self.topic},
            "Fil_EXEC_MySQL": {"IP": "", "SQLITE_FILE": settings.sqlite_file},
            "Distribute": {"PORT": self.ports[engine_id], "FILES_DIR": self.directory / "files"},
            "Exec_Engine": {
                "ENGINE_ID": engine_id,
                "STATE_DIR": self.directory / engine_id / "state",
                "FILES_DIR": self.directory / "files",
                "LEASE_SECONDS": 6,
                "DRAIN_SECONDS": 5,
            },
        }
        if settings.ip:
            sections["Fil_EXEC_MySQL"] = {
                "IP": settings.ip,
                "PORT": settings.port,
                "DATABASE": settings.database,
                "USER": settings.user,
                "PASSWORD": settings.password,
            }
        if self.fleet:
            sections["Ansible"] = {
                "SSH_USER": self.fleet.user,
                "SSH_PORT": self.fleet.port,
                "SSH_KEY_FILE": self.fleet.key,
            }
        return sections


class Daemon(Process):
    """One service; signals go to its supervisor alone, as a service manager's do."""

    def __init__(self, directory: Path, name: str, module: str, config: Path, mark: str) -> None:
        super().__init__(directory, name)
        self.config = config
        self.mark = mark
        self._marks = {f"{MARK}={mark}".encode()}
        if module != "distribute":  # its launcher passes on little of the environment, and marks of its own
            state_dir = Path(_read(config)["Exec_Engine"]["STATE_DIR"])
            self._marks.add(f"{former.STATE_DIR}={state_dir.resolve()}".encode())
        self.argv = [sys.executable, "-m", module, "--config", str(config)]

    def launch(self, env: Mapping[str, str] | None = None) -> None:
        """Start, or start again, with env besides the test's own environment. Returns at once."""
        self.start(self.argv, {**os.environ, **(env or {}), "PYTHONPATH": str(ROOT), MARK: self.mark})

    def send(self, number: signal.Signals) -> None:
        if self.alive:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.stop(first=signal.SIGKILL)

    def processes(self, title: str = "") -> dict[int, str]:
        """Every living process of this daemon whose title or command line holds `title`, whatever its parent is."""
        return {pid: line for pid, line in _marked(self._marks).items() if title in line}


class Client:
    """Of a distribute's REST, wherever that runs."""

    token = ""  # "" = none

    def url(self, path: str) -> str:
        """The full address of a path below the base path."""
        raise NotImplementedError

    def api(self, path: str, json: object = None, method: str | None = None) -> Envelope:
        """The answer's envelope, whatever its code. POST with json, else GET, unless method says otherwise."""
        method = method or ("GET" if json is None else "POST")
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        answer: Envelope = requests.request(method, self.url(path), json=json, headers=headers, timeout=60).json()
        return answer

    def submit_adhoc(self, hosts: Sequence[str], args: object = "echo hi", **fields: object) -> str:
        """Submit, module shell unless fields say otherwise, and return the task id."""
        body = {"task_name": "test", "type": "adhoc", "module": "shell", "ips": list(hosts), "args": args, **fields}
        return self._submit("/adhoc/", body)

    def submit_playbook(self, hosts: Sequence[str], content: str, **fields: object) -> str:
        body = {"task_name": "test", "type": "playbook", "ips": list(hosts), "playbook_content": content, **fields}
        return self._submit("/playbook/", {"playbook_name": "test.yml", **body})

    def task(self, task_id: str) -> dict[str, Any]:
        """data of GET /tasks/{id}/"""
        answer = self.api(f"/tasks/{task_id}/")
        assert answer["code"] == 200, answer
        data: dict[str, Any] = answer["data"]
        return data

    def wait_task(self, task_id: str, seconds: float = 180) -> dict[str, Any]:
        """Wait until the task has ended; TimeoutError shows how far it got."""
        ended = (TaskState.FINISHED, TaskState.CANCELLED)
        with contextlib.suppress(TimeoutError):
            wait_for(task_id, lambda: self.task(task_id)["state"] in ended, seconds)
        task = self.task(task_id)
        if task["state"] not in ended:
            raise TimeoutError(f"{seconds} s passed, and the task has not ended: {task}")
        return task

    def hosts(self, task_id: str, **query: str) -> list[dict[str, Any]]:
        """Every item of GET /tasks/{id}/hosts/, all pages."""
        items: list[dict[str, Any]] = []
        while True:
            asked = "&".join(f"{name}={value}" for name, value in {"limit": "1000", **query}.items())
            answer = self.api(f"/tasks/{task_id}/hosts/?{asked}")
            assert answer["code"] == 200, answer
            items += answer["data"]
            if not answer["cursor"]:
                return items
            query["cursor"] = answer["cursor"]

    def each(self, task_id: str, name: str) -> list[Any]:
        """One field of every host."""
        return [item[name] for item in self.hosts(task_id)]

    def engine(self) -> dict[str, Any]:
        """The item of GET /engines/, where there is one engine."""
        (engine,) = self.api("/engines/")["data"]
        found: dict[str, Any] = engine
        return found

    def _submit(self, path: str, body: dict[str, Any]) -> str:
        answer = self.api(path, body)
        assert answer["code"] == 200, answer
        return str(answer["data"]["task_id"])


class Services(Client):
    """Daemons on one backend, their logs in its directory.

    start() is enough for most tests. The client speaks to `self.distribute`, the distribute started last.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.database = Database(backend.database_settings)
        self.distributes: list[Daemon] = []
        self.engines: list[Daemon] = []

    def start(self, engines: int = 1, distributes: int = 1, **sections: Mapping[str, object]) -> None:
        """Start engine-1, engine-2, ... and as many distributes; blocks until all of them are ready."""
        for number in range(1, distributes + 1):
            self.start_distribute(self.backend.config_file(f"engine-{number}", **sections))
        for number in range(1, engines + 1):
            self.start_engine(self.backend.config_file(f"engine-{number}", **sections))

    def start_distribute(self, config: Path, env: Mapping[str, str] | None = None) -> Daemon:
        """Blocks until GET /readyz answers 200."""
        daemon = self._daemon("distribute", config, self.distributes)
        daemon.launch(env)
        self.wait_distribute(daemon)
        return daemon

    def wait_distribute(self, daemon: Daemon) -> None:
        url = f"http://127.0.0.1:{_read(daemon.config)['Distribute']['PORT']}/readyz"

        def ready() -> bool:
            with contextlib.suppress(requests.RequestException):
                return requests.get(url, timeout=5).status_code == 200
            return False

        daemon.wait_until(ready)

    def start_engine(
        self,
        config: Path,
        env: Mapping[str, str] | None = None,
        module: str = "execute_engine",
        within: Sequence[str] = (),
    ) -> Daemon:
        """Blocks until a new incarnation of the engine is live. Another module is one of tests.runners; within is a
        command that becomes the daemon in surroundings of its own.
        """
        daemon = self._daemon(module, config, self.engines)
        daemon.argv[:0] = within
        engine_id = _read(config)["Exec_Engine"]["ENGINE_ID"]
        former = self.live_incarnations(engine_id)
        daemon.launch(env)
        daemon.wait_until(lambda: bool(self.live_incarnations(engine_id) - former))
        return daemon

    def live_incarnations(self, engine_id: str) -> set[str]:
        engine = tables.engine.c
        query = sa.select(engine.incarnation).where(engine.id == engine_id, engine.state == EngineState.LIVE)
        return self.database.read(lambda connection: set(connection.scalars(query)))

    @property
    def distribute(self) -> Daemon:
        return self.distributes[-1]

    def url(self, path: str) -> str:
        """The full address of a path below the base path."""
        return f"http://127.0.0.1:{_read(self.distribute.config)['Distribute']['PORT']}{BASE_PATH}{path}"

    def processes(self, title: str = "") -> dict[int, str]:
        """Of all daemons, also those that have ended."""
        return {pid: line for daemon in self._all for pid, line in daemon.processes(title).items()}

    def stop(self) -> None:
        """SIGTERM, then SIGKILL. Raises AssertionError when a process of theirs outlives its daemon."""
        for daemon in self._all:
            daemon.send(signal.SIGTERM)
        for daemon in self._all:
            daemon.stop(seconds=60)
        self.database.close()
        with contextlib.suppress(TimeoutError):
            wait_for("the daemons' processes to end", lambda: not self.processes(), 15)
        left = self.processes()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert not left, f"processes are left after their daemons: {left}"

    def logs(self) -> str:
        return "\n".join(f"--- the end of {daemon.log_file}\n{daemon.log(6000)}" for daemon in self._all)

    @property
    def _all(self) -> list[Daemon]:
        return [*self.distributes, *self.engines]

    def _daemon(self, module: str, config: Path, among: list[Daemon]) -> Daemon:
        name = f"{module}-{len(among) + 1}"
        daemon = Daemon(self.backend.directory, name, module, config, secrets.token_hex(8))
        among.append(daemon)
        return daemon


def config_text(sections: Mapping[str, Mapping[str, object]]) -> str:
    """A server.conf."""
    parser, text = _parser(), io.StringIO()
    parser.read_dict(sections)
    parser.write(text)
    return text.getvalue()


def _parser() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    return parser


def _read(config: Path) -> configparser.ConfigParser:
    parser = _parser()
    parser.read(config)
    return parser


def _marked(marks: set[bytes]) -> dict[int, str]:
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # ended meanwhile
            if marks & set((entry / "environ").read_bytes().split(b"\0")):
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found[int(entry.name)] = line
    return found
