"""What a runner tells the consumer, as length-prefixed JSON: a 4-byte big-endian length, then one object.

{"event": "host_started", "host": h, "at": iso}           the first connection attempt of this host
{"event": "task_started", "host": h, "task": name, "at": iso}      playbooks: what the host does now
{"event": "stage", "host": h, "stage": s, "since": iso}   only while a host stays over 1 s at one stage
{"event": "host_done", ...}                               HostDone, once a host, final
{"event": "host_key", "host": h, "key": "type base64"}    accept-new: a key seen for the first time
{"event": "unit_failed", "reason": text}                  nothing can run: every host without a result fails so
{"event": "log", "level": "warning", "text": text}        for the engine's log
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from typing import Any

MAX_FRAME_BYTES = 64 << 20
_LENGTH = struct.Struct(">I")

STAGES = ("connecting", "greeting", "login", "running", "output")


@dataclass(frozen=True)
class HostDone:
    """How one host went; the fields are host_result's columns. Times are ISO 8601, UTC, without a zone."""

    host: str
    status: str  # a final HostStatus
    rc: int | None = None
    changed: bool | None = None
    stdout: str | None = None
    stderr: str | None = None
    msg: str | None = None
    tasks_ok: int | None = None
    tasks_total: int | None = None
    stuck_task: str | None = None
    stage: str | None = None
    since: str | None = None
    blame: str | None = None
    stopped_on_host: str | None = None  # yes | no | unknown
    started_at: str | None = None
    finished_at: str | None = None
    detail: dict[str, Any] = field(default_factory=dict)  # cmd, dest; counts; tasks: [{name, status, seconds}]

    def to_event(self) -> dict[str, Any]:
        return {"event": "host_done", **vars(self)}  # not a copy of all that is in detail, as asdict() makes it

    @classmethod
    def from_event(cls, event: dict[str, Any]) -> HostDone:
        return cls(**{name: value for name, value in event.items() if name != "event"})


def encode(event: dict[str, Any]) -> bytes:
    return framed(to_json(event))


def to_json(event: dict[str, Any]) -> bytes:
    return json.dumps(event, separators=(",", ":")).encode()


def framed(body: bytes) -> bytes:
    return _LENGTH.pack(len(body)) + body


class Decoder:
    """Bytes in, objects out; keeps an unfinished frame for the next call. Raises ValueError for what is no frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        return list(map(json.loads, self.bodies(data)))

    def bodies(self, data: bytes) -> list[bytes]:
        """The same, each as its JSON."""
        self._buffer += data
        found = []
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > MAX_FRAME_BYTES:
                raise ValueError(f"a frame of {length} bytes, at most {MAX_FRAME_BYTES} are allowed")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                break
            found.append(bytes(self._buffer[_LENGTH.size : end]))
            del self._buffer[:end]
        return found
