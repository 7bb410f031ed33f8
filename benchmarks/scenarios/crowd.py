"""What is done when much waits: a large task, a small one behind it, and several engines side by side."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import sqlalchemy as sa

from benchmarks.engines import WARM_HOSTS, Engine, engine
from benchmarks.harness import Figures, Goal, Options, Samples, Scenario, alternate, say
from benchmarks.services import bench
from contract.database import now
from contract.states import UnitState
from contract.tables import host_result, task, unit
from tests.servers.fleet import Fleet
from tests.servers.process import wait_for

LARGE_TASK = 100_000
HEALTHY = 60_000  # so many addresses the fleet has of a kind
UNIT_HOSTS = 30
LOOK_SECONDS = 0.02
ANSWER, FIRST, EMPTY = "answer", "first host, after the answer", "slots free, units waiting, none published"
SMALL_TASK = 3


def hosts_for(count: int) -> list[str]:
    """Of those beyond HEALTHY none is reached before its task is cancelled."""
    healthy = min(count, HEALTHY)
    return [*Fleet.hosts("healthy", healthy), *Fleet.hosts("slow", count - healthy)]


class Queue:
    """What the database knows of the units of one engine, whose slots are these."""

    def __init__(self, by: Engine, slots: int) -> None:
        self._database = by.services.database
        self._slots = slots

    def first_start(self, task_id: str) -> datetime:
        """Blocks until a host of the task has been begun."""
        query = (
            sa.select(sa.func.min(host_result.c.started_at))
            .join(unit, unit.c.id == host_result.c.unit_id)
            .join(task, task.c.key == unit.c.task_key)
            .where(task.c.id == task_id, unit.c.begun_at.is_not(None))
        )
        begun_at: datetime = wait_for(
            "a host to be begun", lambda: self._database.read(lambda connection: connection.scalar(query))
        )
        return begun_at

    def is_full(self) -> bool:
        return self._look().running_hosts >= self._slots

    def empty_seconds(self, seconds: float) -> float:
        """For how long of these seconds there was room for a unit, and one that waited, but none to be claimed."""
        empty, looked_at = 0.0, time.monotonic()
        end = looked_at + seconds
        while looked_at < end:
            time.sleep(LOOK_SECONDS)
            look, moment = self._look(), time.monotonic()
            if look.running_hosts + UNIT_HOSTS <= self._slots and look.has_waiting and not look.published_hosts:
                empty += moment - looked_at
            looked_at = moment
        return empty

    def _look(self) -> _Look:
        running, published = (
            sa.select(sa.func.coalesce(sa.func.sum(unit.c.host_count), 0)).where(unit.c.state == state)
            for state in (UnitState.RUNNING, UnitState.PUBLISHED)
        )
        waiting = sa.select(sa.func.min(unit.c.task_key)).where(unit.c.state == UnitState.WAITING)
        query = sa.select(*(each.scalar_subquery() for each in (running, published, waiting)))
        row = self._database.read(lambda connection: connection.execute(query).one())
        return _Look(int(row[0]), int(row[1]), row[2] is not None)


@dataclass(frozen=True)
class _Look:
    running_hosts: int
    published_hosts: int
    has_waiting: bool


def large_post(options: Options) -> Figures:
    hosts = hosts_for(options.hosts_or(LARGE_TASK, 2 * UNIT_HOSTS))
    seconds, slots = (1, UNIT_HOSTS) if options.smallest else (20, 120)
    samples: Samples = {ANSWER: [], FIRST: [], EMPTY: []}
    with bench(embedded=options.smallest) as servers, engine(servers, SLOTS=slots) as by:
        queue = Queue(by, slots)
        for number in range(1, options.rounds + 1):
            began = time.monotonic()
            task_id = by.adhoc(hosts, "raw", "echo hi")
            samples[ANSWER].append(time.monotonic() - began)
            answered_at = now()
            samples[FIRST].append(max(0.0, (queue.first_start(task_id) - answered_at).total_seconds()))
            samples[EMPTY].append(queue.empty_seconds(seconds))
            by.cancel(task_id)
            say(f"round {number} of {options.rounds}: {[round(values[-1], 2) for values in samples.values()]}")
    goals = [Goal(ANSWER, at_most=3), Goal(FIRST, at_most=1), Goal(EMPTY, at_most=0)]
    return Figures("seconds", samples, goals=goals)


def fairness(options: Options) -> Figures:
    count, slots = options.hosts_or(LARGE_TASK, 3 * UNIT_HOSTS), 2 * UNIT_HOSTS
    seconds = 1 if options.smallest else 8
    command, small = f"sleep {seconds}", Fleet.hosts("healthy", SMALL_TASK)
    turns = itertools.count()
    with bench(embedded=options.smallest) as servers, engine(servers, SLOTS=slots) as by:

        def alone() -> float:
            began = time.monotonic()
            by.finish(by.adhoc(small, "raw", command), success=SMALL_TASK)
            return time.monotonic() - began

        def behind() -> float:
            large = by.adhoc(hosts_for(count), "raw", command)
            try:
                wait_for("all slots to be taken", partial(Queue(by, slots).is_full))
                time.sleep(seconds * next(turns) / options.rounds)  # at a moment of its own in each round
                return alone()
            finally:
                by.cancel(large)

        samples = alternate({"engine, alone": alone, "engine, behind the large task": behind}, options.rounds)
    goals = [Goal("engine, behind the large task", "engine, alone", at_most=2)]
    return Figures("seconds", samples, "engine, alone", goals)


def engines(options: Options) -> Figures:
    """All of them stand from the beginning, each number with a database and a topic of its own; the others rest."""
    numbers, units, seconds = ((1, 2), 1, 1) if options.smallest else ((1, 2, 4), 3, 20)
    names = {number: f"{number} engine{'s' * (number > 1)}" for number in numbers}
    contestants: dict[str, Callable[[], float]] = {}
    with contextlib.ExitStack() as stack:
        servers = stack.enter_context(bench(embedded=options.smallest))
        for number, name in names.items():
            services = servers.services(f"engines-{number}", number, Exec_Engine={"SLOTS": UNIT_HOSTS})
            together = Engine(stack.enter_context(services))
            for _ in range(number):  # warm
                together.finish(together.adhoc(Fleet.hosts("healthy", WARM_HOSTS), "ping"), success=WARM_HOSTS)
            hosts = Fleet.hosts("healthy", options.hosts_or(units * UNIT_HOSTS, UNIT_HOSTS) * number)
            submit = partial(together.adhoc, hosts, "raw", f"sleep {seconds}")
            contestants[name] = partial(_hosts_a_second, together, submit, len(hosts), number)
        samples = alternate(contestants, options.rounds)
    first, *others = names.values()
    return Figures("hosts a second and engine", samples, first, [Goal(name, first, at_least=0.92) for name in others])


def _hosts_a_second(by: Engine, submit: Callable[[], str], hosts: int, engines: int) -> float:
    return hosts / by.seconds_to_the_last_row(submit, hosts) / engines


SCENARIOS = (
    Scenario(
        "large-post",
        "POST of a task of 100,000 hosts, and what comes of it",
        "the answer in 3 s, the first host begun 1 s later, units to claim as long as slots are free",
        "Wall time of the request; from its answer to the first host's started_at; and of the 20 s after it, with 120 "
        f"slots and a raw command, those in which {UNIT_HOSTS} slots were free, units waited, and none was published "
        f"(the database is asked every {1000 * LOOK_SECONDS:.0f} ms).",
        large_post,
    ),
    Scenario(
        "fairness",
        "a task of 3 hosts submitted behind one of 100,000, whose hosts take 8 s each, with 60 slots",
        "done in at most 2 times what it takes alone",
        "From the request until GET /tasks/ID/ says that it has finished, begun at moments spread over the 8 s.",
        fairness,
    ),
    Scenario(
        "engines",
        "1, 2 and 4 engines of 30 slots, whose hosts take 20 s each",
        "at least 0.92 of linear",
        "Hosts by the time from the request to the moment when the last host's row can be read in the database, and by "
        "engines; 90 hosts an engine. Engines, servers and hosts share this machine.",
        engines,
    ),
)
