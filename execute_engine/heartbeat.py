"""The heartbeat process: it tells Zabbix that the engine works, and only while it sees that it does."""

from __future__ import annotations

import logging
import time

from contract import processes, signals
from contract.config import Config
from contract.supervised import Lifeline
from execute_engine import progress, stops
from execute_engine.errors import ZabbixError
from execute_engine.progress import Progress
from execute_engine.stops import Stops
from execute_engine.timer import Timer
from execute_engine.zabbix import Trapper

WATCH_SECONDS = 0.5  # between two looks at the consumer's progress
FIGURES = ("slots", "free_slots", "units", "hosts", "unkillable", "spooled", "dropped", "braked", "sees_files")
FIGURE_KEY = "exec.engine.{}"
QUIET_SECONDS = 60.0  # a failure is logged once in so long

log = logging.getLogger(__name__)


class Watch:
    """Whether the consumer moves. Moments are monotonic, and of this process: no clock of another one is trusted."""

    def __init__(self, patience_seconds: float) -> None:
        self._patience_seconds = patience_seconds
        self._last: tuple[str, int] | None = None
        self._moved_at: float | None = None

    def look(self, found: Progress | None, moment: float) -> None:
        if found is None:
            return
        shown = (found.incarnation, found.counter)
        if self._last is not None and shown != self._last:
            self._moved_at = moment
        self._last = shown

    def moves(self, moment: float) -> bool:
        """It was seen to move within the patience; what was there when the watch began proves nothing."""
        return self._moved_at is not None and moment - self._moved_at <= self._patience_seconds


def main(config: Config, lifeline: Lifeline) -> int:
    """Send until a stop signal comes; returns the exit code."""
    processes.set_title("execute-engine: heartbeat")
    with signals.caught(*stops.SIGNALS) as caught:
        lifeline.ready()
        _beat(config, lifeline, Stops(caught))
    return 0


def _beat(config: Config, lifeline: Lifeline, stop_signals: Stops) -> None:
    interval_seconds = config.intervals.zabbix
    trapper, watch, send, complain = (
        Trapper(config.zabbix),
        Watch(2 * interval_seconds),
        Timer(interval_seconds),
        Timer(QUIET_SECONDS),
    )
    while not stop_signals.wait(min(WATCH_SECONDS, interval_seconds)):
        lifeline.alive()
        found = progress.read(config.engine.state_dir)
        watch.look(found, time.monotonic())
        if found is None or not watch.moves(time.monotonic()):
            lifeline.status("silent: the consumer shows no progress")
            continue
        if send.due(time.monotonic()):
            problem = _send(trapper, _values(config.zabbix.item, found))
            lifeline.status(problem or "sent")
            if problem and complain.due(time.monotonic()):
                log.warning("the heartbeat was not taken", extra={"reason": problem})


def _values(item: str, found: Progress) -> dict[str, object]:
    return {item: 1, **{FIGURE_KEY.format(name): getattr(found, name) for name in FIGURES}}


def _send(trapper: Trapper, values: dict[str, object]) -> str:
    """What went wrong, or an empty string."""
    try:
        refused = trapper.send(values)
    except ZabbixError as exc:
        return str(exc)
    return (
        f"Zabbix refused {refused} of {len(values)} values: does it know this host and these items?" if refused else ""
    )
