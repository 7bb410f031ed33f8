"""Processes for test_supervisor: a supervisor with children, all of this file.

python -m tests.unit.contract.supervision supervise FOLDER HANG_SECONDS STOP_SECONDS KIND...
python -m tests.unit.contract.supervision KIND FOLDER

A child appends its pid to FOLDER/KIND.started, and each signal that it gets to FOLDER/KIND.signals; a word
to read the configuration again counts as SIGHUP. The restarts that it is told of go to FOLDER/KIND.restarts.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from contract import logs, processes
from contract.errors import ConfigError
from contract.supervised import Lifeline
from contract.supervisor import Child, Supervisor


def supervise(folder: str, hang_seconds: str, stop_seconds: str, *kinds: str) -> int:
    logs.configure("test", "supervisor")
    command = (sys.executable, "-m", __spec__.name)
    children = [Child(kind, (*command, kind, folder), float(stop_seconds), kind == "last") for kind in kinds]
    return Supervisor(
        "test", children, lambda: _read_again(Path(folder), children), hang_seconds=float(hang_seconds)
    ).run()


def _read_again(folder: Path, children: list[Child]) -> list[Child]:
    """FOLDER/wanted holds KIND or KIND=STOP_SECONDS, one a line; or broken."""
    wanted = dict(line.partition("=")[::2] for line in (folder / "wanted").read_text().split())
    if "broken" in wanted:
        raise ConfigError("the configuration cannot be used:\n  first problem\n  second problem")
    before = children[0]
    return [
        Child(kind, (*before.argv[:-2], kind, before.argv[-1]), float(seconds or before.stop_seconds))
        for kind, seconds in wanted.items()
    ]


def child(kind: str, folder: Path) -> int:
    """well: ends at the first SIGTERM; patient: at the second; stubborn: never; shy: is never ready; refusing: 78."""
    lifeline = Lifeline.from_environment()
    processes.set_title(f"test: {kind}")
    received: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    _append(folder / f"{kind}.started", os.getpid())
    if kind == "refusing":
        lifeline.status("conf:1: what is wrong")
        os._exit(78)  # in the same moment
    if kind != "shy":
        lifeline.ready()
        lifeline.status(f"{kind} at\n work")
    enough = {"patient": 2, "stubborn": 1000}.get(kind, 1)
    told, known = 0, None
    while told < enough:
        lifeline.alive()
        if (restarts := lifeline.restarts()) not in (None, known):
            known = restarts
            _append(folder / f"{kind}.restarts", restarts[1])
        if lifeline.must_reload():
            _append(folder / f"{kind}.signals", signal.SIGHUP)
        time.sleep(0.02)
        if len(received) > told:
            told += 1
            _append(folder / f"{kind}.signals", signal.SIGTERM)
    return 0


def _append(path: Path, number: int) -> None:
    with path.open("a") as opened:
        opened.write(f"{number}\n")


if __name__ == "__main__":
    if sys.argv[1] == "supervise":
        sys.exit(supervise(*sys.argv[2:]))
    sys.exit(child(sys.argv[1], Path(sys.argv[2])))
