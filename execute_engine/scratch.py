"""A runner's private directory: Ansible's temporary files, decrypted files, known_hosts.

Named by the engine's incarnation and the runner's pid, so that whoever outlives a killed runner can remove it: its
guard, the launcher where the guard died too, and the next consumer where all of them did.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from execute_engine import former


def path(pid: int) -> Path:
    """Of a runner of this process's own incarnation."""
    return Path(tempfile.gettempdir()) / f"{_prefix(os.environ.get(former.INCARNATION, ''))}{pid}"


def make() -> Path:
    """The directory of the calling process, empty and for its user only. What a former process with the same number
    left there is removed; raises OSError when somebody else holds the name."""
    mine = path(os.getpid())
    remove(os.getpid())
    mine.mkdir(mode=0o700)
    return mine


def remove(pid: int) -> None:
    """Called by the runner at its end, and by its guard when it was killed. No error where there is none."""
    shutil.rmtree(path(pid), ignore_errors=True)


def sweep(incarnation: str | None = None) -> None:
    """Remove what runners of an incarnation (None: this process's own) have left that are gone themselves."""
    prefix = _prefix(os.environ.get(former.INCARNATION, "") if incarnation is None else incarnation)
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        pid = left.name.removeprefix(prefix)
        if pid.isdecimal() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(left, ignore_errors=True)


def _prefix(incarnation: str) -> str:
    return f"execute-engine-runner-{incarnation or f'alone-{os.getuid()}'}-"
