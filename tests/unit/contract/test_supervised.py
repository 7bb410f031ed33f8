from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from contract import supervised
from contract.supervised import Lifeline


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    theirs.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def received(connection: socket.socket) -> list[bytes]:
    messages = []
    while True:
        try:
            messages.append(connection.recv(4096))
        except BlockingIOError:
            return messages


def test_without_a_supervisor_every_call_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(supervised.VARIABLE, raising=False)
    lifeline = Lifeline.from_environment()
    lifeline.alive()
    lifeline.ready()
    lifeline.status("x")


@pytest.mark.parametrize("value", ["nonsense", "-1", "9999"])
def test_a_descriptor_that_is_none_of_ours_does_nothing(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(supervised.VARIABLE, value)
    Lifeline.from_environment().alive()
    assert supervised.VARIABLE not in os.environ


def test_signs_of_life_are_limited_to_one_a_second(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor, child = pair
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    lifeline = Lifeline(child)
    for _ in range(1000):
        lifeline.alive()
    assert received(supervisor) == [supervised.ALIVE]
    clock[0] += 1
    lifeline.alive()
    assert received(supervisor) == [supervised.ALIVE]


def test_ready_is_said_once_and_a_status_is_one_short_line(pair: tuple[socket.socket, socket.socket]) -> None:
    supervisor, child = pair
    lifeline = Lifeline(child)
    lifeline.ready()
    lifeline.ready()
    lifeline.status(" waiting\nfor  Kafka ")
    lifeline.status("x" * 10_000)
    ready, status, long = received(supervisor)
    assert (ready, status) == (supervised.READY, b"status waiting for Kafka")
    assert len(long) == len(supervised.STATUS) + supervised.MAX_STATUS_BYTES


def test_a_supervisor_that_does_not_read_blocks_nothing_and_hears_the_newest_later(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor, child = pair
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    lifeline = Lifeline(child)
    for number in range(5000):
        lifeline.status(f"step {number}")
    lifeline.ready()
    assert b"status step 4999" not in received(supervisor)
    lifeline.alive()
    assert received(supervisor) == [b"status step 4999", supervised.READY, supervised.ALIVE]


def test_a_supervisor_that_is_gone_disturbs_nothing(pair: tuple[socket.socket, socket.socket]) -> None:
    supervisor, child = pair
    supervisor.close()
    lifeline = Lifeline(child)
    lifeline.alive()
    lifeline.ready()
    lifeline.status("x")


def test_the_lifeline_is_taken_out_of_environment_and_inheritance(pair: tuple[socket.socket, socket.socket]) -> None:
    supervisor, child = pair
    code = """
import os, socket
from contract import supervised
number = int(os.environ[supervised.VARIABLE])
lifeline = supervised.Lifeline.from_environment()
assert supervised.VARIABLE not in os.environ
assert not os.get_inheritable(number)
lifeline.ready()
"""
    subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, supervised.VARIABLE: str(child.fileno())},
        pass_fds=(child.fileno(),),
        check=True,
        timeout=120,
    )
    assert received(supervisor) == [supervised.READY]


def test_the_restarts_are_those_told_last_and_a_reload_among_them_is_not_lost(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    supervisor, child = pair
    lifeline = Lifeline(child)
    assert lifeline.restarts() is None
    for word in (supervised.RESTARTS + b"a 2", supervised.RELOAD, supervised.RESTARTS + b"a 3"):
        supervisor.send(word)
    assert lifeline.restarts() == ("a", 3)
    assert lifeline.must_reload()
    assert not lifeline.must_reload()
    assert lifeline.restarts() == ("a", 3)
