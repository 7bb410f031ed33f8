"""One unit's life in the consumer: events of its runner in, rows for the database out. No I/O, no clock."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from contract.states import FINAL_STATUSES, HostStatus
from contract.units import MAX_ATTEMPTS, RERUN, last_attempt
from execute_engine.events import STAGES, HostDone
from execute_engine.job import Job

SLOW_SECONDS = 2.0  # a host that runs for longer shows in its row what it does, at most once in so long
MAX_NAME = 255  # characters of host_result.stuck_task
MAX_KEY_TYPE, MAX_KEY = 64, 4096  # characters of host_key's columns
NOT_STARTED = "not_started"  # a cause of UnitEnd: there was no runner
NOT_LAUNCHED = "not_launched"  # besides the causes of UnitEnd: there was no process of this unit at all
_INT32 = range(-(2**31), 2**31)


@dataclass(frozen=True)
class HostRow:
    """New values for one row of host_result: what a statement can take as it is (times as text, detail as JSON)."""

    id: int
    unit_id: int
    attempt: int
    status: str
    engine: str
    rc: int | None = None
    changed: int | None = None
    stdout: str | None = None
    stderr: str | None = None
    msg: str | None = None
    tasks_ok: int | None = None
    tasks_total: int | None = None
    stuck_task: str | None = None
    stage: str | None = None
    since: str | None = None
    blame: str | None = None
    stopped_on_host: str | None = None
    started_at: str | None = None
    finished_at: str | None = None
    detail: str | None = None

    @property
    def size(self) -> int:
        """About how many bytes it adds to a statement."""
        texts = (self.stdout, self.stderr, self.msg, self.blame, self.detail)
        return 400 + sum(len(text) for text in texts if text)


@dataclass(frozen=True)
class NewHostKey:
    host: str
    key_type: str
    key: str


@dataclass(frozen=True)
class RunnerLog:
    """Something for the engine's log: a level name of logging, and the text."""

    level: str
    text: str


Outcome = HostRow | NewHostKey | RunnerLog


@dataclass
class _Host:
    """A host without a result."""

    row_id: int
    started_at: str | None = None
    started: float | None = None  # monotonic
    task: str | None = None
    stage: str | None = None
    since: str | None = None
    written: tuple[str | None, ...] | None = None  # what its row shows
    written_at: float = 0.0

    @property
    def begun(self) -> bool:
        """Something of it may have been started: the runner says so before it starts anything."""
        return self.task is not None or self.started_at is not None


