"""What sick hosts cost: the healthy ones beside them, and the engine that waits for them."""

from __future__ import annotations

import math
from functools import partial

from benchmarks.cpu import core_percent
from benchmarks.engines import Engine, engine
from benchmarks.harness import Figures, Goal, Options, Scenario, alternate
from benchmarks.services import bench
from tests.servers.fleet import Fleet

HUNG_SHARE = 0.01
HUNG_SLOTS = 200
TIMEOUT_SECONDS = 60


def spread(count: int, hung: int) -> list[str]:
    """Healthy hosts, and the hung ones among them at equal distances."""
    hosts = Fleet.hosts("healthy", count - hung)
    for number, host in enumerate(Fleet.hosts("hang", hung)):
        hosts.insert(number * (count // hung), host)
    return hosts


def hung_hosts(options: Options) -> Figures:
    count = options.hosts_or(3000, 4)
    timeout = 10 if options.smallest else TIMEOUT_SECONDS
    hung = max(1, round(count * HUNG_SHARE))

    def seconds(by: Engine, hung: int) -> float:
        submit = partial(by.adhoc, spread(count, hung), "raw", "echo hi", timeout=timeout)
        return by.seconds_to_the_last_row(submit, count - hung, timeout=hung)

    with bench(embedded=options.smallest) as servers, engine(servers, SLOTS=HUNG_SLOTS) as by:
        some, none = "1% hang", "none hangs"
        contestants = {none: partial(seconds, by, 0), some: partial(seconds, by, hung)}
        samples = alternate(contestants, options.rounds)
    return Figures("seconds", samples, base=none, goals=[Goal(some, none, at_most=1.1)])


def hung_cost(options: Options) -> Figures:
    count = options.hosts_or(100, 8)
    window = 1 if options.smallest else 60
    units = {"4 units": math.ceil(count / 4), f"{count} units": 1}  # hosts of each
    with bench(embedded=options.smallest) as servers, engine(servers, SLOTS=count, RUNNERS=count) as by:

        def percent(unit_hosts: int) -> float:
            with by.holding(servers.fleet, count, unit_hosts):
                return core_percent(by.daemon.pid, window)

        contestants = {name: partial(percent, hosts) for name, hosts in units.items()}
        samples = alternate(contestants, options.rounds)
    goals = [Goal(name, at_most=most) for name, most in zip(units, (2, 8), strict=True)]
    return Figures("% of a core", samples, goals=goals)


SCENARIOS = (
    Scenario(
        "hung-hosts",
        "3,000 hosts of which 1% hang until their timeout of 60 s: the time until the last healthy result is stored",
        "at most 1.1 of the same with none hanging",
        "From the request to the moment when the last healthy host's row can be read in the database; raw, one engine "
        f"of {HUNG_SLOTS} slots.",
        hung_hosts,
    ),
    Scenario(
        "hung-cost",
        "what an engine takes that waits for 100 hung hosts in 4 units, or in 100 units",
        "at most 2% of a core in 4 units, at most 8% in 100",
        "User and system time of the engine's whole tree, over a minute.",
        hung_cost,
    ),
)
