"""What the daemons take for themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from benchmarks.cpu import core_percent, tree_pss_mb
from benchmarks.engines import engine
from benchmarks.harness import Figures, Goal, Options, Scenario, alternate
from benchmarks.services import bench
from tests.servers.fleet import Fleet


def start(options: Options) -> Figures:
    (host,) = Fleet.hosts()
    with bench(embedded=options.smallest) as servers, engine(servers) as by:

        def seconds() -> float:
            by.daemon.stop()
            return by.seconds_to_its_first_claim(host)

        samples = alternate({"engine": seconds}, options.rounds)
    return Figures("seconds", samples, goals=[Goal("engine", at_most=3)])


def idle_cpu(options: Options) -> Figures:
    window = 1 if options.smallest else 60
    return idle(options, "% of a core", partial(core_percent, seconds=window), {"engine": 1, "distribute": 1})


def idle_memory(options: Options) -> Figures:
    return idle(options, "MB", tree_pss_mb, {"engine": 150, "distribute": 120})


def idle(options: Options, unit: str, measure: Callable[[int], float], most: Mapping[str, float]) -> Figures:
    """measure is asked with the pid of each daemon's supervisor; most are the goals."""
    with bench(embedded=options.smallest) as servers, engine(servers) as by:
        pids = {"engine": by.daemon.pid, "distribute": by.services.distribute.pid}
        samples = alternate({name: partial(measure, pid) for name, pid in pids.items()}, options.rounds)
    return Figures(unit, samples, goals=[Goal(name, at_most=limit) for name, limit in most.items()])


def open_hosts(options: Options) -> Figures:
    count = options.hosts_or(1000, 5)
    with bench(embedded=options.smallest) as servers, engine(servers, SLOTS=count, RUNNERS=count) as by:
        before = tree_pss_mb(by.daemon.pid)

        def mb_a_host() -> float:
            with by.holding(servers.fleet, count):
                return tree_pss_mb(by.daemon.pid) / count

        samples = alternate({"engine": mb_a_host}, options.rounds)
    note = f"The same engine without a host took {before:.0f} MB in all."
    return Figures("MB a host", samples, goals=[Goal("engine", at_most=2.5)], notes=[note])


MEMORY = "Memory is Pss of /proc/PID/smaps_rollup: what processes share counts once."

SCENARIOS = (
    Scenario(
        "start",
        "an engine's start, to its first claim of a unit that waits",
        "at most 3 s",
        "From the start of its supervisor to the moment when GET /tasks/ID/ says that its task runs.",
        start,
    ),
    Scenario(
        "idle-cpu",
        "CPU of an engine and of a distribute that have nothing to do",
        "at most 1% of a core each",
        "User and system time of the whole trees, distribute's with its dispatcher, over a minute; after a first task.",
        idle_cpu,
    ),
    Scenario(
        "idle-memory",
        "memory of an engine and of a distribute that have nothing to do",
        "at most 150 MB the engine, at most 120 MB distribute with its dispatcher",
        f"The whole trees, after a first task. {MEMORY}",
        idle_memory,
    ),
    Scenario(
        "open-hosts",
        "memory of an engine with 1,000 hosts open at once",
        "at most 2.5 MB a host, runners included",
        f"All of the engine's tree, divided by the hosts. {MEMORY}",
        open_hosts,
    ),
)
