"""The real runner, which also leaves a process that no signal ends while the file `immortal` is in STATE_DIR.

A stand-in for a process in uninterruptible sleep: for it the launcher and its guards kill without effect.
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

from contract import processes
from execute_engine import former, runner
from execute_engine.forking import fork

TITLE = "execute-engine: immortal"
_kill = os.kill


def preload() -> list[str]:
    os.kill = _kill_the_mortal
    return runner.preload()


def main(events: socket.socket, orders_fd: int) -> None:
    fork(_sleep)
    runner.main(events, orders_fd)


def _sleep() -> int:
    processes.set_title(TITLE)
    time.sleep(1000)
    return 0


def _kill_the_mortal(pid: int, number: int) -> None:
    immortal = TITLE.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    if not (immortal and (Path(os.environ[former.STATE_DIR]) / "immortal").exists()):
        _kill(pid, number)
