"""The units that this engine holds, from the commit of begun_at to the commit of their end."""

from __future__ import annotations

import contextlib
import functools
import logging
import select
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Set
from dataclasses import dataclass

from contract import processes
from contract.database import now
from contract.failpoint import fail_point
from contract.states import FINAL_STATUSES, HostStatus
from contract.units import RERUN
from execute_engine.conversation import Conversation
from execute_engine.database_thread import DatabaseThread
from execute_engine.errors import LauncherError, SpoolError
from execute_engine.launcher_client import LauncherClient
from execute_engine.outbox import Outbox
from execute_engine.output import Cleaner
from execute_engine.slots import Slots
from execute_engine.spool import Spool
from execute_engine.store import Claimed, Store
from execute_engine.timer import Timer
from execute_engine.unit import NOT_LAUNCHED, NOT_STARTED, HostRow, NewHostKey, RunnerLog, Unit
from execute_engine.unit_process import UnitEnd, UnitProcess

COLLECT_SECONDS = 1.0  # LauncherClient asks for it
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 2.0, 30.0  # before the next claim, when a unit could not be started
LOOK_SECONDS = 0.5  # between two looks at what the hosts do
READ_SECONDS = 0.25  # between two readings of runners' events: a turn of the loop costs more than an event

log = logging.getLogger(__name__)


