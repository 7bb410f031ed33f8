"""What the engine does with units in the database; each call is one transaction, made in the database thread."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence, Set
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from contract import secret, units
from contract.config import Config
from contract.database import Database, now
from contract.errors import SecretError
from contract.failpoint import fail_point
from contract.states import OPEN_STATUSES, TaskState, UnitState
from contract.tables import engine, host_key, host_result, task, unit
from execute_engine import results
from execute_engine.job import Job, SshSettings
from execute_engine.slots import Room
from execute_engine.unit import HostRow, NewHostKey

OTHERS_UNITS = 20  # of other engines, looked at when ours end unreachable
CANDIDATES = 8  # published units that one scan looks at
TASKS_KEPT = 4

# Statements of every unit are made once: that costs more than the database takes to answer.
_THIS = unit.c.id == sa.bindparam("unit_id")
_OWN = (unit.c.state == UnitState.RUNNING, unit.c.incarnation == sa.bindparam("own"))
_NO_FILES = sa.not_(task.c.needs_files)  # what an engine without the share may take

_PUBLISHED = sa.select(unit.c.id).where(unit.c.state == UnitState.PUBLISHED).order_by(unit.c.id).limit(CANDIDATES)
_PUBLISHED_WITHOUT_FILES = _PUBLISHED.join(task, task.c.key == unit.c.task_key).where(_NO_FILES)
_UNIT_TO_CLAIM = (
    sa.select(
        unit.c.task_key, unit.c.state, unit.c.incarnation, unit.c.begun_at, unit.c.host_count, unit.c.attempt,
        task.c.id.label("task_id"), task.c.needs_files, task.c.state.label("task_state"),
    )
    .join(task, task.c.key == unit.c.task_key)
    .where(_THIS)
)  # fmt: skip
_TASK_MAY_RUN = (
    sa.select(task.c.key)
    .where(
        task.c.key == unit.c.task_key,
        task.c.state.in_((TaskState.QUEUED, TaskState.RUNNING)),
        task.c.cancelled_at.is_(None),
    )
    .correlate(unit)
)
_CLAIM, _CLAIM_WITHOUT_FILES = (
    sa.update(unit)
    .where(_THIS, unit.c.state == UnitState.PUBLISHED, unit.c.attempt == sa.bindparam("seen_attempt"), may_run.exists())
    .values(state=UnitState.RUNNING, incarnation=sa.bindparam("own"))
    for may_run in (_TASK_MAY_RUN, _TASK_MAY_RUN.where(_NO_FILES))
)
_RUN_TASK = (
    sa.update(task)
    .where(task.c.key == sa.bindparam("task_key"), task.c.state == TaskState.QUEUED)
    .values(state=TaskState.RUNNING, started_at=sa.bindparam("moment"))
)
_TASK = sa.select(task).where(task.c.key == sa.bindparam("task_key"))
_OPEN_HOSTS = (  # a row for each key that is known for the host, or one without
    sa.select(host_result.c.host, host_result.c.id, host_key.c.key_type, host_key.c.key)
    .outerjoin(host_key, (host_key.c.host == host_result.c.host) & (host_key.c.port == sa.bindparam("port")))
    .where(host_result.c.unit_id == sa.bindparam("unit_id"), host_result.c.status.in_(OPEN_STATUSES))
    .order_by(host_result.c.id, host_key.c.key_type)
)
_BEGIN = sa.update(unit).where(_THIS, *_OWN, unit.c.begun_at.is_(None)).values(begun_at=sa.bindparam("moment"))
_BEGUN = sa.select(unit.c.id).where(_THIS, *_OWN, unit.c.begun_at.is_not(None))
_STOP_REQUESTS = sa.select(unit.c.id).where(*_OWN, unit.c.stop_requested)
_WRITE_FREE_SLOTS = (
    sa.update(engine).where(engine.c.incarnation == sa.bindparam("own")).values(free_slots=sa.bindparam("free"))
)


@dataclass(frozen=True)
class Claimed:
    """A unit that this incarnation holds now. row_ids by host; job is None when it cannot be read, and why."""

    unit_id: int
    hosts: int
    job: Job | None
    row_ids: dict[str, int]
    unreadable: str = ""


@dataclass(frozen=True)
class NoRoom:
    """The unit waits for more free slots than there are."""

    unit_id: int
    hosts: int


@dataclass(frozen=True)
class Left:
    """There are published units, and they are left to the engines that Kafka has them for."""


class Store:
    """Errors are contract's DatabaseError and its children; every call may be made again after one."""

    def __init__(self, database: Database, incarnation: str, config: Config) -> None:
        self.incarnation = incarnation
        self._database = database
        self._config = config
        self._passed_over: frozenset[int] = frozenset()  # published units that were left to other engines
        self._tasks: dict[str, sa.Row[Any]] = {}  # by id, those of the last claims

    def claim(
        self, unit_id: int, room: Room, held: Set[int] = frozenset(), *, with_files: bool = True
    ) -> Claimed | NoRoom | None:
        """Take one published unit; None when it is unknown, another's, taken back or cancelled, or of those held.

        with_files: also a unit whose task may read project files; else it is None too, and stays for other engines.
        held: units whose end is still on its way to the database. One may have been given back for us meanwhile; were
        it taken again, that end would be the end of this attempt.
        """
        if unit_id in held:
            return None
        found = self._database.write(lambda connection: self._claim(connection, unit_id, room, with_files))
        if isinstance(found, Claimed):
            fail_point("claimed")
        return found

    def claim_oldest(
        self, room: Room, held: Set[int] = frozenset(), *, with_files: bool = True, patient: bool = False
    ) -> Claimed | NoRoom | Left | None:
        """Take the oldest published unit that nobody else takes first; None when there is none. As claim().

        patient: only one that was published at an earlier such look already, when there was none to take: the others
        are on their way to the engine that Kafka has them for. Left, when there are only such.
        """
        published = self._database.read(lambda connection: _published(connection, with_files))
        candidates = [unit_id for unit_id in published if unit_id in self._passed_over] if patient else published
        if not candidates:
            self._passed_over = frozenset(published)
            return Left() if published else None
        for unit_id in candidates:
            found = self.claim(unit_id, room, held, with_files=with_files)
            if found is not None:
                return found
        return None

    def begin(self, unit_id: int) -> bool:
        """From the commit of this on the unit counts as started. False when it is held no more."""
        begun = self._database.write(lambda connection: self._begin(connection, unit_id))
        fail_point("begun")
        return begun

    def save(self, rows: Sequence[HostRow]) -> int:
        """Store a batch of results, as results.store() says; returns how many were dropped."""
        dropped = results.store(self._database, self.incarnation, rows)
        fail_point("stored")
        return dropped

    def add_host_keys(self, keys: Sequence[NewHostKey]) -> None:
        """Keep keys that were seen for the first time; a key that is known for its host and type stays as it is."""
        values = [
            {
                "host": key.host,
                "port": self._config.ansible.ssh_port,
                "key_type": key.key_type,
                "key": key.key,
                "first_seen_at": now(),
                "engine": self._config.engine.engine_id,
            }
            for key in sorted(keys, key=lambda key: (key.host, key.key_type))
        ]
        insert = sa.insert(host_key).prefix_with("IGNORE", dialect="mysql").prefix_with("OR IGNORE", dialect="sqlite")
        self._database.write(lambda connection: connection.execute(insert, values))

    def end(self, unit_id: int, free_slots: int) -> bool:
        """The unit is finished, its counters are written. False when it is held no more.

        A host that has no final status by now, against all expectation, ends as lost.
        """

        def end(connection: sa.Connection) -> bool:
            self._write_free_slots(connection, free_slots)
            if units.end_unit(connection, unit_id, self.incarnation):
                return True
            reason = "the engine ended this unit without a result for this host"
            units.settle(connection, unit_id, self.incarnation, True, reason)
            row = connection.execute(sa.select(unit.c.state, unit.c.incarnation).where(unit.c.id == unit_id)).first()
            return row is not None and tuple(row) == (UnitState.FINISHED, self.incarnation)

        ended = self._database.write(end)
        fail_point("ended")
        return ended

    def hand_back(self, unit_id: int, free_slots: int) -> bool:
        """A unit that was claimed and not begun goes back whole."""

        def hand_back(connection: sa.Connection) -> bool:
            self._write_free_slots(connection, free_slots)
            return units.hand_back(connection, unit_id, self.incarnation)

        return self._database.write(hand_back)

    def give_back(
        self, unit_id: int, attempt: int, row_ids: Collection[int], free_slots: int, counts: bool = True
    ) -> bool:
        """These hosts wait for another attempt, as units.give_back() says. False when the unit is held no more."""

        def give_back(connection: sa.Connection) -> bool:
            self._write_free_slots(connection, free_slots)
            return units.give_back(connection, unit_id, self.incarnation, attempt, row_ids, counts=counts)

        given = self._database.write(give_back)
        fail_point("given-back")
        return given

    def settled_as_lost(self, unit_ids: Collection[int]) -> set[int]:
        """Those that somebody has ended for us while we were silent: late results of them still count."""
        ours = sa.select(unit.c.id).where(
            unit.c.id.in_(unit_ids), unit.c.state == UnitState.FINISHED, unit.c.incarnation == self.incarnation
        )
        return self._database.read(lambda connection: set(connection.scalars(ours)))

    def settle(self, unit_id: int, begun: bool, reason: str) -> None:
        """End a unit that we hold and do not run."""
        self._database.write(lambda connection: units.settle(connection, unit_id, self.incarnation, begun, reason))

    def stop_requests(self) -> list[int]:
        """Of the units that we hold, those whose task was cancelled."""
        own = {"own": self.incarnation}
        return self._database.read(lambda connection: list(connection.scalars(_STOP_REQUESTS, own)))

    def others_unreachable(self) -> float | None:
        """The share of unreachable hosts in the last units that other engines finished; None: they finished none."""
        last = (
            sa.select(unit.c.host_count, unit.c.unreachable)
            .where(unit.c.state == UnitState.FINISHED, unit.c.incarnation != self.incarnation)
            .order_by(unit.c.id.desc())
            .limit(OTHERS_UNITS)
        )
        found = self._database.read(lambda connection: connection.execute(last).all())
        hosts = sum(row.host_count for row in found)
        return sum(row.unreachable for row in found) / hosts if hosts else None

    def _claim(self, connection: sa.Connection, unit_id: int, room: Room, with_files: bool) -> Claimed | NoRoom | None:
        """One transaction for the claim and what is claimed: a commit costs as much as several SELECTs."""
        row = connection.execute(_UNIT_TO_CLAIM, {"unit_id": unit_id}).first()
        if row is None:
            return None
        if (row.state, row.incarnation, row.begun_at) == (UnitState.RUNNING, self.incarnation, None):
            return self._load(connection, unit_id, row)  # claimed, and the answer was lost
        if row.state != UnitState.PUBLISHED or (row.needs_files and not with_files):
            return None
        if not room.fits(row.host_count):
            return NoRoom(unit_id, row.host_count)
        claimed = connection.execute(
            _CLAIM if with_files else _CLAIM_WITHOUT_FILES,
            {"unit_id": unit_id, "own": self.incarnation, "seen_attempt": row.attempt},
        )
        if claimed.rowcount != 1:
            return None
        if row.task_state == TaskState.QUEUED:  # else every claim would wait for the row that all of a task share
            connection.execute(_RUN_TASK, {"task_key": row.task_key, "moment": now()})
        self._write_free_slots(connection, room.free_after(row.host_count))
        return self._load(connection, unit_id, row)

    def _begin(self, connection: sa.Connection, unit_id: int) -> bool:
        ours = {"unit_id": unit_id, "own": self.incarnation}
        if connection.execute(_BEGIN, {**ours, "moment": now()}).rowcount == 1:
            return True
        # Only the answer of our own first try can have been lost: nobody else sets begun_at on our units.
        return connection.execute(_BEGUN, ours).first() is not None

    def _write_free_slots(self, connection: sa.Connection, free_slots: int) -> None:
        connection.execute(_WRITE_FREE_SLOTS, {"own": self.incarnation, "free": free_slots})

    def _load(self, connection: sa.Connection, unit_id: int, row: sa.Row[*tuple[Any, ...]]) -> Claimed:
        """row: of _UNIT_TO_CLAIM."""
        try:
            return self._read(connection, unit_id, row)
        except (ValueError, KeyError, TypeError, SecretError) as exc:
            return Claimed(unit_id, row.host_count, None, {}, f"the task of this unit cannot be read: {exc!r}")

    def _read(self, connection: sa.Connection, unit_id: int, row: sa.Row[*tuple[Any, ...]]) -> Claimed:
        row_ids: dict[str, int] = {}
        keys: dict[str, tuple[str, ...]] = {}
        for known in connection.execute(_OPEN_HOSTS, {"unit_id": unit_id, "port": self._config.ansible.ssh_port}):
            row_ids[known.host] = known.id
            if known.key is not None:
                keys[known.host] = (*keys.get(known.host, ()), f"{known.key_type} {known.key}")
        if not row_ids:
            return Claimed(unit_id, row.host_count, None, {}, "every host of this unit has a result already")
        of_task = self._task(connection, row.task_id, row.task_key)
        job = job_of(unit_id, row.attempt, of_task, tuple(row_ids), keys, self._config)
        return Claimed(unit_id, row.host_count, job, row_ids)

    def _task(self, connection: sa.Connection, task_id: str, key: int) -> sa.Row[Any]:
        """What a unit's job needs of its task never changes, and reading it costs as much as the rest of a claim.

        Kept by the id that nobody else ever has: SQLite gives a key again when the last task is deleted.
        """
        if task_id not in self._tasks:
            self._tasks[task_id] = connection.execute(_TASK, {"task_key": key}).one()
            if len(self._tasks) > TASKS_KEPT:
                del self._tasks[next(iter(self._tasks))]
        return self._tasks[task_id]


