"""The contestant that is this project: tasks through REST, from the request to their rows."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import sqlalchemy as sa

from benchmarks.cpu import tree_cpu_seconds
from benchmarks.services import Bench
from contract.states import HostStatus, TaskState
from contract.tables import host_result, task
from tests.daemons import Daemon, Services
from tests.servers.fleet import Fleet
from tests.servers.process import wait_for

TASK_SECONDS = 1800
SETTLE_SECONDS = 3
WARM_HOSTS = 3
LOGINS_AT_ONCE = 120  # all hosts are one sshd: of a thousand at once its listen queue drops some
LOGINS: dict[str, dict[str, object]] = {  # [Ansible] of engines that log in in either way
    "key": {},
    "password": {"SSH_USER": Fleet.password_user, "SSH_PASSWORD": Fleet.password, "SSH_KEY_FILE": ""},
}


class Engine:
    """One engine and the distribute that it works for."""

    def __init__(self, services: Services) -> None:
        self.services = services

    @property
    def daemon(self) -> Daemon:
        (daemon,) = self.services.engines
        return daemon

    def adhoc(self, hosts: Sequence[str], module: str, args: object = "", **fields: object) -> str:
        """Submit it, and return the task's id."""
        fields = {"module": module, "become": False, "timeout": 600, **fields}
        return self.services.submit_adhoc(hosts, args, **fields)

    def playbook(self, hosts: Sequence[str], content: str) -> str:
        return self.services.submit_playbook(hosts, content, timeout=600)

    def clone(self, project: str) -> None:
        answer = self.services.api("/file/", {"project_name": project})
        if answer["code"] != 200:
            raise RuntimeError(f"expected {project} to be cloned, found {answer}")

    def finish(self, task_id: str, **counts: int) -> dict[str, Any]:
        """Wait for the task's end, and answer it. Raises RuntimeError unless its hosts ended so: success=30."""
        found_task = self.services.wait_task(task_id, TASK_SECONDS)
        found = {status: number for status, number in found_task["counts"].items() if number}
        if found != {status: number for status, number in counts.items() if number}:
            some = self.services.hosts(task_id)[:3]
            raise RuntimeError(f"expected the hosts to end as {counts}, found {found}, such as {some}")
        return found_task

    def cancel(self, task_id: str) -> None:
        """Blocks until the task has ended."""
        self.services.api(f"/tasks/{task_id}/cancel/", method="POST")
        self.services.wait_task(task_id, TASK_SECONDS)

    @contextlib.contextmanager
    def holding(self, fleet: Fleet, count: int, unit_hosts: int | None = None) -> Iterator[None]:
        """In the block so many hosts are logged in to, and their commands never end; afterwards they are cancelled."""
        hosts = fleet.hosts("hang", count)
        fields = {"unit_hosts": unit_hosts} if unit_hosts else {}
        task_ids: list[str] = []
        try:
            for first in range(0, count, LOGINS_AT_ONCE):
                wave = hosts[first : first + LOGINS_AT_ONCE]
                task_ids.append(self.adhoc(wave, "raw", "echo hi", timeout=TASK_SECONDS, **fields))
                wait_for("the hosts to hang", partial(_hang, fleet, first + len(wave)), TASK_SECONDS)
            time.sleep(SETTLE_SECONDS)
            yield
        finally:
            for task_id in task_ids:
                self.cancel(task_id)

    def cpu_ms_a_host(self, submit: Callable[[], str], hosts: int) -> float:
        """Of the engine's whole tree, from the request until the last guard is gone; all hosts must succeed."""
        before = tree_cpu_seconds(self.daemon.pid)
        self.finish(submit(), success=hosts)
        # A guard's time stands in the launcher's when that has reaped it.
        wait_for("the guards to end", lambda: not self.daemon.processes("execute-engine: guard"))
        return 1000 * (tree_cpu_seconds(self.daemon.pid) - before) / hosts

    def seconds_to_the_last_row(self, submit: Callable[[], str], hosts: int, **others: int) -> float:
        """From the request until so many hosts stand in the database as successful; then waits for the task's end.

        The database is asked, every 20 ms: REST would take CPU from what is measured. others: how else hosts end.
        """
        began = time.monotonic()
        task_id = submit()
        wait_for("the results", lambda: self._successes(task_id) == hosts, TASK_SECONDS)
        seconds = time.monotonic() - began
        self.finish(task_id, success=hosts, **others)
        return seconds

    def seconds_to_its_first_claim(self, host: str) -> float:
        """A stopped engine's, from its start on; the task waits already. Ends with the task's end."""
        task_id = self.adhoc([host], "raw", "echo hi")
        began = time.monotonic()
        self.daemon.launch()
        wait_for("the first claim", lambda: self.services.task(task_id)["state"] != TaskState.QUEUED)
        seconds = time.monotonic() - began
        self.finish(task_id, success=1)
        return seconds

    def _successes(self, task_id: str) -> int:
        query = (
            sa.select(sa.func.count())
            .select_from(host_result.join(task, task.c.key == host_result.c.task_key))
            .where(task.c.id == task_id, host_result.c.status == HostStatus.SUCCESS)
        )
        return self.services.database.read(lambda connection: connection.scalar(query) or 0)


@contextlib.contextmanager
def engine(
    servers: Bench, login: str = "key", *, gitlab: Mapping[str, object] | None = None, **settings: object
) -> Iterator[Engine]:
    """An engine that logs in by this of LOGINS; settings are keys of [Exec_Engine].

    It is warm: the first unit after a start pays for what is kept afterwards.
    """
    with servers.services(login, Ansible=LOGINS[login], Exec_Engine=settings, Gitlab=gitlab or {}) as services:
        warm = Engine(services)
        warm.finish(warm.adhoc(Fleet.hosts("healthy", WARM_HOSTS), "ping"), success=WARM_HOSTS)
        yield warm


def _hang(fleet: Fleet, count: int) -> bool:
    return len(fleet.processes()) >= count