class Launches:
    """Pauses after units that could not be started: an engine without descriptors or processes must not take all."""

    def __init__(self) -> None:
        self.again_at = float("-inf")
        self._pause = FIRST_PAUSE_SECONDS
        self._error: str | None = None

    def failed(self, error: str) -> None:
        self._error, self.again_at = error, time.monotonic() + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)

    def went_well(self) -> None:
        self.again_at, self._pause, self._error = float("-inf"), FIRST_PAUSE_SECONDS, None

    def problem(self) -> str | None:
        return self._error and f"no unit can be started: {self._error}"


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
        spool: Spool,
        lease_grace_seconds: float,
        cleaner: Cleaner,
        unit_ended: Callable[[int, int], None],
    ) -> None:
        """cleaner takes secrets out of events. unit_ended(hosts, unreachable) is called for each unit whose end was
        stored."""
        self._unit_ended = unit_ended
        self._cleaner = cleaner
        self._launcher = launcher
        self._database = database
        self._store = store
        self._slots = slots
        self._runs: dict[int, _Run] = {}
        self._leaving: set[int] = set()  # claimed and not to be started
        self._lease_until = 0.0
        self._lease_grace = lease_grace_seconds
        self._unkillable: dict[int, dict[int, int]] = {}  # of ended units: their processes, pid -> start time
        self._spool = spool
        self._unspooled: list[HostRow] = []  # final rows that the disk did not take; the outbox has them too
        self._spool_problem: str | None = None
        self._launches = Launches()
        self.dropped = 0  # results of units that were given to others
        self.results: Counter[str] = Counter()  # hosts that have ended here, by their status
        self._outbox = Outbox()
        self._new_keys: list[NewHostKey] = []
        self._collect = Timer(COLLECT_SECONDS)
        self._look = Timer(LOOK_SECONDS)
        self._read_at = float("-inf")  # until then events wait for each other

    @property
    def ids(self) -> Set[int]:
        return self._runs.keys() | self._leaving

    @property
    def unkillable(self) -> list[int]:
        """The pids of processes that outlived their unit because no signal ends them; they keep their slots."""
        return [pid for left in self._unkillable.values() for pid in left]

    def spool_problem(self) -> str | None:
        """Why nothing should be claimed: what comes back could not be kept while the database is away."""
        if self._spool_problem is None and self._spool.full:
            size = f"{self._spool.size_bytes // 10**6} MB"
            return f"the spool has reached SPOOL_SIZE ({size}): results wait for the database"
        return self._spool_problem

    def launch_problem(self) -> str | None:
        """Why the last unit could not be started; None after one that could."""
        return self._launches.problem()

    def claims_at(self) -> float:
        """When a unit may be claimed again after one that could not be started; monotonic."""
        return self._launches.again_at

    @property
    def spooled(self) -> int:
        """Results on disk that the database does not have."""
        return self._spool.pending

    @property
    def spool_bytes(self) -> int:
        return self._spool.size_bytes

    def oldest_host_seconds(self, moment: float) -> float:
        """For how long the host that was begun first has been running; 0 when none runs."""
        starts = [start for run in self._runs.values() if (start := run.unit.oldest_start) is not None]
        return moment - min(starts) if starts else 0.0

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

    def extend_lease(self, until: float, held: Collection[int]) -> None:
        """Units that may run again elsewhere live until this monotonic moment, unless this is called again.

        Only for those that the database says are ours: another one's lease has ended, and must not come back.
        """
        self._lease_until = until
        for unit_id, run in self._runs.items():
            if run.process is not None and run.unit.job.on_engine_loss == RERUN and unit_id in held:
                run.process.extend_lease(until)

    def lease_order_at(self) -> float:
        """When mind_lease() has something to do, unless the lease is extended before."""
        leased = any(run.unit.job.on_engine_loss == RERUN and not run.unit.stop_reason for run in self._runs.values())
        return self._lease_until - self._lease_grace if leased else float("inf")

    def mind_lease(self, moment: float) -> None:
        """Shortly before their lease ends, units that may run again elsewhere end their commands on the hosts too."""
        if moment >= self.lease_order_at():
            for unit_id, run in self._runs.items():
                if run.unit.job.on_engine_loss == RERUN:
                    self.stop(unit_id, "the engine could not reach the database", HostStatus.LOST)

    def stop(self, unit_id: int, reason: str, status: HostStatus = HostStatus.CANCELLED) -> None:
        """Have the unit's processes end within seconds; its hosts without a result end with the status."""
        run = self._runs[unit_id]
        if not run.unit.stop_reason:
            log.warning("a unit is stopped", extra=run.unit.ids | {"reason": reason})
            run.unit.stop(reason, status)
            if run.process is not None:
                run.process.stop(reason)

    def stop_all(self, reason: str) -> None:
        """The engine is to end: what may not run again is lost, the rest goes back."""
        for unit_id in self._runs:
            self.stop(unit_id, reason, HostStatus.LOST)

    def events_at(self) -> float:
        """From when on runners' events are to be waited for; monotonic."""
        return self._read_at

    def sources(self, *, with_events: bool) -> Iterator[tuple[int, int]]:
        """Descriptors to poll, with the events to wait for. with_events: also the runners'."""
        for source in self._launcher.sockets():
            yield source.fileno(), select.POLLIN
        for run in self._runs.values():
            if run.conversation is not None and not run.conversation.closed:
                wanted = select.POLLOUT if run.conversation.has_unsent else 0
                if wanted or with_events:
                    yield run.conversation.fileno(), wanted | (select.POLLIN if with_events else 0)

    def due_at(self) -> float:
        """When turn() has something to do though no source is ready."""
        flush_at = self._outbox.due_at()
        look_at = self._look.at if self._runs else float("inf")
        return min(self._collect.at, look_at, float("inf") if flush_at is None else flush_at)

    def turn(self, ready: Set[int]) -> None:
        """ready are the descriptors of sources() that the poll found."""
        moment = time.monotonic()
        self._read_events(ready, moment)
        called = any(source.fileno() in ready for source in self._launcher.sockets())
        if self._collect.due(moment) or called:
            for end in self._launcher.collect():
                self._ended(end)
            self._look_after_unkillable()
            if self._spool_problem is not None:
                self._try_spool_again()
        if self._look.due(moment):
            for run in self._runs.values():
                self._put(run.unit.running_rows(moment))
        flush_at = self._outbox.due_at()
        if flush_at is not None and moment >= flush_at:
            self._flush()

    def _read_events(self, ready: Set[int], moment: float) -> None:
        said = [
            (run, run.conversation)
            for run in self._runs.values()
            if run.conversation is not None and not run.conversation.closed and run.conversation.fileno() in ready
        ]
        for run, conversation in said:
            self._converse(run, conversation, moment)
        if said and not any(conversation.flows or conversation.has_unsent for _, conversation in said):
            self._read_at = moment + READ_SECONDS

    def _begun(self, run: _Run, begun: bool) -> None:
        unit = run.unit
        if not begun:
            log.error("a unit was taken away before it was begun", extra=unit.ids)
            self._forget(unit)
        elif unit.stop_reason:
            self._end_without_process(unit, "stopped")
        else:
            self._launch(run)

    def _launch(self, run: _Run) -> None:
        unit = run.unit
        try:
            lease_until = self._lease_until if unit.job.on_engine_loss == RERUN else None
            run.process = self._launcher.launch(unit.job, lease_until)
        except LauncherError as exc:
            self._launches.failed(str(exc))
            log.error("a unit could not be started", extra=unit.ids | {"error": str(exc)})
            unit.stop(str(exc), HostStatus.LOST)
            self._end_without_process(unit, NOT_LAUNCHED)
            return
        run.conversation = Conversation(run.process.events, unit.job, self._cleaner)
        run.conversation.send()
        log.info("unit started", extra=unit.ids | {"hosts": len(unit.job.hosts), "guard": run.process.guard_pid})

    def _end_without_process(self, unit: Unit, cause: str) -> None:
        unit.ended(cause, None)
        unit.read_to_end()
        self._finish(unit)

    def _converse(self, run: _Run, conversation: Conversation, moment: float) -> None:
        if conversation.has_unsent:
            conversation.send()
        events = conversation.receive()
        if events:
            self._launches.went_well()
        if conversation.broken:
            log.error("a runner sent what is no event", extra=run.unit.ids | {"error": conversation.broken})
            self.stop(run.unit.id, "its runner sent what is no event", HostStatus.LOST)
        self._take_in(run.unit, [outcome for event in events for outcome in run.unit.handle(event, moment)])
        self._slots.keep(run.unit.id, run.unit.hosts_left)
        if conversation.closed:
            run.unit.read_to_end()
            self._finish_if_over(run)

    def _take_in(self, unit: Unit, outcomes: list[HostRow | NewHostKey | RunnerLog]) -> None:
        self._put([outcome for outcome in outcomes if isinstance(outcome, HostRow)])
        for outcome in outcomes:
            if isinstance(outcome, NewHostKey):
                self._new_keys.append(outcome)
            elif isinstance(outcome, RunnerLog):
                level = logging.getLevelNamesMapping()[outcome.level.upper()]
                log.log(level, "said by the runner", extra=unit.ids | {"text": outcome.text})

    def _ended(self, end: UnitEnd) -> None:
        run = self._runs.get(end.unit_id)
        if end.left:
            log.error("processes of a unit cannot be killed", extra={"unit": end.unit_id, "pids": end.left})
            with contextlib.suppress(OSError):  # no descriptor is left to look at them
                starts = {pid: processes.start_time(pid) for pid in end.left}
                self._unkillable[end.unit_id] = {pid: start for pid, start in starts.items() if start is not None}
            self._block_slots()
        if run is None or run.conversation is None:
            return
        if not run.conversation.closed:  # its last events: they say whether anything was begun
            self._converse(run, run.conversation, time.monotonic())
        if end.cause == NOT_STARTED:
            self._launches.failed("the machine has no process or descriptor left for a runner")
        elif end.cause == "runner_died" and run.unit.nothing_begun:
            self._launches.failed("a runner died before it began anything")
        run.unit.ended(end.cause, end.runner_exit)
        log.info("unit ended", extra=run.unit.ids | {"cause": end.cause, "exit": end.runner_exit})
        if end.left and not run.conversation.closed:
            # They hold the other end of the socket: its EOF would never come.
            run.conversation.close()
            run.unit.read_to_end()
        self._finish_if_over(run)

    def _finish_if_over(self, run: _Run) -> None:
        if run.unit.over and not run.ending:
            run.ending = True
            self._finish(run.unit)

    def _finish(self, unit: Unit) -> None:
        """Store what is left, then the end, in this order."""
        rows, again = unit.conclude(now())
        self._put(rows)
        self._flush()
        self._slots.release(unit.id)
        free_slots = self._slots.free

        def ended(ours: bool) -> None:
            del self._runs[unit.id]
            if not again:  # else it was not seen how its hosts are
                self._unit_ended(len(unit.job.hosts), unit.unreachable)
            if not ours:
                log.error("a unit was taken away before its end", extra=unit.ids)

        if again:
            log.warning("hosts go back to wait for another attempt", extra=unit.ids | {"hosts": len(again)})
            attempt, counts = unit.job.attempt, unit.was_launched
            give_back = functools.partial(self._store.give_back, unit.id, attempt, again, free_slots, counts)
            self._database.submit("give back", give_back, ended)
        else:
            self._database.submit("end", lambda: self._store.end(unit.id, free_slots), ended)

    def _look_after_unkillable(self) -> None:
        """The launcher goes on killing them; the slot and the runner's memory are free when they are gone."""
        with contextlib.suppress(OSError):  # no descriptor is left to look with: the next time
            for unit_id, left in list(self._unkillable.items()):
                for pid, start in list(left.items()):
                    if processes.start_time(pid) != start:
                        del left[pid]
                if not left:
                    del self._unkillable[unit_id]
                    log.info("the processes that could not be killed are gone", extra={"unit": unit_id})
        self._block_slots()

    def _block_slots(self) -> None:
        self._slots.block(hosts=len(self.unkillable), units=len(self._unkillable))

    def _forget(self, unit: Unit) -> None:
        del self._runs[unit.id]
        self._slots.release(unit.id)

    def _put(self, rows: list[HostRow]) -> None:
        """On the disk first: from here on they outlive this process."""
        final = [row for row in rows if row.status in FINAL_STATUSES]
        self._append(final)
        self.results.update(row.status for row in final)
        if final:
            fail_point("spooled")
        moment = time.monotonic()
        for row in rows:
            self._outbox.put(row, moment)

    def _flush(self) -> None:
        if self._new_keys:
            keys, self._new_keys = self._new_keys, []
            self._database.submit("add host keys", lambda: self._store.add_host_keys(keys), _nothing)
        for batch in self._outbox.take():
            self._save(batch)

    def _append(self, rows: list[HostRow]) -> None:
        try:
            self._spool.append(rows)
        except SpoolError as exc:
            self._unspooled += rows
            if self._spool_problem is None:
                log.error("results cannot be kept on disk, nothing more is claimed", extra={"reason": str(exc)})
            self._spool_problem = str(exc)

    def _try_spool_again(self) -> None:
        rows, self._unspooled = self._unspooled, []
        try:
            self._spool.probe()
        except SpoolError as exc:
            self._unspooled, self._spool_problem = rows, str(exc)
            return
        self._spool_problem = None
        self._append(rows)
        if self._spool_problem is None:
            log.info("results are kept on disk again")

    def _save(self, batch: tuple[HostRow, ...]) -> None:
        def save() -> int:
            with contextlib.suppress(SpoolError):  # a disk that is full: append() says so
                self._spool.sync()
            return self._store.save(batch)

        def saved(dropped: int) -> None:
            self.dropped += dropped
            self._spool.stored(batch)
            stored = {row.id for row in batch if row.status in FINAL_STATUSES}
            self._unspooled = [row for row in self._unspooled if row.id not in stored]

        self._database.submit("save results", save, saved)


def _nothing(_answer: object) -> None:
    """Of some requests only that they are done matters."""
