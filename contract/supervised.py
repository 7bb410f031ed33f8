"""A child's side of its supervisor: it says that it lives, that it is ready, and what it does."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import struct
import time

from contract import processes

VARIABLE = "EXECUTE_ENGINE_SUPERVISOR_FD"
ALIVE = b"alive"
READY = b"ready"
STATUS = b"status "
RELOAD = b"reload"  # the words in the other direction: this one,
RESTARTS = b"restarts "  # and this one, with the supervisor's run and how many children it has started again in it
MAX_STATUS_BYTES = 400
_BEAT_SECONDS = 1.0

log = logging.getLogger(__name__)


class Lifeline:
    """Without a supervisor every call does nothing. No call blocks or raises. One thread at a time.

    A child says alive() from its main loop until it ends, in a drain too: whoever is silent for 30 s is killed.
    """

    def __init__(self, connection: socket.socket | None) -> None:
        self._connection = connection
        self._next_beat = 0.0
        self._ready = False
        self._unsent: dict[bytes, bytes] = {}  # what must arrive though the supervisor did not read for a while
        self._must_reload = False
        self._restarts: tuple[str, int] | None = None

    @classmethod
    def from_environment(cls) -> Lifeline:
        """Take over the socket that the supervisor made, and die with the supervisor from here on.

        To be called first in main(), by the process that the supervisor started. The variable is taken out of the
        environment and the socket is not inherited, so that no grandchild speaks in this one's name.
        """
        descriptor = os.environ.pop(VARIABLE, "")
        if not descriptor:
            return cls(None)
        try:
            connection = socket.socket(fileno=int(descriptor))
            connection.setblocking(False)
            connection.set_inheritable(False)
            # Who made the pair of sockets, says the kernel (struct ucred of unix(7)): the supervisor.
            pid, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        except (OSError, ValueError) as exc:
            log.warning("expected the supervisor's socket, found none", extra={"variable": VARIABLE, "error": str(exc)})
            return cls(None)
        processes.die_with_parent(pid)
        return cls(connection)

    def alive(self) -> None:
        """Cheap enough for every turn of a loop: at most one message a second is sent."""
        now = time.monotonic()
        if self._connection is None or now < self._next_beat:
            return
        self._next_beat = now + _BEAT_SECONDS
        if all(self._deliver(kind) for kind in tuple(self._unsent)):
            self._send(ALIVE)

    def ready(self) -> None:
        """The work has begun; more calls than one change nothing."""
        if not self._ready:
            self._ready = True
            self._queue(READY, READY)

    def status(self, text: str) -> None:
        """One line for a person; the newest counts. The supervisor passes it on to the service manager."""
        line = " ".join(text.split()).encode(errors="replace")[:MAX_STATUS_BYTES]
        self._queue(STATUS, STATUS + line)

    def must_reload(self) -> bool:
        """The supervisor has read the configuration again since the last call: do the same. For the main loop."""
        self._listen()
        asked, self._must_reload = self._must_reload, False
        return asked

    def restarts(self) -> tuple[str, int] | None:
        """How often the supervisor has started a child again because it had ended, and of which run that is the count.

        It begins at 0 with each run. None: the supervisor has not said it yet.
        """
        self._listen()
        return self._restarts

    def _listen(self) -> None:
        if self._connection is None:
            return
        with contextlib.suppress(OSError):  # there is nothing more to read
            while message := self._connection.recv(100):
                if message == RELOAD:
                    self._must_reload = True
                elif message.startswith(RESTARTS):
                    run, number = message.removeprefix(RESTARTS).decode().split()
                    self._restarts = run, int(number)

    def _queue(self, kind: bytes, message: bytes) -> None:
        self._unsent[kind] = message
        self._deliver(kind)

    def _deliver(self, kind: bytes) -> bool:
        if sent := self._send(self._unsent[kind]):
            del self._unsent[kind]
        return sent

    def _send(self, message: bytes) -> bool:
        if self._connection is None:
            return True
        try:
            self._connection.send(message, socket.MSG_NOSIGNAL)
        except OSError:  # full: it will be read later; gone: we die with it
            return False
        return True
