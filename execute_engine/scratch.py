"""A runner's private directory: Ansible's temporary files, decrypted files, known_hosts. Named by process, so that
whoever outlives a killed runner can remove it."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path


def path(pid: int) -> Path:
    return Path(tempfile.gettempdir()) / f"execute-engine-runner-{os.getuid()}-{pid}"


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
