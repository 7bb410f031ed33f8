"""CPU and memory of whole process trees, as the kernel has counted them.

Of a tree that lives on, such as an engine's: tree_cpu_seconds before and after. Of a command that ends: spent_by, which
runs it below a process of its own (this module as a program) that all its orphans fall to, ssh's masters among them.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

PR_SET_CHILD_SUBREAPER = 36
COMMAND_SECONDS = 1800
MASTER_SECONDS = 10


def tree(pid: int) -> list[psutil.Process]:
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def tree_cpu_seconds(pid: int) -> float:
    """User and system time of a process and its descendants, with those of children that they have waited for."""
    total = 0.0
    for process in tree(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def core_percent(pid: int, seconds: float) -> float:
    """Of one core, that the tree takes in the next seconds. Blocks so long."""
    began, before = time.monotonic(), tree_cpu_seconds(pid)
    time.sleep(seconds)
    return 100 * (tree_cpu_seconds(pid) - before) / (time.monotonic() - began)


def tree_pss_mb(pid: int) -> float:
    """Memory in MB (10**6 bytes): what processes share counts once, as /proc/PID/smaps_rollup divides it."""
    total = 0
    for process in tree(pid):
        with contextlib.suppress(OSError, psutil.NoSuchProcess):
            for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total / 1e6


@dataclass(frozen=True)
class Spent:
    cpu_seconds: float  # of the command and all that it has started
    wall_seconds: float  # to the command's own end


def spent_by(argv: Sequence[str], env: Mapping[str, str], cwd: Path) -> Spent:
    """Run a command; what it leaves running is ended. Blocks until all of it has ended.

    Raises RuntimeError with the end of its output when it fails or takes longer than COMMAND_SECONDS.
    """
    with (cwd / "command.log").open("w+") as log:
        reads, writes = os.pipe()
        with os.fdopen(reads) as answer:
            meter = subprocess.Popen(
                [sys.executable, "-I", str(Path(__file__).resolve()), str(writes), *argv],
                env=dict(env), cwd=cwd, pass_fds=[writes], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
            os.close(writes)
            said = answer.read()
        meter.wait()
        found: dict[str, Any] = json.loads(said) if said else {"code": "no answer"}
        if found["code"] != 0:
            log.seek(0)
            raise RuntimeError(f"{argv[0]} ended with {found['code']}:\n{log.read()[-3000:]}")
    return Spent(found["cpu_seconds"], found["wall_seconds"])


def _meter(answer: int, argv: Sequence[str]) -> None:
    """Run the command, end what it has left behind, and write its exit code and CPU seconds."""
    os.set_inheritable(answer, False)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    code: int | str
    began = time.monotonic()
    try:
        code = subprocess.run(argv, stdin=subprocess.DEVNULL, timeout=COMMAND_SECONDS, check=False).returncode
    except subprocess.TimeoutExpired:
        code = f"no end after {COMMAND_SECONDS} s"
    wall = time.monotonic() - began
    _end_all()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = {"cpu_seconds": used.ru_utime + used.ru_stime, "wall_seconds": wall}
    os.write(answer, json.dumps({"code": code, **spent}).encode())


def _end_all() -> None:
    """TERM for those that wait for nothing, then KILL; each is waited for, so that its time is counted."""
    deadline = time.monotonic() + MASTER_SECONDS
    while left := psutil.Process().children(recursive=True):
        number = signal.SIGTERM if time.monotonic() < deadline else signal.SIGKILL
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.02)


if __name__ == "__main__":
    _meter(int(sys.argv[1]), sys.argv[2:])
