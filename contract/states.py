"""The states of tasks and units and the statuses of hosts; ARCHITECTURE.md draws who moves what."""

from __future__ import annotations

from enum import StrEnum


class TaskState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    CANCELLED = "cancelled"


class UnitState(StrEnum):
    WAITING = "waiting"
    PUBLISHED = "published"
    RUNNING = "running"
    FINISHED = "finished"
    CANCELLED = "cancelled"
    LOST = "lost"


class HostStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    HELD = "held"
    NOT_STARTED = "not_started"
    CANCELLED = "cancelled"
    LOST = "lost"


class EngineState(StrEnum):
    LIVE = "live"
    DRAINING = "draining"
    STOPPED = "stopped"
    DEAD = "dead"


class CloneState(StrEnum):
    """Of a clone in the background."""

    RUNNING = "running"
    READY = "ready"
    FAILED = "failed"


OPEN_STATUSES = (HostStatus.QUEUED, HostStatus.RUNNING)
FINAL_STATUSES = tuple(status for status in HostStatus if status not in OPEN_STATUSES)
ENDED_TASKS = (TaskState.FINISHED, TaskState.CANCELLED)
ENDED_UNITS = (UnitState.FINISHED, UnitState.CANCELLED)
