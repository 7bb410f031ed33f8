"""The heartbeat process against real sockets: one that speaks Zabbix's trapper protocol, and sick ones."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contract.config import ZabbixSettings
from execute_engine import progress
from execute_engine.errors import ZabbixError
from execute_engine.progress import Progress
from execute_engine.zabbix import TIMEOUT_SECONDS, Trapper
from tests.daemons import ROOT
from tests.servers.process import free_ports, wait_for

HEADER = struct.Struct("<4sBII")  # "ZBXD", flags, length, reserved: the header of Zabbix's protocol
Answer = Callable[[socket.socket, dict[str, object]], None]


class TrapperServer:
    """Takes values as a Zabbix server does and answers as it is told to."""

    def __init__(self, answer: Answer) -> None:
        self.received: list[dict[str, str]] = []
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
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
            try:
                _, _, length, _ = HEADER.unpack(_exactly(connection, HEADER.size))
                request = json.loads(_exactly(connection, length))
                self.received.append({item["key"]: item["value"] for item in request["data"]})
                self.hosts = {item["host"] for item in request["data"]}
                self._answer(connection, request)
            except (OSError, EOFError):
                connection.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            connection.close()
        self._thread.join(60)


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def says(body: dict[str, object]) -> bytes:
    raw = json.dumps(body).encode()
    return HEADER.pack(b"ZBXD", 1, len(raw), 0) + raw


def accept(refused: int = 0) -> Answer:
    def answer(connection: socket.socket, request: dict[str, object]) -> None:
        total = len(request["data"])  # type: ignore[arg-type]
        info = f"processed: {total - refused}; failed: {refused}; total: {total}; seconds spent: 0.000055"
        connection.sendall(says({"response": "success", "info": info}))
        connection.close()

    return answer


def hang(_connection: socket.socket, _request: dict[str, object]) -> None:
    """The connection stays open and nothing is said."""


def reply(raw: bytes) -> Answer:
    def answer(connection: socket.socket, _request: dict[str, object]) -> None:
        connection.sendall(raw)
        connection.close()

    return answer


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], TrapperServer]]:
    made: list[TrapperServer] = []

    def serve(answer: Answer) -> TrapperServer:
        made.append(TrapperServer(answer))
        return made[-1]

    yield serve
    for server in made:
        server.close()


def trapper(*ports: int) -> Trapper:
    return Trapper(ZabbixSettings(ip=("127.0.0.1",) * len(ports), zabbix_port=ports[0], host="engine-host"))


# --- the trapper


def test_values_arrive_for_this_host_and_refused_ones_are_counted(serve: Callable[[Answer], TrapperServer]) -> None:
    server, strict = serve(accept()), serve(accept(refused=1))
    assert trapper(server.port).send({"ping": 1, "slots": 60}) == 0
    assert server.received == [{"ping": "1", "slots": "60"}]
    assert server.hosts == {"engine-host"}
    assert trapper(strict.port).send({"ping": 1, "slots": 60}) == 1


SICK = {
    "silent": hang,
    "closes at once": reply(b""),
    "no Zabbix": reply(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "half a header": reply(b"ZBXD\x01"),
    "half an answer": reply(says({"response": "success"})[:-4]),
    "no info": reply(says({"response": "success"})),
    "strange info": reply(says({"response": "success", "info": "all is well"})),
    "failed": reply(says({"response": "failed", "info": "no"})),
    "list": reply(HEADER.pack(b"ZBXD", 1, 2, 0) + b"[]"),
    "no UTF-8": reply(HEADER.pack(b"ZBXD", 1, 2, 0) + b"\xff\xff"),
}


@pytest.mark.parametrize("kind", SICK)
def test_a_sick_server_is_one_kind_of_error_and_soon_given_up(
    serve: Callable[[Answer], TrapperServer], kind: str
) -> None:
    server = serve(SICK[kind])
    begun = time.monotonic()
    with pytest.raises(ZabbixError):
        trapper(server.port).send({"ping": 1})
    assert time.monotonic() - begun < TIMEOUT_SECONDS + 60


def test_a_server_that_is_not_there_is_the_same_error() -> None:
    (port,) = free_ports(1)
    with pytest.raises(ZabbixError):
        trapper(port).send({"ping": 1})


# --- the process


class Engine:
    """A STATE_DIR in which progress is made as the test wants it, and the heartbeat process beside it."""

    def __init__(self, directory: Path, port: int) -> None:
        self.state_dir = directory / "state"
        self.state_dir.mkdir()
        self.counter = 0
        config = directory / "conf" / "server.conf"
        config.parent.mkdir()
        config.write_text(
            f"[Zabbix]\nIP = 127.0.0.1\nZABBIX_PORT = {port}\nITEM = exec.ping\nHOST = engine-host\n"
            f"[Data_Send]\nZABBIX = 1\n[Exec_Engine]\nSTATE_DIR = {self.state_dir}\n"
        )
        self.log = directory / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "execute_engine", "heartbeat", "--config", str(config)],
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )

    def move(self) -> None:
        self.counter += 1
        progress.write(self.state_dir, Progress(self.counter, "i", 60, 40, 2, 20, 1, 5, 0, 1, 0))

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Callable[[int], Engine]]:
    made: list[Engine] = []

    def start(port: int) -> Engine:
        made.append(Engine(tmp_path, port))
        return made[-1]

    yield start
    for one in made:
        one.process.kill()
        one.process.wait(60)


def _moving(engine: Engine, condition: Callable[[], bool]) -> Callable[[], bool]:
    def look() -> bool:
        engine.move()
        return condition()

    return look


def test_it_beats_while_the_consumer_moves_and_falls_silent_when_it_does_not(
    serve: Callable[[Answer], TrapperServer], engine: Callable[[int], Engine]
) -> None:
    server = serve(accept())
    tested = engine(server.port)
    tested.move()
    time.sleep(3)
    assert server.received == []  # a file alone is no progress
    wait_for("beats", _moving(tested, lambda: len(server.received) >= 3))
    assert server.received[-1] == {
        "exec.ping": "1",
        "exec.engine.slots": "60",
        "exec.engine.free_slots": "40",
        "exec.engine.units": "2",
        "exec.engine.hosts": "20",
        "exec.engine.unkillable": "1",
        "exec.engine.spooled": "5",
        "exec.engine.dropped": "0",
        "exec.engine.braked": "0",
        "exec.engine.sees_files": "1",
    }
    time.sleep(4)  # two intervals, and time to notice
    silent_at = len(server.received)
    time.sleep(3)
    assert len(server.received) == silent_at
    wait_for("beats again", _moving(tested, lambda: len(server.received) > silent_at))
    assert tested.stop() == 0


def test_a_hanging_zabbix_is_logged_and_neither_ends_nor_stops_the_process(
    serve: Callable[[Answer], TrapperServer], engine: Callable[[int], Engine]
) -> None:
    server = serve(hang)
    tested = engine(server.port)
    wait_for("three tries", _moving(tested, lambda: len(server.received) >= 3))
    assert tested.process.poll() is None
    assert tested.log.read_text().count("the heartbeat was not taken") == 1  # at most once a minute
    assert tested.stop() == 0


def test_refused_values_are_logged(serve: Callable[[Answer], TrapperServer], engine: Callable[[int], Engine]) -> None:
    tested = engine(serve(accept(refused=10)).port)
    wait_for("the log", _moving(tested, lambda: "Zabbix refused 10 of 10 values" in tested.log.read_text()))
    assert tested.stop() == 0
