"""The units that this engine holds, from the commit of begun_at to the commit of their end."""

from __future__ import annotations

import logging
import select
import time
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass

from contract import processes
from contract.database import now
from contract.states import HostStatus
from execute_engine.conversation import Conversation
from execute_engine.database_thread import DatabaseThread
from execute_engine.errors import LauncherError
from execute_engine.launcher_client import LauncherClient
from execute_engine.outbox import Outbox
from execute_engine.slots import Slots
from execute_engine.store import Claimed, Store
from execute_engine.timer import Timer
from execute_engine.unit import NOT_LAUNCHED, HostRow, NewHostKey, RunnerLog, Unit
from execute_engine.unit_process import UnitEnd, UnitProcess

COLLECT_SECONDS = 1.0  # LauncherClient asks for it
LOOK_SECONDS = 0.5  # between two looks at what the hosts do

log = logging.getLogger(__name__)


@dataclass
class _Run:
    unit: Unit
    process: UnitProcess | None = None  # None until it is launched
    conversation: Conversation | None = None
    ending: bool = False


class RunningUnits:
    """For the loop's thread. turn() blocks only in the launch of a unit, LAUNCH_SECONDS at most."""

    def __init__(
        self,
        launcher: LauncherClient,
        database: DatabaseThread,
        store: Store,
        slots: Slots,
        unit_ended: Callable[[int, int], None],
    ) -> None:
        """unit_ended(hosts, unreachable) is called for each unit whose end was stored."""
        self._unit_ended = unit_ended
        self._launcher = launcher
        self._database = database
        self._store = store
        self._slots = slots
        self._runs: dict[int, _Run] = {}
        self._leaving: set[int] = set()  # claimed and not to be started
        self._unkillable: dict[int, dict[int, int]] = {}  # of ended units: their processes, pid -> start time
        self._outbox = Outbox()
        self._new_keys: list[NewHostKey] = []
        self._collect = Timer(COLLECT_SECONDS)
        self._look = Timer(LOOK_SECONDS)

    @property
    def ids(self) -> Set[int]:
        return self._runs.keys() | self._leaving

    @property
    def unkillable(self) -> list[int]:
        """The pids of processes that outlived their unit because no signal ends them; they keep their slots."""
        return [pid for left in self._unkillable.values() for pid in left]

    @property
    def begun_ids(self) -> Set[int]:
        """Those with processes, whose end was not stored yet."""
        return {unit_id for unit_id, run in self._runs.items() if run.process is not None and not run.ending}

    def start(self, claimed: Claimed) -> None:
        """Begin a claimed unit: first in the database, then its processes."""
        unit_id = claimed.unit_id
        if claimed.job is None:
            log.error("a unit cannot be run", extra={"unit": unit_id, "reason": claimed.unreadable})
            self._leaving.add(unit_id)
            self._database.submit(
                "settle",
                lambda: self._store.settle(unit_id, True, claimed.unreadable),
                lambda _: self._leaving.discard(unit_id),
            )
            return
        run = self._runs[unit_id] = _Run(Unit(claimed.job, claimed.row_ids))
        self._slots.take(unit_id, run.unit.hosts_left)
        self._database.submit("begin", lambda: self._store.begin(unit_id), lambda begun: self._begun(run, begun))

    def hand_back(self, unit_id: int) -> None:
        """A claimed unit that is not to be begun here."""
        free_slots = self._slots.free
        self._leaving.add(unit_id)
        self._database.submit(
            "hand back",
            lambda: self._store.hand_back(unit_id, free_slots),
            lambda _: self._leaving.discard(unit_id),
        )

    def settle(self, unit_id: int, begun: bool) -> None:
        """A unit that the database says is ours, and that we do not run: its claim's answer was lost."""
        log.error("a unit is ours in the database and not here", extra={"unit": unit_id, "begun": begun})
        reason = "the engine held this unit in the database and did not run it"
        self._leaving.add(unit_id)
        self._database.submit(
            "settle",
            lambda: self._store.settle(unit_id, begun, reason),
            lambda _: self._leaving.discard(unit_id),
        )

    def stop(self, unit_id: int, reason: str, status: HostStatus = HostStatus.CANCELLED) -> None:
        """Have the unit's processes end within seconds; its hosts without a result end with the status."""
        run = self._runs[unit_id]
        if not run.unit.stop_reason:
            log.warning("a unit is stopped", extra={"unit": unit_id, "reason": reason})
            run.unit.stop(reason, status)
            if run.process is not None:
                run.process.stop(reason)

    def stop_all(self, reason: str) -> None:
        for unit_id in self._runs:
            self.stop(unit_id, reason)

    def sources(self) -> Iterator[tuple[int, int]]:
        """Descriptors to poll, with the events to wait for."""
        for source in self._launcher.sockets():
            yield source.fileno(), select.POLLIN
        for run in self._runs.values():
            if run.conversation is not None and not run.conversation.closed:
                wanted = select.POLLIN | (select.POLLOUT if run.conversation.has_unsent else 0)
                yield run.conversation.fileno(), wanted

    def due_at(self) -> float:
        """When turn() has something to do though no source is ready."""
        flush_at = self._outbox.due_at()
        look_at = self._look.at if self._runs else float("inf")
        return min(self._collect.at, look_at, float("inf") if flush_at is None else flush_at)

    def turn(self, ready: Set[int]) -> None:
        """ready are the descriptors of sources() that the poll found."""
        moment = time.monotonic()
        for run in list(self._runs.values()):
            if run.conversation is not None and not run.conversation.closed and run.conversation.fileno() in ready:
                self._converse(run, run.conversation, moment)
        called = any(source.fileno() in ready for source in self._launcher.sockets())
        if self._collect.due(moment) or called:
            for end in self._launcher.collect():
                self._ended(end)
            self._look_after_unkillable()
        if self._look.due(moment):
            for run in self._runs.values():
                self._put(run.unit.running_rows(moment))
        flush_at = self._outbox.due_at()
        if flush_at is not None and moment >= flush_at:
            self._flush()

    def _begun(self, run: _Run, begun: bool) -> None:
        unit = run.unit
        if not begun:
            log.error("a unit was taken away before it was begun", extra={"unit": unit.id})
            self._forget(unit)
        elif unit.stop_reason:
            self._end_without_process(unit, "stopped", unit.stop_reason)
        else:
            self._launch(run)

    def _launch(self, run: _Run) -> None:
        unit = run.unit
        try:
            run.process = self._launcher.launch(unit.job)
        except LauncherError as exc:
            log.error("a unit could not be started", extra={"unit": unit.id, "error": str(exc)})
            self._end_without_process(unit, NOT_LAUNCHED, str(exc))
            return
        run.conversation = Conversation(run.process.events, unit.job)
        run.conversation.send()
        facts = {
            "unit": unit.id,
            "task": unit.job.task_id,
            "hosts": len(unit.job.hosts),
            "guard": run.process.guard_pid,
        }
        log.info("unit started", extra=facts)

    def _end_without_process(self, unit: Unit, cause: str, reason: str) -> None:
        unit.stop(reason)
        unit.ended(cause, None)
        unit.read_to_end()
        self._finish(unit)

    def _converse(self, run: _Run, conversation: Conversation, moment: float) -> None:
        if conversation.has_unsent:
            conversation.send()
        try:
            events = conversation.receive()
        except ValueError as exc:
            events = []
            log.error("a runner sent what is no event", extra={"unit": run.unit.id, "error": str(exc)})
            self.stop(run.unit.id, "its runner sent what is no event", HostStatus.LOST)
        for event in events:
            self._take_in(run.unit, run.unit.handle(event, moment))
        self._slots.keep(run.unit.id, run.unit.hosts_left)
        if conversation.closed:
            run.unit.read_to_end()
            self._finish_if_over(run)

    def _take_in(self, unit: Unit, outcomes: list[HostRow | NewHostKey | RunnerLog]) -> None:
        for outcome in outcomes:
            if isinstance(outcome, HostRow):
                self._put([outcome])
            elif isinstance(outcome, NewHostKey):
                self._new_keys.append(outcome)
            else:
                level = logging.getLevelNamesMapping()[outcome.level.upper()]
                log.log(level, "said by the runner", extra={"unit": unit.id, "text": outcome.text})

    def _ended(self, end: UnitEnd) -> None:
        run = self._runs.get(end.unit_id)
        if end.left:
            log.error("processes of a unit cannot be killed", extra={"unit": end.unit_id, "pids": end.left})
            starts = {pid: processes.start_time(pid) for pid in end.left}
            self._unkillable[end.unit_id] = {pid: start for pid, start in starts.items() if start is not None}
        if run is None or run.conversation is None:
            return
        run.unit.ended(end.cause, end.runner_exit)
        log.info("unit ended", extra={"unit": end.unit_id, "cause": end.cause, "exit": end.runner_exit})
        if end.left and not run.conversation.closed:
            # They hold the other end of the socket: its EOF would never come.
            self._converse(run, run.conversation, time.monotonic())
            run.conversation.close()
            run.unit.read_to_end()
        self._finish_if_over(run)

    def _finish_if_over(self, run: _Run) -> None:
        if run.unit.over and not run.ending:
            run.ending = True
            self._finish(run.unit)

    def _finish(self, unit: Unit) -> None:
        """Store what is left, then the end, in this order."""
        self._put(unit.final_rows(now()))
        self._flush()
        if unit.id not in self._unkillable:
            self._slots.release(unit.id)
        free_slots = self._slots.free

        def ended(ours: bool) -> None:
            del self._runs[unit.id]
            self._unit_ended(len(unit.job.hosts), unit.unreachable)
            if not ours:
                log.error("a unit was taken away before its end", extra={"unit": unit.id})

        self._database.submit("end", lambda: self._store.end(unit.id, free_slots), ended)

    def _look_after_unkillable(self) -> None:
        """The launcher goes on killing them; the slot and the runner's memory are free when they are gone."""
        for unit_id, left in list(self._unkillable.items()):
            for pid, start in list(left.items()):
                if processes.start_time(pid) != start:
                    del left[pid]
            if left:
                self._slots.keep(unit_id, len(left))
            elif unit_id not in self._runs:
                del self._unkillable[unit_id]
                self._slots.release(unit_id)
                log.info("the processes that could not be killed are gone", extra={"unit": unit_id})

    def _forget(self, unit: Unit) -> None:
        del self._runs[unit.id]
        self._slots.release(unit.id)

    def _put(self, rows: list[HostRow]) -> None:
        moment = time.monotonic()
        for row in rows:
            self._outbox.put(row, moment)

    def _flush(self) -> None:
        if self._new_keys:
            keys, self._new_keys = self._new_keys, []
            self._database.submit("add host keys", lambda: self._store.add_host_keys(keys), _nothing)
        for batch in self._outbox.take():
            self._save(batch)

    def _save(self, batch: tuple[HostRow, ...]) -> None:
        self._database.submit("save results", lambda: self._store.save(batch), _nothing)


def _nothing(_answer: object) -> None:
    """Of some requests only that they are done matters."""
