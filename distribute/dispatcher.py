"""The dispatcher process: the one place where it is decided what runs next, and where what is over is ended.

Of all replicas one leads. It publishes waiting units as the window allows and tells Kafka of them; with the database as
the queue it only publishes. It takes engines for dead, settles their units, finishes tasks, and deletes expired ones.
"""

from __future__ import annotations

import logging
import selectors
import signal
import threading
import time
from collections.abc import Sequence

import sqlalchemy as sa

from contract import config as configuration
from contract import migrations, reload, signals, span
from contract.config import Config
from contract.database import Database
from contract.errors import DatabaseError
from contract.failpoint import fail_point
from contract.message import UnitMessage
from contract.supervised import Lifeline
from distribute import run_folder, turns
from distribute.dead_engines import DeadEngines
from distribute.errors import NotLeading
from distribute.leadership import Leadership
from distribute.outbox import Outbox
from distribute.publisher import Publisher
from distribute.retention import Retention
from distribute.store import dispatch
from distribute.store.dispatch import Glance

# All waits of an idle leader together make less than four statements a second: 1 / IDLE, BEAT, LOOK and COUNT.
BUSY_SECONDS = 0.2  # units wait, and there is no room for them; or there is more to delete
IDLE_SECONDS = 0.4  # nothing waits
STANDBY_SECONDS = 0.5
OUTBOX_SECONDS = 5.0
COUNT_SECONDS = 5.0  # between two counts for the status
AWAY_SECONDS = (0.5, 5.0)  # the pauses while the database is away: the first, the longest
ANSWER_SECONDS = 5.0  # a longer silence of the database counts as away
STOP_SECONDS = 1.0
TASKS_A_TURN = 20
UNITS_A_TURN = 200

log = logging.getLogger(__name__)


def run(config: Config, lifeline: Lifeline) -> int:
    """Dispatch until SIGTERM or SIGINT; returns the exit code. Main thread only."""
    stopping = threading.Event()
    publisher = Publisher(config.kafka) if config.kafka.bootstrap_servers else None
    dispatcher = Dispatcher(config, publisher, lifeline, stopping)
    # In a thread, because a query that is not answered blocks for longer than a stop may take.
    thread = threading.Thread(target=dispatcher.run, name="dispatcher", daemon=True)
    wanted = (signal.SIGTERM, signal.SIGINT)
    with signals.caught(*wanted) as caught, selectors.DefaultSelector() as selector:
        selector.register(caught, selectors.EVENT_READ)
        if publisher is not None:
            publisher.start()
        thread.start()
        while thread.is_alive() and not caught.take():
            selector.select(timeout=1.0)
        has_died = not thread.is_alive()
        stopping.set()
        if publisher is not None:
            publisher.close()
            publisher.join(STOP_SECONDS / 2)
        thread.join(STOP_SECONDS)
    log.info("stopped")
    return 1 if has_died else 0