class Unit:
    """row_ids are the hosts' rows. over is True when nothing more can come: its end and the end of its events."""

    def __init__(self, job: Job, row_ids: Mapping[str, int]) -> None:
        self.job = job
        self.id = job.unit_id
        self.unreachable = 0  # hosts that ended so
        self.stop_reason = ""  # set when it is to end before its time
        self._stop_status = HostStatus.CANCELLED
        self._open = {host: _Host(row_ids[host]) for host in job.hosts}
        self._ended: tuple[str, int | None] | None = None
        self._read_to_end = False

    @property
    def ids(self) -> dict[str, object]:
        """For a record in the log."""
        return {"unit": self.id, "task": self.job.task_id}

    @property
    def was_launched(self) -> bool:
        """A runner was there."""
        return self._ended is None or self._ended[0] not in (NOT_LAUNCHED, NOT_STARTED)

    @property
    def nothing_begun(self) -> bool:
        return len(self._open) == len(self.job.hosts) and not any(host.begun for host in self._open.values())

    @property
    def hosts_left(self) -> int:
        return len(self._open)

    @property
    def oldest_start(self) -> float | None:
        """The monotonic moment at which the first of the hosts without a result was begun; None when none was."""
        return min((host.started for host in self._open.values() if host.started is not None), default=None)

    @property
    def over(self) -> bool:
        return self._ended is not None and self._read_to_end

    def stop(self, reason: str, status: HostStatus = HostStatus.CANCELLED) -> None:
        """Its processes are being ended: hosts that bring no result get this status and reason.

        LOST: the engine ends it, not the client. What was not begun, or may run again, is not reported then.
        """
        self.stop_reason, self._stop_status = reason, status

    def read_to_end(self) -> None:
        """The runner's events were read to EOF."""
        self._read_to_end = True

    def ended(self, cause: str, runner_exit: int | None) -> None:
        """Every process of the unit is gone; cause and exit code are UnitEnd's."""
        self._ended = (cause, runner_exit)

    def handle(self, event: Mapping[str, Any], moment: float) -> list[Outcome]:
        """What one event of the runner leads to; moment is monotonic. What makes no sense leads to a warning."""
        try:
            return self._handle(event, moment)
        except (TypeError, ValueError, KeyError, AttributeError) as exc:
            return [RunnerLog("warning", f"expected an event of the runner, found another thing: {exc!r}")]

    def running_rows(self, moment: float) -> list[HostRow]:
        """The rows of hosts that have run for over 2 s and now do something else than their row shows."""
        rows = []
        for host in self._open.values():
            if host.started is None or moment < max(host.started, host.written_at) + SLOW_SECONDS:
                continue
            shown = (host.task, host.stage, host.since)
            if host.written != shown:
                host.written, host.written_at = shown, moment
                rows.append(self._row(host, HostStatus.RUNNING))
        return rows

    def conclude(self, finished_at: datetime) -> tuple[list[HostRow], list[int]]:
        """For an ended unit, of the hosts that have brought no result: final rows, and the ids of those to give back.

        Given back is what was not begun, or may run again, when it is not the unit's time that was over and not its
        client who ended it. They are done with this.
        """
        status, reason = self._verdict()
        if status == HostStatus.LOST and self.job.attempt >= MAX_ATTEMPTS:
            reason += f" ({last_attempt(self.job.attempt)})"
        rows, again = [], []
        for host in self._open.values():
            if status == HostStatus.LOST and self._may_go_back(host):
                again.append(host.row_id)
            else:
                rows.append(self._failed_row(host, status, f"{reason}; {_last_seen(host)}", _text_of(finished_at)))
        self._open.clear()
        return rows, again

    def _may_go_back(self, host: _Host) -> bool:
        cause = self._ended[0] if self._ended else ""
        if cause in (NOT_LAUNCHED, NOT_STARTED):
            return True
        may_run_again = self.job.on_engine_loss == RERUN or not host.begun
        return cause != "finished" and may_run_again and self.job.attempt < MAX_ATTEMPTS

    def _verdict(self) -> tuple[HostStatus, str]:
        """The status of a host that brought no result, and why its unit ended without one."""
        cause, runner_exit = self._ended or ("", None)
        if cause == "guard_stuck" and self.stop_reason:
            cause = "stopped"
        seconds = f"{self.job.timeout_seconds:g} s"
        if cause == "deadline":
            return HostStatus.TIMEOUT, f"the unit's {seconds} were over, and its runner was stuck and reported nothing"
        if cause == "guard_stuck":
            return HostStatus.TIMEOUT, f"the unit's {seconds} were over, and its guard was stuck and had to be killed"
        if cause == "stopped":
            return self._stop_status, f"the unit was stopped: {self.stop_reason}"
        if cause in (NOT_LAUNCHED, NOT_STARTED):
            return HostStatus.LOST, f"the unit could not be started: {self.stop_reason or 'there was no room for it'}"
        if cause == "lease":
            return HostStatus.LOST, "the engine could not reach the database for most of LEASE_SECONDS"
        if cause == "memory":
            allowed = f"{self.job.memory_bytes / 1e6:.0f} MB"
            return HostStatus.LOST, f"a process of the unit held more than {allowed} (RUNNER_MEMORY) and was killed"
        if cause in ("guard_died", "launcher_died"):
            return HostStatus.LOST, f"the unit's {cause.removesuffix('_died')} process died, and its runner with it"
        return HostStatus.LOST, f"the unit's runner {_ending(runner_exit)} without a result for this host"

    def _handle(self, event: Mapping[str, Any], moment: float) -> list[Outcome]:
        kind = event["event"]
        if kind == "log":
            return [RunnerLog(_one_of(event["level"], ("debug", "info", "warning", "error")) or "info", event["text"])]
        if kind == "unit_failed":
            return self._fail_all(str(event["reason"]))
        name = event["host"]
        if kind == "host_key":
            return self._host_key(name, event["key"])
        host = self._open.get(name)
        if host is None:
            return [RunnerLog("warning", f"an event {kind!r} of {name!r}, which is no open host of this unit")]
        if kind == "host_done":
            return self._host_done(name, host, HostDone.from_event(dict(event)))
        if kind == "host_started":
            host.started, host.started_at = moment, _moment(event["at"])
            if self.job.type == "adhoc":  # its one task has no event of its own
                host.task = host.task or _name(self.job.module)
        elif kind == "task_started":
            host.task, host.stage, host.since = _name(event["task"]), None, _moment(event["at"])
        elif kind == "stage":
            host.stage, host.since = _one_of(event["stage"], STAGES), _moment(event["since"])
        else:
            return [RunnerLog("warning", f"expected a known event, found {kind!r}")]
        return []

    def _host_done(self, name: str, host: _Host, done: HostDone) -> list[Outcome]:
        if done.status not in FINAL_STATUSES:
            raise ValueError(f"{name}: expected a final status, found {done.status!r}")
        status = done.status
        if status == HostStatus.CANCELLED and self._stop_status == HostStatus.LOST:  # by us
            if self._may_go_back(host):
                return []
            status = HostStatus.LOST
        row = self._row(
            host,
            status,
            rc=_number(done.rc),
            changed=None if done.changed is None else int(bool(done.changed)),
            stdout=_text(done.stdout),
            stderr=_text(done.stderr),
            msg=_text(done.msg),
            tasks_ok=_number(done.tasks_ok),
            tasks_total=_number(done.tasks_total),
            stuck_task=_name(done.stuck_task),
            stage=_one_of(done.stage, STAGES),
            since=_moment(done.since),
            blame=_text(done.blame),
            stopped_on_host=_one_of(done.stopped_on_host, ("yes", "no", "unknown")),
            started_at=_moment(done.started_at) or host.started_at,
            finished_at=_moment(done.finished_at),
            detail=json.dumps(done.detail, separators=(",", ":")),
        )
        del self._open[name]
        self.unreachable += done.status == HostStatus.UNREACHABLE
        return [row]

    def _fail_all(self, reason: str) -> list[Outcome]:
        finished_at = _text_of(datetime.now(UTC))
        rows = [self._failed_row(host, HostStatus.FAILED, reason, finished_at) for host in self._open.values()]
        self._open.clear()
        return list(rows)

    def _host_key(self, host: str, line: str) -> list[Outcome]:
        key_type, _, key = line.partition(" ")
        if not (key and line.isascii() and len(key_type) <= MAX_KEY_TYPE and len(key) <= MAX_KEY):
            raise ValueError(f"{host}: expected a host key as type and base64, found {len(line)} characters")
        return [NewHostKey(host, key_type, key)]

    def _failed_row(self, host: _Host, status: HostStatus, reason: str, finished_at: str) -> HostRow:
        return self._row(
            host,
            status,
            msg=_text(reason),
            blame=_text(reason),
            stopped_on_host=None if status == HostStatus.FAILED else "unknown",
            finished_at=finished_at,
        )

    def _row(self, host: _Host, status: str, **values: Any) -> HostRow:
        shown = {"stuck_task": host.task, "stage": host.stage, "since": host.since, "started_at": host.started_at}
        return HostRow(
            id=host.row_id,
            unit_id=self.id,
            attempt=self.job.attempt,
            status=str(status),
            engine=self.job.engine_id,
            **{**shown, **values},
        )


