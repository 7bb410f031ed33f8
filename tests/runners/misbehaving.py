"""A runner for the tests of launcher and guard. What it does is its Job's module; "up" is its first event."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable

from execute_engine.events import Decoder, encode
from execute_engine.job import Job


def preload() -> list[str]:
    return ["first", "second"]


def main(events: socket.socket, orders_fd: int) -> None:
    decoder = Decoder()
    frames: list[dict[str, object]] = []
    while not frames:
        data = events.recv(65536)
        if not data:
            return
        frames = decoder.feed(data)
    BEHAVIOURS[Job.from_json(frames[0]).module](events, orders_fd)


def _up(events: socket.socket) -> None:
    events.sendall(encode({"event": "log", "level": "info", "text": "up"}))


def _forked(child: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        child()
        os._exit(0)
    return pid


def _sleep() -> None:
    while True:
        time.sleep(1000)


def quick(events: socket.socket, orders_fd: int) -> None:
    _up(events)


def obedient(events: socket.socket, orders_fd: int) -> None:
    """Ends when ordered, and tells the order first."""
    _up(events)
    decoder = Decoder()
    while data := os.read(orders_fd, 4096):
        for order in decoder.feed(data):
            events.sendall(encode({"event": "log", "level": "info", "text": order["reason"]}))
            return


def ignores_orders(events: socket.socket, orders_fd: int) -> None:
    _up(events)
    _sleep()


def raises(events: socket.socket, orders_fd: int) -> None:
    raise RuntimeError("what a runner's bug looks like")


def crashes(events: socket.socket, orders_fd: int) -> None:
    subprocess.Popen(["sleep", "1000"], start_new_session=True)
    os.kill(os.getpid(), signal.SIGSEGV)


def daemons(events: socket.socket, orders_fd: int) -> None:
    """Two forks and a session of their own, as daemons start."""

    def become_daemon() -> None:
        os.setsid()
        _forked(_sleep)

    for _ in range(3):
        os.waitpid(_forked(become_daemon), 0)
    _up(events)
    _sleep()


def leaves_daemons(events: socket.socket, orders_fd: int) -> None:
    subprocess.Popen(["sh", "-c", "setsid sleep 1000 & exit 0"]).wait()
    _up(events)


def forks(events: socket.socket, orders_fd: int) -> None:
    """Children and grandchildren without exec, which hold every descriptor of the runner."""

    def fork_again() -> None:
        _forked(_sleep)
        _sleep()

    for _ in range(3):
        _forked(fork_again)
    _up(events)
    _sleep()


def deaf(events: socket.socket, orders_fd: int) -> None:
    def ignore_all() -> None:
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            with contextlib.suppress(OSError):
                signal.signal(number, signal.SIG_IGN)

    ignore_all()
    _forked(_sleep)
    _up(events)
    _sleep()


def executes(events: socket.socket, orders_fd: int) -> None:
    """Other programs, one of them without the environment by which it could be found, and then itself."""
    subprocess.Popen(["sleep", "1000"], start_new_session=True)
    subprocess.Popen(["sleep", "1000"], start_new_session=True, env={})
    _up(events)
    os.execvp("sleep", ["sleep", "1000"])


def floods(events: socket.socket, orders_fd: int) -> None:
    """More events than the consumer reads."""
    _up(events)
    while True:
        events.sendall(encode({"event": "log", "level": "info", "text": "x" * 60000}))


def eats(events: socket.socket, orders_fd: int) -> None:
    """1.5 GB, in steps."""
    _up(events)
    taken = []
    for _ in range(150):
        taken.append(b"x" * 10_000_000)
        time.sleep(0.01)
    _sleep()


def bomb(events: socket.socket, orders_fd: int) -> None:
    """50 children, each of which goes on forking, in sessions of their own."""

    def go_on() -> None:
        os.setsid()
        for _ in range(20):
            _forked(_sleep)
            time.sleep(0.5)
        _sleep()

    for _ in range(50):
        _forked(go_on)
    _up(events)
    _sleep()


BEHAVIOURS: dict[str, Callable[[socket.socket, int], None]] = {
    behaviour.__name__: behaviour
    for behaviour in (
        quick,
        obedient,
        ignores_orders,
        raises,
        crashes,
        daemons,
        leaves_daemons,
        forks,
        deaf,
        executes,
        floods,
        eats,
        bomb,
    )
}
