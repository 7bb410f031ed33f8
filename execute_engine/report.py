"""The runner's way to the consumer: events through one socket, in the order they were given.

An event is written at once, so that the consumer knows of it whatever the runner does next; what the socket does not
take a thread of its own writes later.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections import deque
from typing import Any

from contract.failpoint import fail_point
from execute_engine.events import framed, to_json
from execute_engine.output import Cleaner

log = logging.getLogger(__name__)

BACKLOG_BYTES = 8 << 20


class Report:
    """send() never blocks, so that a slow consumer cannot stop the ssh loop or an order to end; give_way() does,
    for those who produce results and can wait until there is room again."""

    def __init__(self, events: socket.socket, cleaner: Cleaner) -> None:
        self._events = events
        self._cleaner = cleaner
        self._frames: deque[tuple[str, bytes]] = deque()
        self._waiting_bytes = 0
        self._changed = threading.Condition()
        self._closed = False
        threading.Thread(target=self._write, daemon=True, name="report").start()

    def send(self, event: dict[str, Any]) -> None:
        """Called from any thread. An event after the consumer has gone is dropped."""
        body = to_json(event)
        if not self._cleaner.is_clean(body):
            body = to_json(self._cleaner.event(event))
        frame = framed(body)
        with self._changed:
            if self._closed:
                return
            written = 0 if self._waiting_bytes else self._write_now(frame)
            if written < len(frame):
                self._frames.append((event["event"], frame[written:]))
                self._waiting_bytes += len(frame) - written
                self._changed.notify_all()
                return
        _written(event["event"])

    def log(self, level: str, text: str) -> None:
        self.send({"event": "log", "level": level, "text": text})

    def written(self) -> bool:
        """Nothing waits: whatever becomes of this process, the consumer knows what was sent."""
        with self._changed:
            return not self._waiting_bytes or self._closed

    def give_way(self) -> None:
        """Blocks while more than BACKLOG_BYTES wait; without a deadline: the unit's own deadline ends the process."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting_bytes <= BACKLOG_BYTES or self._closed)

    def flush(self, seconds: float) -> bool:
        """Whether everything was written within seconds."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting_bytes or self._closed, max(0.0, seconds))
            return not self._waiting_bytes

    def _write_now(self, frame: bytes) -> int:
        """How many bytes the socket took; never blocks."""
        try:
            return self._events.send(frame, socket.MSG_DONTWAIT)
        except OSError:  # full, or gone: the thread finds out which
            return 0

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._frames))
                name, frame = self._frames.popleft()
            try:
                self._events.sendall(frame)
            except OSError as error:
                log.warning("The consumer does not take events any more", extra={"error": str(error)})
                with self._changed:
                    self._closed = True
                    self._changed.notify_all()
                return
            _written(name)
            with self._changed:
                self._waiting_bytes -= len(frame)
                self._changed.notify_all()


def _written(event: str) -> None:
    if event == "host_done":
        fail_point("runner-result")


def utc_now() -> str:
    """ISO 8601 with microseconds, UTC, without a zone, as the database stores it."""
    seconds = time.time()
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1_000_000):06d}"
