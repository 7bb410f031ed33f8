"""The marks in the environment of a launcher, and so of all that it starts, and what is found by them.

They are the second net, for what no guard and no launcher lived to end: a process that was started with another
environment does not carry them.
"""

from __future__ import annotations

import time
from pathlib import Path

from contract import processes
from execute_engine import sweep

STATE_DIR = "EXECUTE_ENGINE_STATE_DIR_MARK"
INCARNATION = "EXECUTE_ENGINE_INCARNATION"
ITSELF_SECONDS = 3.0  # former guards end their units by themselves, better than can be done from outside


def environment(state_dir: Path, incarnation: str) -> dict[str, str]:
    return {**of_state_dir(state_dir), INCARNATION: incarnation}


def of_state_dir(state_dir: Path) -> dict[str, str]:
    """Of what belongs to no unit, and is none of a launcher's: only a next consumer ends it."""
    return {STATE_DIR: str(state_dir.resolve())}


def of_incarnation(incarnation: str) -> set[int]:
    """The pids of all processes that carry this incarnation's mark."""
    return set(processes.marked(INCARNATION, lambda value: value == incarnation))


def kill_former(state_dir: Path, incarnation: str, deadline_seconds: float = 10) -> list[int]:
    """End what other incarnations of this state directory have left; returns the pids that could not be killed.

    Blocks until they are gone, at most about deadline_seconds. For a consumer before its first launch.
    """
    deadline = time.monotonic() + deadline_seconds
    mark = str(state_dir.resolve())

    def former() -> set[int]:
        found = set(processes.marked(STATE_DIR, lambda value: value == mark))
        found -= of_incarnation(incarnation)
        # Below them may be some that were started with an environment of their own.
        return found | sweep.strike_descendants(found, kill=lambda pid: None) if found else found

    by_themselves = min(deadline, time.monotonic() + ITSELF_SECONDS)
    while former() and time.monotonic() < by_themselves:
        time.sleep(0.1)
    return processes.kill_all(former, deadline - time.monotonic())
