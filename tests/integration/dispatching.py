"""What a dispatcher works with: submitted tasks, engines' rows, a lifeline and a publisher that remember."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from contract.config import (
    AnsibleSettings,
    Config,
    DatabaseSettings,
    DistributeSettings,
    EngineSettings,
    GitlabSettings,
    IntervalSettings,
    KafkaSettings,
    ZabbixSettings,
)
from contract.database import Database, now
from contract.message import UnitMessage
from contract.states import EngineState, TaskState, UnitState
from contract.supervised import Lifeline
from contract.tables import engine, host_result, task, unit
from distribute.dispatcher import Dispatcher
from distribute.publisher import Outcome
from distribute.store.submission import NewTask, submit
from tests.integration.published import OPTIONS


def config_of(settings: DatabaseSettings, *, lease_seconds: int = 30, parallel: int = 0) -> Config:
    return Config(
        KafkaSettings(),
        settings,
        ZabbixSettings(),
        AnsibleSettings(),
        IntervalSettings(),
        DistributeSettings(parallel=parallel),
        EngineSettings(lease_seconds=lease_seconds),
        GitlabSettings(),
    )


def add_task(database: Database, hosts: int, unit_hosts: int, parallel: int = 0) -> list[int]:
    """Submit an ad hoc task; returns its units' ids."""
    new = NewTask(
        id=f"t-{secrets.token_hex(6)}",
        name="test",
        type="adhoc",
        timeout_seconds=60,
        options={**OPTIONS, "parallel": parallel, "unit_hosts": unit_hosts},
        warnings=[],
        request_hash="",
        hosts=tuple(f"10.0.{number // 250}.{number % 250}" for number in range(hosts)),
        unit_hosts=unit_hosts,
        submitted_by="somebody",
        module="shell",
        args="echo hi",
    )
    key = database.write(lambda connection: submit(connection, new)).row.key
    query = sa.select(unit.c.id).where(unit.c.task_key == key).order_by(unit.c.id)
    return database.read(lambda connection: list(connection.scalars(query)))


def add_engine(
    database: Database, slots: int, state: EngineState = EngineState.LIVE, engine_id: str = "engine-1"
) -> str:
    """Returns the incarnation."""
    incarnation = secrets.token_hex(16)
    values = {
        "incarnation": incarnation,
        "id": engine_id,
        "host_name": "machine-1",
        "version": "1",
        "slots": slots,
        "free_slots": slots,
        "state": state,
        "started_at": now(),
        "beat_at": now(),
    }
    database.write(lambda connection: connection.execute(sa.insert(engine).values(values)))
    return incarnation


def beat(database: Database, incarnation: str) -> None:
    mine = sa.update(engine).where(engine.c.incarnation == incarnation)
    database.write(lambda connection: connection.execute(mine.values(beat=engine.c.beat + 1)))


def change(database: Database, unit_ids: Iterable[int], **values: Any) -> None:
    """values are columns of unit."""
    wanted = sa.update(unit).where(unit.c.id.in_(list(unit_ids)))
    database.write(lambda connection: connection.execute(wanted.values(values)))


def give_result(database: Database, unit_id: int, hosts: int, status: str = "success") -> None:
    """So many of the unit's hosts, the first ones, have this status."""

    def give(connection: sa.Connection) -> None:
        query = sa.select(host_result.c.id).where(host_result.c.unit_id == unit_id).order_by(host_result.c.id)
        ids = connection.scalars(query.limit(hosts)).all()
        connection.execute(sa.update(host_result).where(host_result.c.id.in_(ids)).values(status=status, stdout="kept"))

    database.write(give)


def units_in(database: Database, state: UnitState) -> list[int]:
    query = sa.select(unit.c.id).where(unit.c.state == state).order_by(unit.c.id)
    return database.read(lambda connection: list(connection.scalars(query)))


def task_state_of(database: Database, unit_id: int) -> TaskState:
    query = sa.select(task.c.state).join(unit, unit.c.task_key == task.c.key).where(unit.c.id == unit_id)
    return TaskState(database.read(lambda connection: connection.execute(query).scalar_one()))


def engine_state(database: Database, incarnation: str) -> EngineState:
    query = sa.select(engine.c.state).where(engine.c.incarnation == incarnation)
    return EngineState(database.read(lambda connection: connection.execute(query).scalar_one()))


class Rounds(threading.Event):
    """For a dispatcher's `stopping`: ends it after its rounds, one for each call in `between`, made after the round."""

    def __init__(self, between: Sequence[Callable[[], object]]) -> None:
        super().__init__()
        self._between = list(between)

    def wait(self, timeout: float | None = None) -> bool:
        self._between.pop(0)()
        if not self._between:
            self.set()
        return self.is_set()


def nothing() -> None:
    """Between two rounds."""


class RememberingLifeline(Lifeline):
    def __init__(self) -> None:
        super().__init__(None)
        self.told: list[str] = []

    def status(self, text: str) -> None:
        self.told.append(text)

    @property
    def last(self) -> str:
        return self.told[-1] if self.told else ""


class RememberingPublisher:
    """In the place of distribute.publisher.Publisher."""

    def __init__(self) -> None:
        self.sent: list[UnitMessage] = []
        self.trouble = ""
        self.partitions = 2
        self.succeeds = True
        self.on_send: Callable[[UnitMessage], object] = lambda _: None
        self._outcomes: list[Outcome] = []

    def send(self, messages: Iterable[UnitMessage]) -> None:
        for message in messages:
            self.on_send(message)
            self.sent.append(message)
            self._outcomes.append(Outcome(message.unit_id, self.succeeds))

    def outcomes(self) -> Iterator[Outcome]:
        while self._outcomes:
            yield self._outcomes.pop(0)

    def problem(self) -> str:
        return self.trouble

    @property
    def sent_ids(self) -> list[int]:
        return [message.unit_id for message in self.sent]


def dispatch_rounds(
    config: Config, *between: Callable[[], object], publisher: RememberingPublisher | None = None
) -> RememberingLifeline:
    """A new dispatcher that leads at once if nobody else does, makes as many rounds as there are calls, and resigns."""
    lifeline = RememberingLifeline()
    Dispatcher(config, publisher, lifeline, Rounds(between)).run()  # type: ignore[arg-type]
    return lifeline


@contextmanager
def dispatching(config: Config, publisher: RememberingPublisher | None = None) -> Iterator[RememberingLifeline]:
    """A dispatcher at work in a thread."""
    lifeline, stopping = RememberingLifeline(), threading.Event()
    dispatcher = Dispatcher(config, publisher, lifeline, stopping)  # type: ignore[arg-type]
    thread = threading.Thread(target=dispatcher.run)
    thread.start()
    try:
        yield lifeline
    finally:
        stopping.set()
        thread.join(60)
        assert not thread.is_alive()
