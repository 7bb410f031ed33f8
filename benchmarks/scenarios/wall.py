"""How long somebody waits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from benchmarks.commands import Commands
from benchmarks.engines import engine
from benchmarks.harness import Figures, Goal, Options, Scenario, alternate
from benchmarks.services import bench
from tests.servers.fleet import Fleet

MODULES = {"shell": 0.8, "raw": 0.6}  # module -> its goal
TEXT = "echo hi"


def wall(options: Options) -> Figures:
    hosts = Fleet.hosts("healthy", options.hosts_or(30, 2))
    contestants: dict[str, Callable[[], float]] = {}
    goals = []
    with bench(embedded=options.smallest) as servers, engine(servers, SLOTS=120) as by:
        commands = Commands(servers.fleet, servers.directory, hosts)
        for module, goal in MODULES.items():
            submit = partial(by.adhoc, hosts, module, TEXT)
            contestants[f"{module}: engine"] = partial(by.seconds_to_the_last_row, submit, len(hosts))
            contestants[f"{module}: ansible, tuned"] = commands.ansible(module, TEXT, tuned=True).wall_seconds
            goals.append(Goal(f"{module}: engine", f"{module}: ansible, tuned", at_most=goal))
        return Figures("seconds", alternate(contestants, options.rounds), goals=goals)


SCENARIOS = (
    Scenario(
        "wall",
        "wall time of shell and raw on 30 hosts, the engine idle before",
        "shell at most 0.8, raw at most 0.6 of the tuned ansible command's",
        "From the request to the moment when the last host's row can be read in the database; from the command's start "
        "to its end. Most of shell's is Python on the hosts, which share this machine.",
        wall,
    ),
)
