"""Signals as something to read: the handlers do nothing, the numbers arrive on a socket for a selector."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Iterator


class Caught:
    """The signals that have arrived. fileno() is readable when there are some."""

    def __init__(self, reader: socket.socket) -> None:
        self._reader = reader

    def fileno(self) -> int:
        return self._reader.fileno()

    def take(self) -> list[signal.Signals]:
        """Those that arrived since the last call, in order; does not block."""
        try:
            return [signal.Signals(number) for number in self._reader.recv(4096)]
        except BlockingIOError:
            return []


@contextlib.contextmanager
def caught(*numbers: signal.Signals) -> Iterator[Caught]:
    """Catch these signals inside the block; what handled them before is put back after it. Main thread only."""
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)
        before = {number: signal.signal(number, _do_nothing) for number in numbers}
        wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield Caught(reader)
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)


def _do_nothing(_number: int, _frame: object) -> None:
    """The interpreter writes a signal to the wakeup socket only when it has a handler."""
