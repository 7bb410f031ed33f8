"""The dispatcher's SQL: who leads, what may be published, what is over.

Candidates come from a plain SELECT; each change is an UPDATE on the condition that the row still is as it was seen.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from contract.database import now
from contract.message import UnitMessage
from contract.states import EngineState, TaskState, UnitState
from contract.tables import dispatch_hold, engine, leader, task, unit
from distribute.store import cancelling
from distribute.store.cancelling import OPEN_TASKS

DISPATCHER = "dispatcher"  # the leader row's name
OPEN_UNITS = (UnitState.WAITING, UnitState.PUBLISHED, UnitState.RUNNING, UnitState.LOST)
OUT = (UnitState.PUBLISHED, UnitState.RUNNING)
ALIVE = (EngineState.LIVE, EngineState.DRAINING)
GONE = (EngineState.DEAD, EngineState.STOPPED)

_FIRST_WAITING = (
    "SELECT id, task_key, attempt, host_count FROM (SELECT id, task_key, attempt, host_count FROM unit"
    " WHERE state = :state AND task_key = :key_{position} ORDER BY id LIMIT :limit) AS first_{position}"
)


@dataclass(frozen=True)
class Leader:
    """The leader row as somebody saw it; holder is empty when nobody leads."""

    holder: str
    beat: int


@dataclass(frozen=True)
class Glance:
    """What there is to do: one statement, asked all the time."""

    slots: int  # of all live engines
    free_slots: int  # of these
    published_hosts: int  # of the units that are published and not claimed
    has_waiting: bool
    has_finished: bool  # a task without an open unit
    has_cancelled: bool = False  # a cancelled task with a unit that was given back, or published, meanwhile
    is_held: bool = False  # all dispatching
    file_slots: int = 0  # of the live engines that see project files
    free_file_slots: int = 0  # of these
    published_file_hosts: int = 0  # of the published units whose task may read them

    @property
    def room(self) -> int:
        """Hosts that may still be published. Units that only some engines can take leave the others' slots free."""
        window = _window(self.slots, self.free_slots)
        return window - self._others - min(self.published_file_hosts, _window(self.file_slots, self.free_file_slots))

    def finds_slots(self, hosts: int, needs_files: bool) -> bool:
        """Whether a unit of so many hosts, published now, can be claimed now, and need not wait for an end."""
        if needs_files and self.published_file_hosts + hosts > self.free_file_slots:
            return False
        return self._others + min(self.published_file_hosts, self.free_file_slots) + hosts <= self.free_slots

    @property
    def takes_files(self) -> bool:
        """Units that need project files go out as long as the window of the engines that see them has room."""
        return self.published_file_hosts < _window(self.file_slots, self.free_file_slots)

    def is_bare(self, needs_files: bool) -> bool:
        """Nothing is out that keeps engines from such a unit: then one goes out, however large it is."""
        return self._others == 0 and (self.published_file_hosts == 0 or not needs_files)

    def after(self, hosts: int, needs_files: bool) -> Glance:
        """When a unit of so many hosts is published besides."""
        file_hosts = self.published_file_hosts + hosts * needs_files
        return replace(self, published_hosts=self.published_hosts + hosts, published_file_hosts=file_hosts)

    @property
    def _others(self) -> int:
        return self.published_hosts - self.published_file_hosts


