"""The CPU time of a process by its functions, in all of its threads."""

from __future__ import annotations

import contextlib
import cProfile
import io
import os
import pstats
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def profiled(directory: Path | None, name: str) -> Iterator[None]:
    """At the end of the block DIRECTORY/NAME.txt has a table for each thread that began in it, and for this one.

    Seconds are those that the thread had the processor. Without a directory nothing is done.
    """
    if directory is None:
        yield
        return
    found: dict[str, cProfile.Profile] = {}

    def begin(*_: Any) -> None:
        """The first call of a new thread; from here on cProfile is called."""
        profile = found[threading.current_thread().name] = cProfile.Profile(time.thread_time)
        profile.enable()

    threading.setprofile(begin)
    begin()
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        (directory / f"{name}.txt").write_text("".join(_table(*each) for each in found.items()))


def _table(thread: str, profile: cProfile.Profile) -> str:
    text = io.StringIO()
    stats = pstats.Stats(profile, stream=text)
    for order in ("cumulative", "tottime"):
        stats.sort_stats(order).print_stats(60)
    return f"thread {thread} of process {os.getpid()}\n{text.getvalue()}"
