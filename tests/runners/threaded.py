"""A runner whose preload leaves a thread behind."""

from __future__ import annotations

import socket
import threading
import time


def preload() -> list[str]:
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
    return []


def main(events: socket.socket, orders_fd: int) -> None:
    raise AssertionError("never forked")
