"""The consumer's sign of life on disk, for the heartbeat: a counter that moves with its main loop, and true figures."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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
        """Whoever reads sees the former or the new one. Where the disk does not take it, the log says so."""
        self._counter += 1
        progress = Progress(self.incarnation, self._counter, dict(figures), dict(totals or {}), dict(silent or {}))
        try:
            write(self._state_dir, progress)
        except OSError as exc:
            log.error("STATE_DIR cannot be written, the heartbeat will stop", extra={"error": str(exc)})


def write(state_dir: Path, progress: Progress) -> None:
    """Whoever reads sees the old or the new one. Raises OSError."""
    fresh = state_dir / "progress.new"
    fresh.write_text(json.dumps(vars(progress)))
    fresh.replace(state_dir / "progress")


def read(state_dir: Path) -> Progress | None:
    """None when there is none, or when it is no progress, or another release's."""
    try:
        found = json.loads((state_dir / "progress").read_text())
        return Progress(
            str(found["incarnation"]),
            int(found["counter"]),
            {str(key): int(value) for key, value in found["figures"].items()},
            {str(key): int(value) for key, value in found["totals"].items()},
            {str(key): float(value) for key, value in found["silent"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