def unstorable(row: HostRow, reason: str) -> HostRow:
    """The same result without its texts, which the database refuses."""
    sentence = f"the result could not be stored: {reason}"
    return replace(
        row, stdout=None, stderr=None, detail=None, stuck_task=None, msg=sentence, blame=row.blame and sentence
    )


def _last_seen(host: _Host) -> str:
    if host.task is not None:
        stage = f", stage {host.stage}," if host.stage else ""
        return f"this host was at '{host.task}'{stage} when last heard of"
    return "nothing was heard of this host"


def _ending(runner_exit: int | None) -> str:
    if runner_exit is None:
        return "ended"
    if runner_exit >= 0:
        return f"ended with exit code {runner_exit}"
    try:
        return f"was killed by {signal.Signals(-runner_exit).name}"
    except ValueError:
        return f"was killed by signal {-runner_exit}"


def _text(value: str | None) -> str | None:
    """Text that every database takes whole: half a surrogate pair and NUL are spelled out."""
    return None if value is None else str(value).encode(errors="backslashreplace").decode().replace("\0", "\\x00")


def _name(value: str | None) -> str | None:
    return value and (_text(value) or "")[:MAX_NAME]


def _number(value: int | None) -> int | None:
    return value if isinstance(value, int) and value in _INT32 else None


def _one_of(value: Any, known: tuple[str, ...]) -> str | None:
    return value if value in known else None


def _moment(value: str | None) -> str | None:
    """ISO 8601 as the databases write it; None for what is none."""
    if not value:
        return None
    try:
        return _text_of(datetime.fromisoformat(value))
    except ValueError:
        return None


def _text_of(moment: datetime) -> str:
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f")
