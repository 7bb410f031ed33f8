"""What is going on at a host now, and since when."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True)
class Where:
    """A host's stage (one of events.STAGES) at one moment. Times are ISO 8601, UTC, without a zone."""

    stage: str
    since_iso: str
    since_monotonic: float
    quiet_since: float | None  # monotonic: when the command last wrote something, or this stage began; None: not known


class Progress:
    """The stage of one operation. Written in the event loop, read from any thread."""

    def __init__(self) -> None:
        self.stage: str | None = None  # None: waits for its turn
        self.since_monotonic = 0.0
        self.told = False  # whether a stage event told this stage
        self._since = 0.0
        self._output_at = 0.0  # monotonic

    def enter(self, stage: str) -> None:
        self.since_monotonic = time.monotonic()
        self._since = time.time()
        self.told = False
        self.stage = stage

    def output(self) -> None:
        self._output_at = time.monotonic()
        if self.stage != "output":
            self.enter("output")

    def look(self) -> Where | None:
        stage = self.stage
        if stage is None:
            return None
        quiet_since = self._output_at if stage == "output" else self.since_monotonic
        return Where(stage, iso(self._since), self.since_monotonic, quiet_since)


def iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()
