"""A runner whose plugins cannot be loaded."""

from __future__ import annotations

import socket


def preload() -> list[str]:
    raise RuntimeError("the filter plugin combine is missing")


def main(events: socket.socket, orders_fd: int) -> None:
    raise AssertionError("never forked")