def _window(slots: int, free_slots: int) -> int:
    """Hosts that are published and not claimed at most: all that find room now, and some ahead for what ends next.

    What is ahead is also what a task that comes new has to wait for.
    """
    return min(slots, free_slots + slots // 2)


@dataclass(frozen=True)
class WaitingTask:
    key: int
    id: str
    type: str
    parallel: int  # hosts that may be out at once; 0 = as the configuration says
    hosts_out: int  # of its published and running units
    needs_files: bool = False  # it may read project files: not every engine can take its units


@dataclass(frozen=True)
class WaitingUnit:
    id: int
    task_key: int
    attempt: int
    host_count: int


@dataclass(frozen=True)
class LiveEngine:
    incarnation: str
    id: str
    host_name: str
    beat: int


@dataclass(frozen=True)
class HeldUnit:
    """A running unit whose engine is gone for good."""

    id: int
    incarnation: str
    is_begun: bool
    engine_id: str
    host_name: str
    engine_state: str


def leader_row(connection: sa.Connection) -> Leader | None:
    row = connection.execute(sa.select(leader.c.holder, leader.c.beat).where(leader.c.name == DISPATCHER)).first()
    return None if row is None else Leader(row.holder, row.beat)


def add_leader_row(connection: sa.Connection) -> None:
    """Does nothing where another dispatcher was faster."""
    insert = sa.insert(leader).prefix_with("IGNORE", dialect="mysql").prefix_with("OR IGNORE", dialect="sqlite")
    connection.execute(insert.values(name=DISPATCHER, holder="", beat=0))


def take_over(connection: sa.Connection, seen: Leader, holder: str) -> bool:
    """True when the row still was as seen, and holder leads from the commit of this on."""
    taken = connection.execute(
        sa.update(leader)
        .where(leader.c.name == DISPATCHER, leader.c.holder == seen.holder, leader.c.beat == seen.beat)
        .values(holder=holder, beat=leader.c.beat + 1)
    )
    return taken.rowcount == 1


def beat(connection: sa.Connection, holder: str) -> bool:
    """False when holder does not lead any more. Until the end of the transaction nobody else can take over."""
    beaten = connection.execute(
        sa.update(leader).where(leader.c.name == DISPATCHER, leader.c.holder == holder).values(beat=leader.c.beat + 1)
    )
    return beaten.rowcount == 1


def resign(connection: sa.Connection, holder: str) -> None:
    """Somebody else may lead at once."""
    connection.execute(
        sa.update(leader).where(leader.c.name == DISPATCHER, leader.c.holder == holder).values(holder="")
    )


def glance(connection: sa.Connection) -> Glance:
    row = connection.execute(_glance()).one()
    return Glance(
        int(row[0]),
        int(row[1]),
        int(row[2]),
        row[3] is not None,
        row[4] is not None,
        row[5] is not None,
        row[6] > 0,
        int(row[7]),
        int(row[8]),
        int(row[9]),
    )


@functools.cache
def _glance() -> sa.Select[Any]:
    """Made once: that costs more than the database takes to answer."""
    live = engine.c.state == EngineState.LIVE
    slots = sa.select(sa.func.coalesce(sa.func.sum(engine.c.slots), 0)).where(live)
    free_slots = sa.select(sa.func.coalesce(sa.func.sum(engine.c.free_slots), 0)).where(live)
    published = sa.select(sa.func.coalesce(sa.func.sum(unit.c.host_count), 0)).where(
        unit.c.state == UnitState.PUBLISHED
    )
    of_files = published.join(task, task.c.key == unit.c.task_key).where(task.c.needs_files)
    waiting = sa.select(sa.func.min(unit.c.task_key)).where(unit.c.state == UnitState.WAITING)
    return sa.select(
        slots.scalar_subquery(),
        free_slots.scalar_subquery(),
        published.scalar_subquery(),
        waiting.scalar_subquery(),
        _finished().limit(1).scalar_subquery(),
        _cancelled().limit(1).scalar_subquery(),
        sa.select(sa.func.count()).select_from(dispatch_hold).scalar_subquery(),
        slots.where(engine.c.sees_files).scalar_subquery(),
        free_slots.where(engine.c.sees_files).scalar_subquery(),
        of_files.scalar_subquery(),
    )


def backlog(connection: sa.Connection) -> tuple[int, int]:
    """Tasks that have not ended, and units that wait: both by an index."""
    tasks = sa.select(sa.func.count()).select_from(task).where(task.c.state.in_(OPEN_TASKS))
    units = sa.select(sa.func.count()).select_from(unit).where(unit.c.state == UnitState.WAITING)
    row = connection.execute(sa.select(tasks.scalar_subquery(), units.scalar_subquery())).one()
    return row[0], row[1]


def waiting_task_keys(connection: sa.Connection, with_files: bool = True) -> list[int]:
    """Open tasks with waiting units, in order. A look into the index for each open task, none for each unit.

    with_files: also those that need project files.
    """
    waiting = sa.select(task.c.key).where(
        task.c.state.in_(OPEN_TASKS), task.c.cancelled_at.is_(None), _first_unit(UnitState.WAITING).is_not(None)
    )
    rows = connection.execute(waiting if with_files else waiting.where(sa.not_(task.c.needs_files)))
    return sorted(rows.scalars())  # not ORDER BY: it might walk the primary key, through all the tasks ever


def waiting_tasks(connection: sa.Connection, keys: Sequence[int]) -> list[WaitingTask]:
    """These tasks, in this order."""
    hosts_out = (
        sa.select(sa.func.coalesce(sa.func.sum(unit.c.host_count), 0))
        .where(unit.c.task_key == task.c.key, unit.c.state.in_(OUT))
        .scalar_subquery()
    )
    rows = connection.execute(
        sa.select(
            task.c.key, task.c.id, task.c.type, task.c.options, task.c.needs_files, hosts_out.label("hosts_out")
        ).where(task.c.key.in_(keys))
    )
    found = {
        row.key: WaitingTask(
            row.key, row.id, row.type, row.options["parallel"], int(row.hosts_out), bool(row.needs_files)
        )
        for row in rows
    }
    return [found[key] for key in keys if key in found]


def waiting_units(connection: sa.Connection, task_keys: Sequence[int], limit: int) -> dict[int, list[WaitingUnit]]:
    """Of each task at most `limit` waiting units, the oldest first."""
    found: dict[int, list[WaitingUnit]] = {key: [] for key in task_keys}
    if not task_keys:
        return found
    # Text, because SQLAlchemy takes longer to build a union of many parts than the database to answer it.
    statement = " UNION ALL ".join(_FIRST_WAITING.format(position=position) for position in range(len(task_keys)))
    keys = {f"key_{position}": key for position, key in enumerate(task_keys)}
    for row in connection.execute(sa.text(statement), {**keys, "state": UnitState.WAITING.value, "limit": limit}):
        found[row.task_key].append(WaitingUnit(row.id, row.task_key, row.attempt, row.host_count))
    return {key: sorted(units, key=lambda waiting: waiting.id) for key, units in found.items()}


def publish(connection: sa.Connection, unit_ids: Sequence[int]) -> set[int]:
    """waiting -> published; returns those that still were waiting, and are published now."""
    still = sa.select(unit.c.id).where(unit.c.id.in_(unit_ids), unit.c.state == UnitState.WAITING).order_by(unit.c.id)
    won = set(connection.execute(still.with_for_update()).scalars())  # locked: the UPDATE changes exactly these
    connection.execute(
        sa.update(unit)
        .where(unit.c.id.in_(sorted(won)), unit.c.state == UnitState.WAITING)
        .values(state=UnitState.PUBLISHED, published_at=now())
    )
    return won


def retract(connection: sa.Connection, only_files: bool = False) -> int:
    """published -> waiting for every unit that no engine has claimed; returns how many.

    only_files: of those whose task needs project files.
    """
    out = sa.select(unit.c.id).where(unit.c.state == UnitState.PUBLISHED).order_by(unit.c.id)
    if only_files:  # looked for without a lock: it would hold the tasks' rows too
        of_files = out.join(task, task.c.key == unit.c.task_key).where(task.c.needs_files)
        out = out.where(unit.c.id.in_(list(connection.scalars(of_files))))
    locked = list(connection.scalars(out.with_for_update()))
    retracted = connection.execute(
        sa.update(unit)
        .where(unit.c.id.in_(locked), unit.c.state == UnitState.PUBLISHED)
        .values(state=UnitState.WAITING, published_at=None)
    )
    return retracted.rowcount


def end_cancelled(connection: sa.Connection) -> int:
    """Units of cancelled tasks that came back from an engine or went out meanwhile -> cancelled; returns how many."""
    keys = list(connection.scalars(_cancelled().order_by(task.c.key)))
    return sum(cancelling.end_waiting(connection, key) for key in keys)


def published_messages(connection: sa.Connection) -> list[UnitMessage]:
    """The messages of all units that are published and not claimed; a window's worth, oldest first."""
    rows = connection.execute(
        sa.select(unit.c.id, task.c.id.label("task_id"), task.c.type, unit.c.attempt, unit.c.host_count)
        .join(task, task.c.key == unit.c.task_key)
        .where(unit.c.state == UnitState.PUBLISHED)
        .order_by(unit.c.id)
    )
    return [UnitMessage(row.id, row.task_id, row.type, row.attempt, row.host_count) for row in rows]


def free_slots(connection: sa.Connection) -> list[tuple[int, int]]:
    """Of each live engine: free slots, slots."""
    rows = connection.execute(sa.select(engine.c.free_slots, engine.c.slots).where(engine.c.state == EngineState.LIVE))
    return [(row.free_slots, row.slots) for row in rows]


def finish_tasks(connection: sa.Connection) -> list[str]:
    """Open tasks without an open unit -> finished, or cancelled where that was asked for; returns their ids."""
    over = connection.execute(_finished().add_columns(task.c.id, task.c.cancelled_at)).all()
    finished = []
    for row in over:
        ended = connection.execute(
            sa.update(task)
            .where(task.c.key == row.key, task.c.state.in_(OPEN_TASKS))
            .values(state=TaskState.FINISHED if row.cancelled_at is None else TaskState.CANCELLED, finished_at=now())
        )
        if ended.rowcount == 1:
            finished.append(row.id)
    return finished


def live_engines(connection: sa.Connection) -> list[LiveEngine]:
    """Those that nobody has declared dead and that did not stop."""
    columns = (engine.c.incarnation, engine.c.id, engine.c.host_name, engine.c.beat)
    rows = connection.execute(sa.select(*columns).where(engine.c.state.in_(ALIVE)))
    return [LiveEngine(row.incarnation, row.id, row.host_name, row.beat) for row in rows]


def declare_dead(connection: sa.Connection, incarnation: str, seen_beat: int) -> bool:
    """False when it has beaten since."""
    died = connection.execute(
        sa.update(engine)
        .where(engine.c.incarnation == incarnation, engine.c.beat == seen_beat, engine.c.state.in_(ALIVE))
        .values(state=EngineState.DEAD, free_slots=0)
    )
    return died.rowcount == 1


def is_gone(connection: sa.Connection, incarnation: str) -> bool:
    """False when the engine was taken back since it was seen dead."""
    found = sa.select(engine.c.state).where(engine.c.incarnation == incarnation)
    return connection.execute(found.with_for_update(read=True)).scalar_one() in GONE


def units_of_gone_engines(connection: sa.Connection) -> list[HeldUnit]:
    """Running units of dead and stopped incarnations, also of those whose settler died half way."""
    columns = (unit.c.id, unit.c.incarnation, unit.c.begun_at, engine.c.host_name, engine.c.state)
    rows = connection.execute(
        sa.select(*columns, engine.c.id.label("engine_id"))
        .join(engine, engine.c.incarnation == unit.c.incarnation)
        .where(unit.c.state == UnitState.RUNNING, engine.c.state.in_(GONE))
        .order_by(unit.c.id)
    )
    return [
        HeldUnit(row.id, row.incarnation, row.begun_at is not None, row.engine_id, row.host_name, row.state)
        for row in rows
    ]


def _finished() -> sa.Select[tuple[int]]:
    """The keys of open tasks without an open unit."""
    # Neither EXISTS nor IN: MariaDB would read all open units for them, instead of one look for each task and state.
    first_open = sa.func.coalesce(*(_first_unit(state) for state in OPEN_UNITS))
    return sa.select(task.c.key).where(task.c.state.in_(OPEN_TASKS), first_open.is_(None))


def _cancelled() -> sa.Select[int]:
    """The keys of cancelled tasks with a unit that was not begun."""
    not_begun = sa.func.coalesce(*(_first_unit(state) for state in cancelling.NOT_BEGUN))
    return sa.select(task.c.key).where(
        task.c.state.in_(OPEN_TASKS), task.c.cancelled_at.is_not(None), not_begun.is_not(None)
    )


def _first_unit(state: UnitState) -> sa.ScalarSelect[int]:
    """Of the task of the enclosing SELECT."""
    units = sa.select(unit.c.id).where(unit.c.state == state, unit.c.task_key == task.c.key)
    # Not min(): in a correlated subquery MariaDB reads all the units for it.
    return units.order_by(unit.c.id).limit(1).correlate(task).scalar_subquery()
