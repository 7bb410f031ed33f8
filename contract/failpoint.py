"""Named points at which a test lets a process die, or stand still, to prove what happens when it really does."""

from __future__ import annotations

import os
import signal

VARIABLE = "EXECUTE_ENGINE_FAIL_POINT"
STOP = "stop:"


def fail_point(name: str) -> None:
    """Kill this process here when EXECUTE_ENGINE_FAIL_POINT is NAME, or NAME@FILE and FILE could be made.

    The second form fires once: whoever comes after the process that made the file lives on. With stop: before the NAME
    the process is stopped (SIGSTOP), and goes on from here at a SIGCONT.
    """
    wanted, _, once = os.environ.get(VARIABLE, "").partition("@")
    if wanted.removeprefix(STOP) != name:
        return
    if once:
        try:
            os.close(os.open(once, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            return
    os.kill(os.getpid(), signal.SIGSTOP if wanted.startswith(STOP) else signal.SIGKILL)
