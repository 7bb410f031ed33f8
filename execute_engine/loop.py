"""The consumer's main loop: it claims units, has them run, and stores what they bring. Who owns what:

kafka thread (subscription)     messages and offsets
database thread                 every statement, in order
main loop (here)                slots, units, timers; the only one that decides; it waits for nothing but its poll
"""

from __future__ import annotations

import functools
import logging
import select
import time
from collections.abc import Callable, Set
from dataclasses import dataclass

from contract import config as configuration
from contract import reload
from contract.config import Config
from contract.states import EngineState, HostStatus
from contract.supervised import Lifeline
from execute_engine.brake import Brake
from execute_engine.claims import Claims
from execute_engine.database_thread import DatabaseThread
from execute_engine.engine_row import Beat, EngineRow
from execute_engine.errors import LauncherError, LeaseLost
from execute_engine.launcher_client import LauncherClient
from execute_engine.output import Cleaner
from execute_engine.progress import Report
from execute_engine.running import RunningUnits
from execute_engine.share_probe import ShareProbe
from execute_engine.slots import Slots, limits
from execute_engine.spool import Spool
from execute_engine.stops import Stops
from execute_engine.store import Claimed, Left, NoRoom, Store
from execute_engine.subscription import Delivery, Subscription
from execute_engine.timer import Timer
from execute_engine.wakeup import Wakeup

BEATS_A_LEASE = 6
LEASE_SHARE = 5 / 6  # without a beat for so much of it, what may run again elsewhere is ended here
STOPS_SECONDS = 2.0  # between two looks at which units are to be stopped
REPORT_SECONDS = 1.0  # between two reports to the supervisor and to the heartbeat
STORE_SECONDS = 60.0  # at the end of a drain: for stopped units to end and their results to be stored
LAST_WORD_SECONDS = 5.0  # for the row's last state
LONGEST_LAUNCHER_PAUSE_SECONDS = 30.0
FAILED = (HostStatus.FAILED, HostStatus.UNREACHABLE, HostStatus.LOST)
NO_KAFKA = 2  # of the figure "kafka", where the database is the queue

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """What the loop works with; built, and ended, by whoever runs it."""

    row: EngineRow
    store: Store
    database: DatabaseThread
    launcher: LauncherClient
    subscription: Subscription | None  # None: the database is the queue
    slots: Slots
    spool: Spool
    share: ShareProbe
    lifeline: Lifeline
    stops: Stops
    wakeup: Wakeup
    cleaner: Cleaner  # of the configuration's secrets
    report: Report


