"""The consumer process: how it starts and how it ends; what it does in between stands in loop.py."""

from __future__ import annotations

import logging
import uuid
from contextlib import ExitStack
from pathlib import Path

from contract import processes, signals
from contract.config import Config
from contract.database import Database
from contract.masking import MASKABLE_CHARACTERS
from contract.supervised import Lifeline
from execute_engine import former as marks
from execute_engine import outbox, results, runner_user, scratch, slots, spool, stops
from execute_engine.database_thread import DatabaseThread
from execute_engine.engine_row import EngineRow
from execute_engine.errors import LauncherError, LeaseLost, SpoolError, StopRequested, TwinError
from execute_engine.former import kill_former
from execute_engine.launcher_client import LauncherClient
from execute_engine.loop import Loop, Parts
from execute_engine.output import Cleaner, lines_of
from execute_engine.progress import Report
from execute_engine.share_probe import ShareProbe
from execute_engine.start import Memory, Patience, await_database, only_one, refuse_twins
from execute_engine.stops import Stops
from execute_engine.store import Store
from execute_engine.subscription import Subscription
from execute_engine.wakeup import Wakeup

DATABASE_ANSWER_SECONDS = 10.0
DATABASE_TRUSTED_SECONDS = 1.0  # before each transaction came a ping; an engine's errors are tried again anyway
KAFKA_LEAVE_SECONDS = 5.0
LOADING_SECONDS = 120.0  # of Ansible: 2 s, more where everything else starts too; to give up would only add to it

log = logging.getLogger(__name__)


def main(
    config: Config,
    lifeline: Lifeline,
    *,
    runner: str = "execute_engine.runner",
    launcher_class: type[LauncherClient] = LauncherClient,
) -> int:
    """Run one incarnation of the engine; returns the exit code. runner is the module that runs units.

    launcher_class: who has them run; another one where the consumer is to be seen without Ansible and ssh.
    """
    processes.set_title("execute-engine: consumer")
    with signals.caught(*stops.SIGNALS) as caught:
        stop_signals = Stops(caught)
        try:
            report = Report(config.engine.state_dir, uuid.uuid4().hex)
            with only_one(config.engine.state_dir, patience := Patience(lifeline, stop_signals, report)):
                _run(config, lifeline, stop_signals, patience, report, runner, launcher_class)
        except StopRequested as exc:
            log.info("stopped", extra={"reason": str(exc)})
        except (LauncherError, LeaseLost, SpoolError, TwinError) as exc:
            log.error("the engine cannot go on", extra={"reason": str(exc)})
            return 1
    return 0


def _run(
    config: Config,
    lifeline: Lifeline,
    stop_signals: Stops,
    patience: Patience,
    report: Report,
    runner: str,
    launcher_class: type[LauncherClient],
) -> None:
    settings, incarnation = config.engine, report.incarnation
    lifeline.alive()  # what follows is silent for up to 10 s
    left = kill_former(settings.state_dir, incarnation)
    if left:
        log.error("processes of a former run cannot be killed", extra={"pids": left})
    with ExitStack() as ending:
        database = _database(config)
        ending.callback(database.close)
        row = EngineRow(database, incarnation, settings.engine_id)
        memory = Memory(settings.state_dir)
        former = memory.former()
        for gone in former:
            scratch.sweep(gone)
        await_database(database, patience)
        refuse_twins(row, former, settings, patience)
        spool_dir = settings.state_dir / "spool"
        _replay(spool_dir, database, patience)  # before what has no result is settled
        _settle(former, row, patience)

        launcher = launcher_class(
            state_dir=settings.state_dir, incarnation=incarnation, runner=runner, user=runner_user.of(settings)
        )
        ending.callback(launcher.close)
        log.info("launcher started", extra={"plugins": " ".join(launcher.start(LOADING_SECONDS, patience.goes_on))})
        memory.keep([incarnation])
        size = slots.from_settings(settings)
        patience.insist(lambda: row.register(size.slots))
        lifeline.ready()
        log.info(
            "engine started",
            extra={
                "engine": settings.engine_id,
                "incarnation": incarnation,
                "slots": size.slots,
                "runners": size.runners,
                "how": slots.FORMULA,
            },
        )
        wakeup = Wakeup()  # never closed: the threads may use it until the process is gone
        subscription = None
        if config.kafka.bootstrap_servers:
            subscription = Subscription(config.kafka, settings.engine_id, wakeup.set)
            subscription.start()
            ending.callback(subscription.join, KAFKA_LEAVE_SECONDS)
            ending.callback(subscription.close)
        database_thread = DatabaseThread(wakeup.set)
        database_thread.start()
        store = Store(database, incarnation, config)
        results_on_disk = spool.Spool(spool_dir, incarnation, settings.spool_size * 1_000_000)
        share = ShareProbe(settings.files_dir, marks.of_state_dir(settings.state_dir))
        ending.callback(share.close)
        parts = Parts(
            row, store, database_thread, launcher, subscription, size, results_on_disk, share, lifeline, stop_signals,
            wakeup, Cleaner(_secrets(config)), report,
        )  # fmt: skip
        try:
            Loop(config, incarnation, parts).run()
        finally:
            launcher.close()  # before anything else: what runs must not go on without us


def _database(config: Config) -> Database:
    has_time = config.engine.lease_seconds >= 2 * DATABASE_ANSWER_SECONDS  # for a beat behind a statement that hangs
    return Database(
        config.database,
        answer_timeout_seconds=DATABASE_ANSWER_SECONDS,
        trusted_seconds=DATABASE_TRUSTED_SECONDS if has_time else 0.0,
    )


def _secrets(config: Config) -> list[str]:
    """What the engine reads of secrets. Those that are too short to be masked the log names, once a start."""
    vault = lines_of(config.ansible.vault_password_file)
    if any(0 < len(line) < MASKABLE_CHARACTERS for line in vault):
        log.warning(
            f"VAULT_PASSWORD_FILE has fewer than {MASKABLE_CHARACTERS} characters: too short to be masked in output"
        )
    return [*config.secrets(), *vault, *lines_of(config.secret_key_file)]


def _replay(directory: Path, database: Database, patience: Patience) -> None:
    """Store the results that former runs of this engine have left on disk. Raises SpoolError."""
    for leftover in spool.leftovers(directory):
        batches = outbox.Outbox()
        for row in leftover.rows:
            batches.put(row, 0.0)
        for batch in batches.take():
            patience.insist(lambda: results.store(database, leftover.incarnation, batch))  # noqa: B023
            patience.goes_on()
        log.warning(
            "results of a former run are stored", extra={"rows": len(leftover.rows), "from": leftover.path.name}
        )
        leftover.discard()


def _settle(former: list[str], row: EngineRow, patience: Patience) -> None:
    """What former runs of this engine held: their processes are gone, so there is nothing to wait for."""
    reason = "the engine that ran this unit was started again: there is no result for this host"
    settled = patience.insist(lambda: row.retire(former, reason)) if former else 0
    if settled:
        log.warning("units of a former run are settled", extra={"units": settled})
