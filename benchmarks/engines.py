"""The contestant that is this project: tasks through REST, and what they cost the engine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.cpu import tree_cpu_seconds
from benchmarks.services import Bench
from tests.daemons import Services
from tests.servers.fleet import Fleet
from tests.servers.process import wait_for

TASK_SECONDS = 1800
LOGINS: dict[str, dict[str, object]] = {  # [Ansible] of engines that log in in either way
    "key": {},
    "password": {"SSH_USER": Fleet.password_user, "SSH_PASSWORD": Fleet.password, "SSH_KEY_FILE": ""},
}


class Engine:
    """distribute and one engine that is warm: the first unit after a start pays for what is kept afterwards."""

    def __init__(self, services: Services) -> None:
        self.services = services

    def adhoc(self, hosts: Sequence[str], module: str, args: object = "", **fields: object) -> dict[str, Any]:
        """Run it to its end; all hosts must succeed, or RuntimeError. The answer of GET /tasks/{id}/."""
        fields = {"module": module, "become": False, "timeout": 600, **fields}
        return self.finish(self.services.submit_adhoc(hosts, args, **fields), success=len(hosts))

    def playbook(self, hosts: Sequence[str], content: str) -> dict[str, Any]:
        return self.finish(self.services.submit_playbook(hosts, content, timeout=600), success=len(hosts))

    def finish(self, task_id: str, **counts: int) -> dict[str, Any]:
        """Wait for the task's end. Raises RuntimeError unless its hosts ended so."""
        task = self.services.wait_task(task_id, TASK_SECONDS)
        found = {status: number for status, number in task["counts"].items() if number}
        if found != {status: number for status, number in counts.items() if number}:
            some = self.services.hosts(task_id)[:3]
            raise RuntimeError(f"expected the hosts to end as {counts}, found {found}, such as {some}")
        return task

    @contextlib.contextmanager
    def metered(self) -> Iterator[list[float]]:
        """The list has the CPU seconds of the engine's whole tree in the block, when its last guard is gone."""
        (engine,) = self.services.engines
        before, spent = tree_cpu_seconds(engine.pid), list[float]()
        yield spent
        # A guard's time stands in the launcher's when that has reaped it.
        wait_for("the guards to end", lambda: not engine.processes("execute-engine: guard"))
        spent.append(tree_cpu_seconds(engine.pid) - before)


@contextlib.contextmanager
def engine(servers: Bench, login: str = "key", **settings: object) -> Iterator[Engine]:
    """An engine that logs in by this of LOGINS; settings are keys of [Exec_Engine]."""
    with servers.services(login, Ansible=LOGINS[login], Exec_Engine=settings) as services:
        warm = Engine(services)
        warm.adhoc(Fleet.hosts("healthy", 3), "ping")
        yield warm