class Loop:
    """run() is the whole life of a registered incarnation."""

    def __init__(self, config: Config, incarnation: str, parts: Parts) -> None:
        self._config = config
        self._incarnation = incarnation
        self._parts = parts
        self._slots = parts.slots
        self._running = RunningUnits(
            parts.launcher,
            parts.database,
            parts.store,
            parts.slots,
            parts.spool,
            config.engine.lease_seconds / BEATS_A_LEASE,
            parts.cleaner,
            self._unit_ended,
        )
        self._brake = Brake()
        self._claims = Claims(has_kafka=parts.subscription is not None)
        self._beat = Timer(config.engine.lease_seconds / BEATS_A_LEASE)
        self._beating = False
        self._late_ids: set[int] = set()
        self._stop_look = Timer(STOPS_SECONDS)
        self._looking_for_stops = False
        self._report = Timer(REPORT_SECONDS)
        self._state = EngineState.LIVE
        self._drain = ""  # what the status says of it
        self._drained_at = float("inf")  # when what still runs in a drain is stopped
        self._give_up_at = float("inf")  # when even their results are waited for no longer
        self._last_claim = ""  # the clock's time, for people
        self._vain_messages = 0
        self._told_missing: str | None = None
        self._launcher_at = float("-inf")
        self._launcher_pause = 1.0
        self._launcher_problem: str | None = None

    def run(self) -> None:
        """Until a stop signal came and the units have ended. Raises LeaseLost."""
        self._running.extend_lease(time.monotonic() + LEASE_SHARE * self._config.engine.lease_seconds, ())
        while not self._over():
            self._turn(self._poll())
        self._tell(time.monotonic())  # the last results count too
        row, database = self._parts.row, self._parts.database
        database.submit("last beat", lambda: row.beat(EngineState.STOPPED, 0, None), lambda _: None)
        if not database.close(LAST_WORD_SECONDS):
            log.warning("stopped without telling the database")

    def _poll(self) -> set[int]:
        """Wait for something to do, at most [Data_Send] EXEC seconds; returns the descriptors that are ready."""
        due_at = min(self._due_at(), time.monotonic() + self._config.intervals.exec)
        events_at = self._running.events_at()
        if time.monotonic() < events_at:
            ready = self._wait(min(due_at, events_at), with_events=False)
            if ready or due_at <= events_at:
                return ready
        return self._wait(due_at, with_events=True)

    def _due_at(self) -> float:
        """When there is something to do though no descriptor is ready."""
        beat_at = float("inf") if self._beating else self._beat.at
        stops_at = self._stop_look.at if self._running.begun_ids and not self._looking_for_stops else float("inf")
        stops_at = min(stops_at, self._running.lease_order_at())
        due_at = min(beat_at, stops_at, self._report.at, self._running.due_at(), self._drained_at, self._claim_at())
        return min(due_at, self._parts.share.due_at())

    def _wait(self, until: float, *, with_events: bool) -> set[int]:
        poll = select.poll()
        for flag in (self._parts.wakeup, self._parts.stops):
            poll.register(flag, select.POLLIN)
        for descriptor, events in self._running.sources(with_events=with_events):
            poll.register(descriptor, events)
        if (share := self._parts.share.source()) is not None:
            poll.register(share, select.POLLIN)
        return {descriptor for descriptor, _ in poll.poll(max(0.0, until - time.monotonic()) * 1000)}

    def _turn(self, ready: set[int]) -> None:
        moment = time.monotonic()
        self._parts.lifeline.alive()
        if self._parts.lifeline.must_reload():
            self._reload()
        self._parts.wakeup.clear()
        self._parts.database.deliver()
        self._running.turn(ready)
        self._running.mind_lease(moment)
        self._mind_stops(moment)
        self._keep_launcher(moment)
        if self._parts.share.turn(moment):
            self._beat.now()  # the dispatcher must know
        self._take_message()
        self._claim(moment)
        if not self._beating and self._beat.due(moment):
            self._send_beat()
        if not self._running.begun_ids:
            self._stop_look.rest(moment)  # a unit that is soon over is not asked for
        elif not self._looking_for_stops and self._stop_look.due(moment):
            self._look_for_stops()
        if self._report.due(moment):
            self._tell(moment)

    def _reload(self) -> None:
        """Nothing that runs is touched: with fewer slots than it holds, claiming waits until there is room."""
        before, self._config = self._config.engine, reload.follow(self._config, configuration.ENGINE)
        engine = self._config.engine
        if (before.slots, before.runners) == (engine.slots, engine.runners):
            return
        self._slots.slots, self._slots.runners = slots, runners = limits(engine)
        log.info("room for so much at once from now on", extra={"slots": slots, "runners": runners})
        self._parts.database.submit("resize", lambda: self._parts.row.resize(slots), lambda _: self._beat.now())

    # --- claims

    def _may_claim(self) -> bool:
        return self._state == EngineState.LIVE and self._parts.launcher.alive and self._running.spool_problem() is None

    def _claim_at(self) -> float:
        due_at = self._claims.due_at(self._slots.room()) if self._may_claim() else None
        return float("inf") if due_at is None else max(due_at, self._paused_until())

    def _paused_until(self) -> float:
        """When the brake, and units that could not be started, let this engine claim again."""
        braked_until = self._brake.claims_at(self._slots.units)
        return float("inf") if braked_until is None else max(braked_until, self._running.claims_at())

    def _take_message(self) -> None:
        if self._parts.subscription is None or not self._claims.wants_message or self._state != EngineState.LIVE:
            return
        delivery = self._parts.subscription.take()
        if delivery is None:
            return
        if delivery.message.unit_id in self._running.ids:
            self._done(delivery)
        else:
            self._claims.message(delivery)

    def _claim(self, moment: float) -> None:
        if not self._may_claim() or moment < self._paused_until():
            return
        room, store, held = self._slots.room(), self._parts.store, frozenset(self._running.ids)
        with_files = self._parts.share.answers
        search = self._claims.next(room, moment)
        if search is None:
            return
        look: Callable[[], Claimed | NoRoom | Left | None]
        if search.delivery is None:
            look = functools.partial(store.claim_oldest, room, held, with_files=with_files, patient=self._fed())
        else:
            look = functools.partial(store.claim, search.delivery.message.unit_id, room, held, with_files=with_files)
        self._parts.database.submit("claim", look, self._claimed)

    def _claimed(self, found: Claimed | NoRoom | Left | None) -> None:
        moment, fed = time.monotonic(), self._fed()
        if isinstance(found, NoRoom):
            self._claims.no_room(moment, found.hosts)
            return
        if isinstance(found, Left):
            self._claims.left(moment)
            return
        if found is None:
            self._passed_over(self._claims.nothing(moment, fed=fed))
            return
        self._done(self._claims.found(moment, found.hosts, fed=fed))
        self._last_claim = time.strftime("%H:%M:%S %Z")
        self._brake.claimed(moment)
        if self._may_claim():
            self._running.start(found)
        else:
            self._running.hand_back(found.unit_id)

    def _fed(self) -> bool:
        """This engine has its share of Kafka's partitions."""
        return self._parts.subscription is not None and self._parts.subscription.lag is not None

    def _passed_over(self, delivery: Delivery | None) -> None:
        """Its unit is unknown, ended, another's, or needs the share: a message comes late, twice, or from anybody."""
        if delivery is not None:
            self._vain_messages += 1
            facts = {"unit": delivery.message.unit_id, "count": self._vain_messages}
            log.info("a message names no unit that can be had", extra=facts)
        self._done(delivery)

    def _done(self, delivery: Delivery | None) -> None:
        if delivery is not None and self._parts.subscription is not None:
            self._parts.subscription.done(delivery)

    def _unit_ended(self, hosts: int, unreachable: int) -> None:
        if self._brake.ended(hosts, unreachable):
            store = self._parts.store
            self._parts.database.submit("look at other engines", store.others_unreachable, self._compared)

    def _compared(self, share: float | None) -> None:
        if self._brake.others(share, time.monotonic()):
            log.error("the brake is on", extra={"reason": self._brake.problem()})

    # --- life

    def _send_beat(self) -> None:
        self._beating = True
        row, state, free_slots, missing = self._parts.row, self._state, self._slots.free, self._missing()
        sees_files = self._parts.share.answers

        def beat() -> tuple[float, Beat]:
            begun = time.monotonic()  # the lease counts from before the statement, whenever its answer comes
            return begun, row.beat(state, free_slots, missing, sees_files)

        self._parts.database.submit("beat", beat, self._beaten, urgent=True)

    def _beaten(self, answer: tuple[float, Beat]) -> None:
        """Raises LeaseLost. What the database says we hold and what runs here is made the same."""
        self._beating = False
        begun, beat = answer
        if not beat.lives:
            raise LeaseLost("this incarnation was declared dead, and another one of this engine lives")
        if beat.revived:
            log.warning("this engine counted as dead and is taken back: its units were settled meanwhile")
        self._running.extend_lease(begun + LEASE_SHARE * self._config.engine.lease_seconds, beat.held.keys())
        if not self._claims.searching:  # else its unit may be held already, and not yet known here
            for unit_id in beat.held.keys() - self._running.ids:
                self._running.settle(unit_id, beat.held[unit_id])
        if taken := self._running.begun_ids - beat.held.keys() - self._late_ids:
            look = functools.partial(self._parts.store.settled_as_lost, taken)
            self._parts.database.submit("look for settled units", look, functools.partial(self._sort_out, taken))

    def _sort_out(self, taken: Set[int], late: Set[int]) -> None:
        """Units that we do not hold any more: those that only count as lost go on, their results come late."""
        self._late_ids |= late
        for unit_id in (taken - late) & self._running.begun_ids:
            self._running.stop(unit_id, "the unit was taken from this engine")
        if late:
            log.warning("units that count as lost go on here", extra={"units": sorted(late)})

    def _look_for_stops(self) -> None:
        self._looking_for_stops = True
        self._parts.database.submit("look for stops", self._parts.store.stop_requests, self._stop_requested)

    def _stop_requested(self, unit_ids: list[int]) -> None:
        self._looking_for_stops = False
        for unit_id in self._running.begun_ids & set(unit_ids):
            self._running.stop(unit_id, "the task was cancelled")

    def _keep_launcher(self, moment: float) -> None:
        """Start a launcher in the place of a dead one; blocks while it loads, START_SECONDS at most."""
        if self._parts.launcher.alive or moment < self._launcher_at:
            return
        log.error("the launcher is gone, another one is started")
        try:
            self._parts.launcher.start()
        except LauncherError as exc:
            self._launcher_problem = f"the launcher does not start: {exc}"
            log.error("the launcher does not start", extra={"error": str(exc), "pause_seconds": self._launcher_pause})
            self._launcher_at = time.monotonic() + self._launcher_pause
            self._launcher_pause = min(2 * self._launcher_pause, LONGEST_LAUNCHER_PAUSE_SECONDS)
        else:
            self._launcher_problem, self._launcher_pause = None, 1.0

    def _mind_stops(self, moment: float) -> None:
        """The first signal begins the drain; a second one, or its deadline, ends it."""
        stops = self._parts.stops.count
        if stops and self._state == EngineState.LIVE:
            self._state = EngineState.DRAINING
            self._drained_at = moment + self._config.engine.drain_seconds
            end = time.localtime(time.time() + self._config.engine.drain_seconds)
            self._drain = f"draining until {time.strftime('%H:%M:%S %Z', end)} at the latest"
            self._beat.now()
            if self._parts.subscription is not None:
                self._parts.subscription.close()
            log.info("draining", extra={"units": self._slots.units, "seconds": self._config.engine.drain_seconds})
        if self._state == EngineState.DRAINING and (stops > 1 or moment >= self._drained_at):
            self._running.stop_all("the engine was stopped")
            self._drain = "draining, what still runs is being ended"
            self._drained_at = float("inf")
            self._give_up_at = min(self._give_up_at, moment + STORE_SECONDS)

    def _over(self) -> bool:
        if self._state == EngineState.LIVE:
            return False
        if not self._running.ids and not self._claims.searching:
            return True
        if time.monotonic() < self._give_up_at:
            return False
        log.error("stopped before the end of its units was stored", extra={"units": len(self._running.ids)})
        return True

    # --- what others are told

    def _missing(self) -> str | None:
        """One sentence of what this engine lacks; also logged when it changes."""
        parts = self._parts
        room = self._slots.room()
        problems = [
            parts.subscription and parts.subscription.problem(),
            self._launcher_problem,
            self._brake.problem(),
            _unkillable_words(self._running.unkillable),
            self._running.spool_problem(),
            self._running.launch_problem(),
            None if room.runner_free else f"RUNNERS ({self._slots.runners}) is reached: no memory for more units",
            parts.share.problem(time.monotonic()),
        ]
        found = "; ".join(problem for problem in problems if problem) or None
        kind = found and found.split(" for ")[0]
        if kind != self._told_missing:
            self._told_missing = kind
            log.info("nothing is missing any more" if found is None else "something is missing", extra={"what": found})
        return found

    def _tell(self, moment: float) -> None:
        """The status names moments, not ages, so that it stays the same while nothing happens."""
        slots = self._slots
        facts = [
            self._drain,
            f"{slots.hosts} of {slots.slots} slots in use",
            f"{slots.units} {'unit' if slots.units == 1 else 'units'} running",
            f"last claim {self._last_claim}" if self._last_claim else "nothing claimed yet",
        ]
        problems = [problem for problem in (self._parts.database.problem(), self._missing()) if problem]
        self._parts.lifeline.status("; ".join([", ".join(filter(None, facts)), *problems]))
        self._parts.report.write(self._figures(moment), self._totals(), self._silent())

    def _figures(self, moment: float) -> dict[str, int]:
        """What the heartbeat tells Zabbix, by the last words of the keys."""
        slots, running, parts = self._slots, self._running, self._parts
        known = {
            "slots": slots.slots,
            "slots_used": slots.slots - slots.free,
            "units": slots.units,
            "hosts": slots.hosts,
            "oldest_host_seconds": int(running.oldest_host_seconds(moment)),
            "spooled": running.spooled,
            "spool_bytes": running.spool_bytes,
            "share": int(parts.share.answers),
            "database": int(parts.database.problem() is None),
            "unkillable": len(running.unkillable),
            "dropped": running.dropped,
            "braked": int(self._brake.on),
        }
        if parts.subscription is None:
            return known | {"kafka": NO_KAFKA, "claim_lag": 0}
        measured = {"kafka": parts.subscription.answers, "claim_lag": parts.subscription.lag}
        return known | {name: int(value) for name, value in measured.items() if value is not None}

    def _totals(self) -> dict[str, int]:
        results = self._running.results
        return {
            "hosts_finished": results.total(),
            "hosts_failed": sum(results[status] for status in FAILED),
            "hosts_timed_out": results[HostStatus.TIMEOUT],
        }

    def _silent(self) -> dict[str, float]:
        """For how long each thread has not come back; where it is known that its server is away, that is no news."""
        subscription = self._parts.subscription
        return {
            "database": self._parts.database.silent_seconds(),
            "kafka": 0.0 if subscription is None else subscription.silent_seconds(),
        }


def _unkillable_words(pids: list[int]) -> str | None:
    if not pids:
        return None
    which = ", ".join(map(str, pids[:5])) + (" and more" if len(pids) > 5 else "")
    return f"no signal ends what ended units have left, and it keeps its slots: processes {which}"
