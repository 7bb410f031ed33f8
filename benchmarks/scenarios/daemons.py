"""What the daemons take for themselves."""

from __future__ import annotations

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


def idle(options: Options) -> Figures:
    window = 1 if options.smallest else 60
    with bench(embedded=options.smallest) as servers, engine(servers) as by:
        samples = alternate(
            {
                "engine, % of a core": partial(core_percent, by.daemon.pid, window),
                "distribute, % of a core": partial(core_percent, by.services.distribute.pid, window),
                "engine, MB": partial(tree_pss_mb, by.daemon.pid),
                "distribute, MB": partial(tree_pss_mb, by.services.distribute.pid),
            },
            options.rounds,
        )
    limits = {"engine, % of a core": 1, "distribute, % of a core": 1, "engine, MB": 150, "distribute, MB": 120}
    goals = [Goal(name, at_most=most) for name, most in limits.items()]
    return Figures("% of a core, MB", samples, goals=goals)


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


MEMORY = "Memory is Pss of /proc/PID/smaps_rollup: what processes share counts once. "

SCENARIOS = (
    Scenario(
        "start",
        "an engine's start, to its first claim of a unit that waits",
        "at most 3 s",
        "From the start of its supervisor to the moment when GET /tasks/ID/ says that its task runs.",
        start,
    ),
    Scenario(
        "idle",
        "CPU and memory of an engine and of a distribute that have nothing to do",
        "at most 1% of a core each; at most 150 MB the engine, at most 120 MB distribute with its dispatcher",
        f"The whole trees, after a first task; CPU over a minute. {MEMORY}",
        idle,
    ),
    Scenario(
        "open-hosts",
        "memory of an engine with 1,000 hosts open at once",
        "at most 2.5 MB a host, runners included",
        f"All of the engine's tree, divided by the hosts. {MEMORY}",
        open_hosts,
    ),
)
