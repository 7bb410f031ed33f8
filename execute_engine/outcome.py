"""How a host's task results become its one final result. Plain data in, HostDone out; knows nothing of Ansible.

One Outcomes holds the hosts of one unit. Ansible's thread tells it what begins and ends; whoever ends the unit early
asks it what each host was doing. Each host is handed out as HostDone exactly once, whoever comes first.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from contract.states import HostStatus
from execute_engine.events import HostDone
from execute_engine.output import fit

OK, FAILED, IGNORED, RESCUED = "ok", "failed", "ignored", "rescued"
SKIPPED, UNREACHABLE = "skipped", "unreachable"
_QUIET_WORDS = {  # by stage, followed by seconds
    "connecting": "no TCP answer for",
    "greeting": "connected, but no ssh greeting for",
    "login": "no end of the ssh login for",
    "running": "no output for",
    "output": "no more output for",
}
_COUNTS_AS_OK = (OK, SKIPPED, IGNORED)


@dataclass(frozen=True)
class TaskEnd:
    """How one task went on one host; texts are masked and cut already."""

    status: str  # ok | failed | ignored | rescued | skipped | unreachable
    changed: bool = False
    rc: int | None = None
    stdout: str | None = None
    stderr: str | None = None
    msg: str | None = None
    detail: dict[str, Any] = field(default_factory=dict)  # cmd, dest, result, warnings: what the module gave besides


@dataclass(frozen=True)
class Stuck:
    """What a connection knows of a host that is ended."""

    stage: str
    since: str  # ISO 8601, UTC
    quiet_seconds: float | None  # since the command last wrote something, or the stage began; None: not known


@dataclass
class _Running:
    key: str
    name: str
    began: float  # monotonic


@dataclass
class _Host:
    name: str
    started_at: str | None = None  # the first connection attempt
    started: float | None = None  # the same, monotonic
    worked_seconds: float = 0.0  # in tasks that have ended
    first_task_at: str | None = None
    running: _Running | None = None
    last_key: str | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    planned: set[str] = field(default_factory=set)  # keys of the tasks that the plays have for this host
    ok_keys: set[str] = field(default_factory=set)
    extra_total: int = 0  # handlers, rescue and included tasks, once they ran
    extra_ok: int = 0
    changed: bool = False
    worst: TaskEnd | None = None  # the failure that decides how the host is reported
    worst_task: str | None = None
    last: TaskEnd | None = None
    done: bool = False

    @property
    def tasks_ok(self) -> int:
        return len(self.ok_keys & self.planned) + self.extra_ok

    @property
    def tasks_total(self) -> int:
        return len(self.planned) + self.extra_total


class Outcomes:
    """Thread-safe: every public method holds one lock for a moment and blocks on nothing else."""

    def __init__(self, hosts: Iterable[str], playbook: bool, now: Callable[[], str]) -> None:
        """now() gives the time as the database stores it."""
        self._hosts = {name: _Host(name) for name in hosts}
        self._playbook = playbook
        self._now = now
        self._lock = threading.RLock()
        self.hangs_at: Callable[[], str | None] = lambda: None  # what keeps all hosts that run nothing from going on

    def plan(self, host: str, keys: Collection[str]) -> None:
        """These tasks are in the plays for this host: they count in tasks_total, run or not."""
        with self._lock:
            if found := self._hosts.get(host):
                found.planned.update(keys)

    def connected(self, host: str, at: str) -> None:
        """The host's first connection attempt."""
        with self._lock:
            if (found := self._hosts.get(host)) and found.started_at is None:
                found.started_at, found.started = at, time.monotonic()

    def task_begun(self, host: str, key: str, name: str) -> None:
        with self._lock:
            if found := self._hosts.get(host):
                found.running = _Running(key, name, time.monotonic())
                found.first_task_at = found.first_task_at or self._now()

    def task_ended(self, host: str, key: str, name: str, end: TaskEnd, counts: bool = True) -> None:
        """counts is False for the fact gathering that nobody wrote into the play."""
        with self._lock:
            found = self._hosts.get(host)
            if found is None or found.done:
                return
            running, found.running = found.running, None
            if running is not None and found.started is not None:
                found.worked_seconds += time.monotonic() - max(running.began, found.started)
            seconds = round(time.monotonic() - running.began, 3) if running and running.key == key else 0.0
            if running is None and found.last_key == key:  # an include that was fine until its file was read
                self._take_back(found, key)
            found.last_key = key
            found.rows.append({"name": name, "status": end.status, "seconds": seconds, "changed": end.changed})
            found.changed = found.changed or end.changed
            found.last = end
            if end.status in (FAILED, UNREACHABLE):
                found.worst, found.worst_task = end, name
            if counts:
                self._count(found, key, end.status)

    def _count(self, host: _Host, key: str, status: str) -> None:
        fine = status in _COUNTS_AS_OK
        if key not in host.planned:
            host.extra_total += 1
            host.extra_ok += fine
        elif fine:
            host.ok_keys.add(key)

    def _take_back(self, host: _Host, key: str) -> None:
        host.rows.pop()
        if key in host.planned:
            host.ok_keys.discard(key)
        else:
            host.extra_total -= 1
            host.extra_ok -= 1

    def done_once_for_all(self, key: str, hosts: Iterable[str]) -> None:
        """A run_once task was fine: it counts as done for these hosts too, which did not run it themselves."""
        with self._lock:
            for name in hosts:
                if (host := self._hosts.get(name)) and key in host.planned:
                    host.ok_keys.add(key)

    def busy(self, host: str) -> bool:
        with self._lock:
            found = self._hosts.get(host)
            return found is not None and found.running is not None

    def failed(self, host: str) -> bool:
        with self._lock:
            found = self._hosts.get(host)
            return found is not None and found.worst is not None

    def open_hosts(self) -> list[str]:
        """Those without a final result, in the order of the unit."""
        with self._lock:
            return [name for name, host in self._hosts.items() if not host.done]

    def running_hosts(self) -> list[str]:
        """Open hosts that run a task now."""
        with self._lock:
            return [name for name, host in self._hosts.items() if not host.done and host.running]

    def time_left(self, host_seconds: float | None, task_seconds: float | None) -> dict[str, float]:
        """Of each open host that runs a task: seconds until its own time or its task's is over, below 0 where it is.

        Only its own work counts, from its first connection attempt: not the wait for a login slot or for other hosts.
        """
        now = time.monotonic()
        found = {}
        with self._lock:
            for name, host in self._hosts.items():
                if host.done or host.running is None or host.started is None:
                    continue
                runs_for = now - max(host.running.began, host.started)
                left = [
                    limit - used
                    for limit, used in ((host_seconds, host.worked_seconds + runs_for), (task_seconds, runs_for))
                    if limit is not None
                ]
                if left:
                    found[name] = min(left)
        return found

    def finish(self, host: str, stopped_with_others: bool = False) -> HostDone | None:
        """The result of a host that has nothing left to do; None when it was handed out before.

        stopped_with_others: it was taken out because other hosts failed (any_errors_fatal, run_once, serial).
        """
        with self._lock:
            found = self._hosts.get(host)
            if found is None or found.done:
                return None
            found.done = True
            return self._natural(found, stopped_with_others)

    def _natural(self, host: _Host, stopped_with_others: bool) -> HostDone:
        if host.worst is not None:
            status = HostStatus.UNREACHABLE if host.worst.status == UNREACHABLE else HostStatus.FAILED
            return self._result(host, status, host.worst)
        if not host.rows:
            blame = (
                "Nothing was started on this host: the playbook ended because of failures on other hosts of its unit."
                if stopped_with_others or host.planned
                else "Nothing was started on this host: no play of the playbook is for it."
            )
            return self._result(host, HostStatus.NOT_STARTED, None, blame=blame)
        if stopped_with_others:
            text = "Stopped because other hosts of its unit failed (run_once, any_errors_fatal or max_fail_percentage)."
            return self._result(host, HostStatus.FAILED, TaskEnd(FAILED, msg=text))
        return self._result(host, HostStatus.SUCCESS, None if self._playbook else host.last)

    def cut_off(self, hosts: Iterable[str], reason: str, engine_id: str, stuck: Mapping[str, Stuck]) -> list[HostDone]:
        """Takes these open hosts out for good and says of each what it was doing.

        reason is "deadline" or "stop: TEXT". stuck has the hosts with something going on on their connection.
        """
        with self._lock:
            taken = [host for name in hosts if not (host := self._hosts[name]).done]
            finished = sum(host.done for host in self._hosts.values())
            culprits = self.hangs_at() or _names([host.name for host in taken if host.running])
            found = []
            for host in taken:
                host.done = True
                if host.worst is not None and host.running is None:  # it had failed, and nobody knew if for good
                    found.append(self._natural(host, stopped_with_others=False))
                else:
                    found.append(self._cut(host, reason, engine_id, stuck.get(host.name), culprits, finished))
            return found

    def _cut(
        self, host: _Host, reason: str, engine_id: str, stuck: Stuck | None, culprits: str, finished: int
    ) -> HostDone:
        running = host.running
        if running is not None and (stuck is not None or host.started_at is not None or host.rows):
            status, blame = HostStatus.TIMEOUT, _running_words(running, engine_id, stuck)
            if len(self._hosts) > 1:
                blame += f"; {finished} of the unit's {len(self._hosts)} hosts had finished by then"
        elif host.rows:
            status, stuck = HostStatus.HELD, None
            culprits = culprits or "other hosts of its unit"
            blame = f"had finished {host.tasks_ok} of {host.tasks_total} tasks and was waiting for {culprits}"
        else:
            status = HostStatus.NOT_STARTED
            blame = f"nothing of it had been started on engine {engine_id}"
            blame += f": it was waiting for {culprits}" if culprits else ""
        if reason != "deadline":
            status = HostStatus.CANCELLED
            blame = f"{reason.removeprefix('stop:').strip() or 'stopped'}: {blame}"
        return self._result(
            host,
            status,
            None,
            blame=blame,
            stuck_task=running.name if running and (stuck or host.started_at or host.rows) else None,
            stage=stuck.stage if stuck else None,
            since=stuck.since if stuck else None,
        )

    def _result(self, host: _Host, status: HostStatus, end: TaskEnd | None, **more: Any) -> HostDone:
        end = end or TaskEnd(OK)
        detail = dict(end.detail)
        if self._playbook:
            detail |= {"counts": _counts(host), "tasks": host.rows}
            if status in (HostStatus.FAILED, HostStatus.UNREACHABLE):
                detail["failed_task"] = host.worst_task
        began = host.started_at or (host.first_task_at if host.rows else None)
        return HostDone(
            host=host.name,
            status=str(status),
            rc=end.rc,
            changed=host.changed if host.rows else None,
            stdout=end.stdout,
            stderr=end.stderr,
            msg=end.msg,
            tasks_ok=host.tasks_ok if self._playbook else None,
            tasks_total=host.tasks_total if self._playbook else None,
            started_at=began,
            finished_at=self._now() if began else None,
            detail=fit(detail),
            **more,
        )


def _running_words(running: _Running, engine_id: str, stuck: Stuck | None) -> str:
    words = f"running '{running.name}' for {round(time.monotonic() - running.began)} s on engine {engine_id}"
    if stuck is None:
        return f"{words}, with nothing going on at the host"
    if stuck.quiet_seconds is None:
        return words
    return f"{words}, {_QUIET_WORDS[stuck.stage]} {round(stuck.quiet_seconds)} s"


def _counts(host: _Host) -> dict[str, int]:
    statuses = [row["status"] for row in host.rows]
    return {
        "ok": statuses.count(OK) + statuses.count(IGNORED),
        "failed": statuses.count(FAILED),
        "changed": sum(row["changed"] for row in host.rows),
        "skipped": statuses.count(SKIPPED),
        "unreachable": statuses.count(UNREACHABLE),
        "rescued": statuses.count(RESCUED),
        "ignored": statuses.count(IGNORED),
        "total": host.tasks_total,
    }


def _names(hosts: list[str], most: int = 5) -> str:
    more = f" and {len(hosts) - most} more" if len(hosts) > most else ""
    return ", ".join(hosts[:most]) + more
