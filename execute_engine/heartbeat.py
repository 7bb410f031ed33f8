"""The heartbeat process: it tells Zabbix how the engine is, and that it works only while it sees that it does."""

from __future__ import annotations

import time
from dataclasses import dataclass

from contract import __version__, heartbeat, processes, signals
from contract import config as configuration
from contract.config import Config
from contract.heartbeat import Courier, Debt, Watch
from contract.supervised import Lifeline
from execute_engine import progress, stops
from execute_engine.progress import Progress
from execute_engine.stops import Stops
from execute_engine.timer import Timer

WATCH_SECONDS = 0.5  # between two looks at the consumer's progress
LEAST_PATIENCE_SECONDS = 20.0  # with a thread of the consumer: one statement, or one commit, may take half of it
KEY = "exec.engine.{}"


def main(config: Config, lifeline: Lifeline) -> int:
    """Send until a stop signal comes; returns the exit code."""
    processes.set_title("execute-engine: heartbeat")
    with signals.caught(*stops.SIGNALS) as caught:
        lifeline.ready()
        stop_signals, state_dir, wanted = Stops(caught), config.engine.state_dir, config
        results, restarts = Debt(state_dir / "heartbeat"), Debt(state_dir / "restarts")
        while (changed := _beat(wanted, lifeline, stop_signals, results, restarts)) is not None:
            wanted = changed
        for debt in (results, restarts):
            debt.keep()
    return 0


def _beat(config: Config, lifeline: Lifeline, stop_signals: Stops, results: Debt, restarts: Debt) -> Config | None:
    """Until a stop signal comes: None; or until a reload changes what is sent, where to or when: with that one then.

    results are counted by the consumer, restarts of it and of this process by the supervisor.
    """
    interval_seconds, state_dir = config.intervals.zabbix, config.engine.state_dir
    courier, due, watch = Courier(config.zabbix), Timer(interval_seconds), Watch(2 * interval_seconds)
    patience_seconds = max(2 * interval_seconds, LEAST_PATIENCE_SECONDS)
    while not stop_signals.wait(min(WATCH_SECONDS, interval_seconds)):
        lifeline.alive()
        if (fresh := heartbeat.changed(lifeline, config, configuration.ENGINE)) is not None:
            return fresh
        moment = time.monotonic()
        found = progress.read(state_dir)
        watch.look(found and (found.incarnation, found.counter), moment)
        if found is not None:
            results.look(found.incarnation, {KEY.format(name): number for name, number in found.totals.items()})
        if (told := lifeline.restarts()) is not None:
            run, number = told
            restarts.look(run, {KEY.format("restarts"): number})
        if (delivery := courier.delivery()) is not None:
            results.paid(delivery.taken)
            restarts.paid(delivery.taken)
        if (moves := watch.moves(moment)) is None:  # it is not known yet
            continue
        sight = _look(found if moves else None, patience_seconds)
        if courier.idle and due.due(moment):
            values = {**_values(config.zabbix.item, sight), **results.values(), **restarts.values()}
            courier.send(lambda: values)  # noqa: B023
            lifeline.status("; ".join(filter(None, (sight.stuck, courier.problem))) or "sends to Zabbix")
    return None


@dataclass(frozen=True)
class _Sight:
    """Why the consumer does not work (empty: it has proven that it does), and which of its figures are true now."""

    stuck: str
    figures: dict[str, int]


def _look(found: Progress | None, patience_seconds: float) -> _Sight:
    """found is None when its loop stands still: what it wrote last is of long ago."""
    if found is None:
        return _Sight("the consumer shows no progress", {})
    hung = [name for name, seconds in found.silent.items() if seconds > patience_seconds]
    figures = {name: number for name, number in found.figures.items() if name not in hung}
    return _Sight(f"the consumer's thread for the {hung[0]} does not come back" if hung else "", figures)


def _values(item: str, sight: _Sight) -> dict[str, object]:
    own: dict[str, object] = {KEY.format("consumer"): int(not sight.stuck), KEY.format("version"): __version__}
    if not sight.stuck:
        own[item] = 1
    return {**own, **{KEY.format(name): number for name, number in sight.figures.items()}}
