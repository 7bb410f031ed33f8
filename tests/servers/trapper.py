"""A server for Zabbix's trapper protocol on a real socket, which answers as it is told to; also sick ones.

For what a real Zabbix server makes of values there is the real one; none of them can be told to be sick.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress

HEADER = struct.Struct("<4sBII")  # "ZBXD", flags, length, reserved
Values = dict[str, str]
Answer = Callable[[socket.socket, Values], None]


class TrapperServer:
    """received: the values of each request, as they came; hosts: whose they were. A thread for each connection."""

    def __init__(self, answer: Answer, address: str = "127.0.0.1") -> None:
        self.answer = answer
        self.received: list[Values] = []
        self.hosts: set[str] = set()
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._listener = socket.create_server((address, 0), family=family)
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            threading.Thread(target=self._hear, args=(connection,), daemon=True).start()

    def _hear(self, connection: socket.socket) -> None:
        with suppress(OSError, EOFError):
            _, _, length, _ = HEADER.unpack(_exactly(connection, HEADER.size))
            data = json.loads(_exactly(connection, length))["data"]
            values = {item["key"]: item["value"] for item in data}
            self.hosts |= {item["host"] for item in data}
            self.received.append(values)
            self.answer(connection, values)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(60)  # or a connection that comes just now stays open
        self._listener.close()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()


Serve = Callable[[Answer], TrapperServer]  # the fixture of conftest.py


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def says(body: object) -> bytes:
    raw = json.dumps(body).encode()
    return HEADER.pack(b"ZBXD", 1, len(raw), 0) + raw


def takes(unknown: Collection[str] = (), after_seconds: float = 0.0) -> Answer:
    """A server that takes all values but those of these keys, of which it has no items."""

    def answer(connection: socket.socket, values: Values) -> None:
        time.sleep(after_seconds)
        refused = sum(key in unknown for key in values)
        counts = f"processed: {len(values) - refused}; failed: {refused}; total: {len(values)}"
        connection.sendall(says({"response": "success", "info": f"{counts}; seconds spent: 0.000055"}))
        connection.close()

    return answer


def refuses(connection: socket.socket, values: Values) -> None:
    """A server that does not know the host."""
    takes(values.keys())(connection, values)


def hangs(_connection: socket.socket, _values: Values) -> None:
    """The connection stays open and nothing is said."""


def drips(connection: socket.socket, _values: Values) -> None:
    """A byte ten times a second, of an answer that has no end."""
    connection.sendall(HEADER.pack(b"ZBXD", 1, 60_000, 0))
    while True:
        connection.sendall(b"{")
        time.sleep(0.1)


def replies(raw: bytes) -> Answer:
    def answer(connection: socket.socket, _values: Values) -> None:
        connection.sendall(raw)
        connection.close()

    return answer


def sends_on(port: int) -> Answer:
    """A proxy of a group, which names another one."""
    redirect = {"revision": 1, "address": f"127.0.0.1:{port}"}
    return replies(says({"response": "failed", "redirect": redirect}))


SICK: dict[str, Answer] = {
    "silent": hangs,
    "byte by byte": drips,
    "closes at once": replies(b""),
    "no Zabbix": replies(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "half a header": replies(b"ZBXD\x01"),
    "half an answer": replies(says({"response": "success"})[:-4]),
    "no info": replies(says({"response": "success"})),
    "strange info": replies(says({"response": "success", "info": "all is well"})),
    "failed": replies(says({"response": "failed", "info": "no"})),
    "list": replies(says([])),
    "depths": replies(HEADER.pack(b"ZBXD", 1, 60_000, 0) + b"[" * 60_000),
    "no UTF-8": replies(HEADER.pack(b"ZBXD", 1, 2, 0) + b"\xff\xff"),
    "not compressed": replies(HEADER.pack(b"ZBXD", 3, 2, 0) + b"{}"),
    "gigabytes": replies(HEADER.pack(b"ZBXD", 1, 0xFFFFFFF0, 0) + b"{}"),
    "nowhere to go on": replies(says({"response": "failed", "redirect": {"revision": 1}})),
}