class Dispatcher:
    """One loop; the only user of the database in this process."""

    def __init__(
        self, config: Config, publisher: Publisher | None, lifeline: Lifeline, stopping: threading.Event
    ) -> None:
        self._config = config
        self._publisher = publisher
        self._lifeline = lifeline
        self._stopping = stopping
        self._database = Database(config.database, answer_timeout_seconds=ANSWER_SECONDS, pool_size=1)
        self._leadership = Leadership(self._database, run_folder.name())
        self._dead_engines = DeadEngines(self._database, config.engine.lease_seconds)
        self._retention = Retention(self._database, config.distribute.retention_days)
        self._outbox = Outbox()
        self._last_key = 0  # of the task that had the last turn
        self._look_at = self._outbox_at = self._count_at = 0.0
        self._live_engines = 0
        self._warned_of_engines = 0
        self._backlog = ""  # for the status
        self._trouble = ""
        self._away_since = 0.0
        self._away_seconds = AWAY_SECONDS[0]

    def run(self) -> None:
        """Until stopping is set. Errors of the database are waited out."""
        self._lifeline.ready()  # to wait for a database is part of the work
        schema_is_current = False
        while not self._stopping.is_set():
            self._lifeline.alive()
            if self._lifeline.must_reload():
                self._config = reload.follow(self._config, configuration.DISTRIBUTE)
            try:
                if not schema_is_current:
                    migrations.check(self._database)
                    schema_is_current = True
                pause_seconds = self._turn()
                self._trouble, self._away_seconds = "", AWAY_SECONDS[0]
            except NotLeading:
                log.warning("another dispatcher has taken over")
                self._leadership.lose()
                pause_seconds = 0.0
            except DatabaseError as exc:
                pause_seconds = self._wait_for_database(exc)
            self._tell_status()
            self._stopping.wait(pause_seconds)
        self._resign()

    def _turn(self) -> float:
        """One round of everything that is due; returns how long to rest."""
        led_before = self._leadership.leads
        self._leadership.keep()
        if not self._leadership.leads:
            return STANDBY_SECONDS
        if not led_before:
            self._begin_to_lead()
        self._take_outcomes()
        if time.monotonic() >= self._look_at:
            self._look_at_engines()
            self._look_at = time.monotonic() + self._dead_engines.look_seconds
        if time.monotonic() >= self._count_at:
            tasks, units = self._database.read(dispatch.backlog)
            self._backlog = f"tasks open: {tasks}, units waiting: {units}"
            self._count_at = time.monotonic() + COUNT_SECONDS
        if self._publisher is not None and time.monotonic() >= self._outbox_at:
            self._send_due(self._publisher)
            self._outbox_at = time.monotonic() + OUTBOX_SECONDS
        has_more = self._retention.keep(self._leadership.fence)
        idle_seconds = BUSY_SECONDS if has_more else IDLE_SECONDS
        glance = self._database.read(dispatch.glance)
        if glance.has_cancelled:
            self._database.write(dispatch.end_cancelled)
        if glance.has_finished:
            self._finish_tasks()
        if glance.is_held:
            self._hold(glance)
            return idle_seconds
        if glance.published_file_hosts and not glance.file_slots:
            self._take_back_files()
        if not glance.has_waiting:
            return idle_seconds
        return 0.0 if self._may_publish(glance) and self._publish(glance) else BUSY_SECONDS

    def _begin_to_lead(self) -> None:
        """Nothing that we knew when we led before is true any more."""
        self._dead_engines.forget()
        self._outbox = Outbox()
        self._look_at = self._outbox_at = 0.0

    def _hold(self, glance: Glance) -> None:
        """What was published and not claimed waits again: an engine must not take it while all is held."""
        if glance.published_hosts:
            units = self._database.write(self._retract)
            log.info("dispatching is held, units were taken back", extra={"units": units})

    def _take_back_files(self) -> None:
        """No engine could claim them, and their messages are done with."""
        units = self._database.write(lambda connection: self._retract(connection, only_files=True))
        log.warning("no live engine sees project files, units were taken back", extra={"units": units})

    def _retract(self, connection: sa.Connection, only_files: bool = False) -> int:
        self._leadership.fence(connection)
        return dispatch.retract(connection, only_files)

    def _may_publish(self, glance: Glance) -> bool:
        if self._publisher is not None and self._publisher.problem():
            return False  # what is published now could not be told
        return glance.room > 0 or glance.is_bare(needs_files=False)

    def _publish(self, glance: Glance) -> bool:
        """Publish the units whose turn it is; False when nobody may have one."""
        waiting = self._database.read(lambda connection: dispatch.waiting_task_keys(connection, glance.takes_files))
        keys = turns.in_turn(waiting, self._last_key)
        for some in turns.portions(keys, TASKS_A_TURN):
            choice = self._choose(glance, some)
            self._last_key = choice.last_key
            if choice.messages:
                published = self._database.write(lambda connection: self._publish_units(connection, choice))  # noqa: B023
                fail_point("published")
                self._send([message for message in choice.messages if message.unit_id in published])
                return True
            if choice.waits_for_room:
                return False
        return False

    def _choose(self, glance: Glance, keys: Sequence[int]) -> turns.Choice:
        tasks = self._database.read(lambda connection: dispatch.waiting_tasks(connection, keys))
        each = max(1, UNITS_A_TURN // len(keys))
        waiting = self._database.read(lambda connection: dispatch.waiting_units(connection, keys, each))
        return turns.choose(glance, tasks, waiting, self._config.distribute.parallel, self._last_key)

    def _publish_units(self, connection: sa.Connection, choice: turns.Choice) -> set[int]:
        self._leadership.fence(connection)
        return dispatch.publish(connection, [message.unit_id for message in choice.messages])

    def _send(self, messages: list[UnitMessage]) -> None:
        if self._publisher is not None:
            self._outbox.given(messages)
            self._publisher.send(messages)

    def _take_outcomes(self) -> None:
        if self._publisher is None:
            return
        for outcome in self._publisher.outcomes():
            self._outbox.ended(outcome.unit_id, outcome.is_sent, time.monotonic())

    def _send_due(self, publisher: Publisher) -> None:
        if publisher.problem():
            return
        published = self._database.read(dispatch.published_messages)
        free_slots = self._database.read(dispatch.free_slots) if published else []
        due = self._outbox.due(published, free_slots, time.monotonic())
        if due:
            log.info("units are sent again", extra={"units": len(due)})
            self._send(due)

    def _look_at_engines(self) -> None:
        self._live_engines = self._dead_engines.look()
        partitions = self._publisher.partitions if self._publisher is not None else 0
        if partitions and self._live_engines > max(partitions, self._warned_of_engines):
            self._warned_of_engines = self._live_engines
            log.warning(
                "there are more engines than partitions: raise [Kafka_Cluster] PARTITIONS",
                extra={"engines": self._live_engines, "partitions": partitions},
            )

    def _finish_tasks(self) -> None:
        for task_id in self._database.write(dispatch.finish_tasks):
            log.info("a task is finished", extra={"task": task_id})

    def _wait_for_database(self, error: DatabaseError) -> float:
        self._dead_engines.forget()
        self._leadership.forget()
        if not self._trouble:
            self._away_since = time.monotonic()
        if str(error) != self._trouble:
            self._trouble = str(error)
            log.warning("waiting for the database", extra={"error": self._trouble})
        pause_seconds, longest = self._away_seconds, AWAY_SECONDS[1]
        self._away_seconds = min(2 * pause_seconds, longest)
        return pause_seconds

    def _tell_status(self) -> None:
        if self._trouble:
            away = span.words(time.monotonic() - self._away_since)
            self._lifeline.status(f"waiting for the database for {away}: {self._trouble}")
        elif not self._leadership.leads:
            self._lifeline.status("stands by: another dispatcher leads")
        else:
            problem = self._publisher.problem() if self._publisher is not None else ""
            facts = f"{self._backlog}, engines live: {self._live_engines}"
            self._lifeline.status("; ".join(filter(None, ("leads", problem, facts))))

    def _resign(self) -> None:
        try:
            self._leadership.resign()
        except DatabaseError as exc:
            log.info("the leadership was not given back", extra={"error": str(exc)})
        self._database.close()
