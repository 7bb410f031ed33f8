"""The folder that the processes of one run of the service share; its name is the run's."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VARIABLE = "DISTRIBUTE_RUN_FOLDER"  # in the environment of the supervisor's children


@contextmanager
def shared() -> Iterator[None]:
    """For the supervisor: inside the block its children have one, and what they count outlives each of them."""
    os.environ[VARIABLE] = folder = _made()
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def take() -> Path:
    """The supervisor's; without a supervisor a new one."""
    return Path(os.environ.get(VARIABLE) or _made())


def name() -> str:
    """The run's; empty without a supervisor."""
    return Path(os.environ.get(VARIABLE, "")).name


def leave(folder: Path) -> None:
    """The end of the process that took it: only the supervisor's stays."""
    if VARIABLE not in os.environ:
        shutil.rmtree(folder, ignore_errors=True)


def _made() -> str:
    return tempfile.mkdtemp(prefix="distribute-metrics-")
