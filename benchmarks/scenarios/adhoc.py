"""Controller CPU of ad hoc tasks, end to end."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.commands import Commands
from benchmarks.engines import Engine, engine
from benchmarks.harness import Figures, Goal, Options, Scenario, alternate
from benchmarks.services import bench
from tests.servers.fleet import Fleet

COUNTED = (
    "User and system time of every process, read from the kernel: the engine's supervisor, consumer, launcher, guards "
    "and runners; the command with its workers, ssh clients and their masters. Not counted: distribute, the database, "
    "Kafka, the hosts."
)
MODULES = {"shell": "echo hi", "command": "echo hi", "ping": "", "stat": "path=/etc/hostname"}
LOGINS = ("key", "password")


def adhoc_cpu(options: Options) -> Figures:
    hosts = Fleet.hosts("healthy", options.hosts_or(120, 2))
    modules = ["ping"] if options.smallest else list(MODULES)
    contestants: dict[str, Callable[[], float]] = {}
    goals = []
    with (
        bench(embedded=options.smallest) as servers,
        engine(servers, "key", SLOTS=120) as by_key,
        engine(servers, "password", SLOTS=120) as by_password,
    ):
        commands = Commands(servers.fleet, servers.directory, hosts)
        for module in modules:
            args = MODULES[module]
            contestants |= {
                f"{module}: engine, key": engine_ms(by_key, hosts, module, args),
                f"{module}: engine, password": engine_ms(by_password, hosts, module, args),
                f"{module}: ansible": commands.ansible(module, args, tuned=False).cpu_ms_a_host,
                f"{module}: ansible, tuned": commands.ansible(module, args, tuned=True).cpu_ms_a_host,
            }
            for login in LOGINS:
                goals.append(Goal(f"{module}: engine, {login}", f"{module}: ansible", at_most=0.07))
                goals.append(Goal(f"{module}: engine, {login}", f"{module}: ansible, tuned", at_most=0.15))
        return Figures("CPU ms a host", alternate(contestants, options.rounds), goals=goals)


def engine_ms(by: Engine, hosts: Sequence[str], module: str, args: str) -> Callable[[], float]:
    def measure() -> float:
        with by.metered() as spent:
            by.adhoc(hosts, module, args)
        return 1000 * spent[0] / len(hosts)

    return measure


SCENARIOS = (
    Scenario(
        "adhoc-cpu",
        "controller CPU a host of shell, command, ping and stat on 120 hosts",
        "at most 0.07 of the ansible command's, at most 0.15 of the tuned one's, with a key and with a password",
        COUNTED,
        adhoc_cpu,
    ),
)
