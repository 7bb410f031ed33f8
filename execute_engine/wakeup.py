"""A flag that a selector can wait for."""

from __future__ import annotations

import os


class Wakeup:
    """set() may be called from any thread and from a signal handler; fileno() is readable until clear()."""

    def __init__(self) -> None:
        self._reader, self.writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def fileno(self) -> int:
        return self._reader

    def set(self) -> None:
        try:
            os.write(self.writer, b"\0")
        except BlockingIOError:  # full: it is set more than enough
            return

    def clear(self) -> None:
        try:
            while os.read(self._reader, 4096):
                pass
        except BlockingIOError:
            return
