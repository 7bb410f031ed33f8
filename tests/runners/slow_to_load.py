"""A runner that takes its time to load."""

from __future__ import annotations

import socket
import time

LOADS_SECONDS = 3.0


def preload() -> list[str]:
    time.sleep(LOADS_SECONDS)
    return ["late"]


def main(events: socket.socket, orders_fd: int) -> None:
    raise AssertionError("never forked")
