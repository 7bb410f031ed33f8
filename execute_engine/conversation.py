"""What the consumer and one runner say to each other: the Job, then events until EOF. Never blocks.

Here every event loses the secrets of the engine's configuration, which its runner does not know and cannot mask: a host
may print the file that holds the same password.
"""

from __future__ import annotations

import json
import socket
from typing import Any

from execute_engine.events import Decoder, encode
from execute_engine.job import Job
from execute_engine.output import Cleaner

READ_BYTES = 1 << 18
FLOW_BYTES = 1 << 14  # by default a socket holds from 25 KB of small writes to 200 KB of large ones
READS_A_TURN = 8  # then the loop looks after its other units


class Conversation:
    """Owns the socket. closed: the runner has said all, or something that is no event; broken says which then.

    flows: the last receive() brought so much that the runner may wait for room in the socket.
    """

    def __init__(self, events: socket.socket, job: Job, cleaner: Cleaner) -> None:
        self._socket = events
        self._unsent = memoryview(encode(job.to_json()))
        self._decoder = Decoder()
        self._cleaner = cleaner
        self.closed = False
        self.broken: str | None = None
        self.flows = False

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def has_unsent(self) -> bool:
        return len(self._unsent) > 0 and not self.closed

    def send(self) -> None:
        """Hand over as much of the Job as the socket takes. A runner that is gone is noticed by receive()."""
        try:
            self._unsent = self._unsent[self._socket.send(self._unsent, socket.MSG_NOSIGNAL) :]
        except BlockingIOError:
            return
        except OSError:
            self._unsent = self._unsent[:0]

    def receive(self) -> list[dict[str, Any]]:
        """The events that have come, also those before bytes that are none."""
        found: list[dict[str, Any]] = []
        received = 0
        for _ in range(READS_A_TURN):
            try:
                data = self._socket.recv(READ_BYTES)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                self.close()
                break
            received += len(data)
            try:
                found += map(self._event, self._decoder.bodies(data))
            except (ValueError, RecursionError) as exc:  # no JSON, no object, a deep one
                self.broken = str(exc)
                self.close()
                break
        self.flows = received >= FLOW_BYTES
        return found

    def _event(self, body: bytes) -> dict[str, Any]:
        event = json.loads(body)
        if not isinstance(event, dict):
            raise ValueError(f"expected an object, found {type(event).__name__}")
        return event if self._cleaner.is_clean(body) else self._cleaner.event(event)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._socket.close()