def job_of(
    unit_id: int,
    attempt: int,
    row: sa.Row[Any],
    hosts: tuple[str, ...],
    host_keys: dict[str, tuple[str, ...]],
    config: Config,
) -> Job:
    """The Job of a unit; row has the columns of task.

    Raises KeyError, ValueError, TypeError and SecretError.
    """
    ansible, options = config.ansible, row.options
    is_secret = "secret_args" in options and options["secret_args"]  # absent from tasks of former releases

    def opened(text: str | None) -> str:
        return secret.decrypt(text, config.secret_key_file) if text and is_secret else text or ""

    args = opened(row.args)
    return Job(
        unit_id=unit_id,
        task_id=row.id,
        type=row.type,
        attempt=attempt,
        hosts=hosts,
        timeout_seconds=float(row.timeout_seconds),
        memory_bytes=config.engine.runner_memory * 1_000_000,
        engine_id=config.engine.engine_id,
        ssh=SshSettings(
            user=ansible.ssh_user,
            port=ansible.ssh_port,
            password=ansible.ssh_password,
            sudo_password=ansible.ssh_sudo_password,
            key_file=str(ansible.ssh_key_file or ""),
            host_key_checking=ansible.host_key_checking,
        ),
        host_keys=host_keys,
        connection=ansible.connection,
        workers=ansible.workers,
        python_interpreter=ansible.python_interpreter,
        files_dir=str(config.engine.files_dir),
        needs_files=row.needs_files,
        projects=row.projects or {},
        vault_password_file=str(ansible.vault_password_file or ""),
        allow_local=config.engine.allow_local,
        become=options["become"],
        check=options["check"],
        template=options["template"],
        no_log=is_secret,
        host_timeout_seconds=options.get("host_timeout"),  # absent from tasks of the first release
        task_timeout_seconds=options.get("task_timeout"),
        on_timeout=options.get("on_timeout", "stop"),
        on_engine_loss=options.get("on_engine_loss", units.REPORT),
        module=row.module or "",
        args=json.loads(args) if options["args_are_json"] else args,
        playbook_name=row.playbook_name or "",
        playbook_content=opened(row.playbook_content),
        strategies=tuple(options["strategies"]),
    )


def _published(connection: sa.Connection, with_files: bool) -> Sequence[int]:
    return connection.scalars(_PUBLISHED if with_files else _PUBLISHED_WITHOUT_FILES).all()
