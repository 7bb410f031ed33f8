"""Forking without exec: what parent and child must do about signals, and how the parent hears of a child's end."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

# A stop of the service is said over sockets; whoever keeps others from outliving their time must not die of it first.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_ALL_SIGNALS = signal.valid_signals()
EXIT_BROKEN = 70  # EX_SOFTWARE of sysexits.h: the child raised

log = logging.getLogger(__name__)


def fork(child: Callable[[], int]) -> int:
    """Start child() in a process of its own, which exits with what it returns; returns its pid. Raises OSError.

    The child begins with the default action for every signal that Python code handled or that was ignored here
    (SIGPIPE stays ignored, as everywhere in Python), and with none blocked. The caller must have one thread only.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _ALL_SIGNALS)
    try:
        pid = os.fork()
        if pid == 0:
            _live(child)
        return pid
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _live(child: Callable[[], int]) -> NoReturn:
    status = EXIT_BROKEN
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, *STOP_SIGNALS):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        status = child()
    except SystemExit as exc:
        status = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    except BaseException:
        log.exception("a forked process broke")
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status & 0xFF)


class Children:
    """The end of a child as something to poll for: readable (fileno) when a child ended since the last reap().

    One at a time in a process, made in its main thread; it takes over SIGCHLD and the wake-up descriptor.
    """

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)  # the flag is the byte in the pipe
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self.any_left = True  # False: waitpid said that this process has no child, so a subreaper has no descendant

    def fileno(self) -> int:
        return self._reader

    def reap(self) -> dict[int, int]:
        """Take in every child that has ended: pid -> exit code, or minus the signal. Never blocks."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._reader, 4096)
        ended: dict[int, int] = {}
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self.any_left = False
                return ended
            if pid == 0:
                self.any_left = True
                return ended
            ended[pid] = os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        os.close(self._reader)
        os.close(self._writer)
