"""The consumer's sign of life on disk, for the heartbeat: a counter that moves with its main loop, and true figures.

It is written in its place, each second: a fresh file in the place of the old one takes fifteen times as long (160 us
against 11, on ext4). A reader may come in between, so the second line is the CRC-32 of the first; what follows it is
of a longer one.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

READS = 5  # of a file that is being written just then

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """figures and totals by the last word of their key in Zabbix."""

    incarnation: str
    counter: int
    figures: dict[str, int]  # as they are now; what is not known is not among them
    totals: dict[str, int]  # counted since the incarnation began
    silent: dict[str, float]  # for how long a thread has not come back from what it does, seconds; 0: it is well


class Report:
    """Writes the progress of one incarnation."""

    def __init__(self, state_dir: Path, incarnation: str) -> None:
        self._state_dir = state_dir
        self.incarnation = incarnation
        self._counter = 0

    def write(
        self,
        figures: Mapping[str, int],
        totals: Mapping[str, int] | None = None,
        silent: Mapping[str, float] | None = None,
    ) -> None:
        """Where the disk does not take it, the log says so."""
        self._counter += 1
        progress = Progress(self.incarnation, self._counter, dict(figures), dict(totals or {}), dict(silent or {}))
        try:
            write(self._state_dir, progress)
        except OSError as exc:
            log.error("STATE_DIR cannot be written, the heartbeat will stop", extra={"error": str(exc)})


def write(state_dir: Path, progress: Progress) -> None:
    """Raises OSError."""
    line = json.dumps(vars(progress)).encode()
    descriptor = os.open(state_dir / "progress", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        text = b"%b\n%08x\n" % (line, zlib.crc32(line))
        if os.write(descriptor, text) < len(text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(descriptor)


def read(state_dir: Path) -> Progress | None:
    """None when there is none, or when it is no progress, or another release's."""
    try:
        found = json.loads(_line(state_dir / "progress"))
        return Progress(
            str(found["incarnation"]),
            int(found["counter"]),
            {str(key): int(value) for key, value in found["figures"].items()},
            {str(key): int(value) for key, value in found["totals"].items()},
            {str(key): float(value) for key, value in found["silent"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _line(path: Path) -> bytes:
    """Raises OSError, and ValueError when no reading finds a whole one."""
    for _ in range(READS):
        line, check, *_ = path.read_bytes().split(b"\n")
        if check == b"%08x" % zlib.crc32(line):
            return line
    raise ValueError(f"expected the CRC-32 of the first line in the second one of {path}, found {check!r}")
