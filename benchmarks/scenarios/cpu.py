"""Controller CPU a host, end to end: the engine against commands that do the same."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from benchmarks.commands import Command, Commands
from benchmarks.cpu import tree_cpu_seconds
from benchmarks.engines import Engine, engine
from benchmarks.harness import Figures, Goal, Options, Samples, Scenario, alternate
from benchmarks.services import Bench, bench
from tests.servers.fleet import Fleet

COUNTED = (
    "User and system time of every process, read from the kernel: the engine's supervisor, consumer, launcher, guards "
    "and runners; the command with its workers, ssh clients and their masters. Not counted: distribute, the database, "
    "Kafka. The hosts' own is told apart."
)
UNIT = "CPU ms a host"
MODULES = {"shell": "echo hi", "command": "echo hi", "ping": "", "stat": "path=/etc/hostname"}
PLAYBOOK = Path(__file__).parent.parent / "five_tasks.yml"
GREETING = b"hello {{ inventory_hostname }}\n" + b"# and so much that it is a file as others are\n" * 50


class Contest:
    """Contestants of one run on the same hosts, and what the hosts took for each of them."""

    def __init__(self, servers: Bench, hosts: int) -> None:
        self.hosts = Fleet.hosts("healthy", hosts)
        self.commands = Commands(servers.fleet, servers.directory, self.hosts)
        self._fleet = servers.fleet.process
        self._contestants: dict[str, Callable[[], float]] = {}
        self._apart: Samples = {}

    def engine(self, name: str, by: Engine, submit: Callable[[], str]) -> None:
        """submit gives the engine a task on all hosts, and returns its id."""
        self._add(name, lambda: by.cpu_ms_a_host(submit, len(self.hosts)))

    def command(self, name: str, make: Callable[[], Command]) -> None:
        """make says what to run, anew for each run."""
        self._add(name, lambda: make().cpu_ms_a_host())

    def figures(self, rounds: int, goals: Sequence[Goal], base: str = "") -> Figures:
        return Figures(UNIT, alternate(self._contestants, rounds), base, goals, self._apart)

    def _add(self, name: str, measure: Callable[[], float]) -> None:
        def measure_both() -> float:
            before = tree_cpu_seconds(self._fleet.pid)
            found = measure()
            seconds = tree_cpu_seconds(self._fleet.pid) - before
            self._apart.setdefault(name, []).append(1000 * seconds / len(self.hosts))
            return found

        self._contestants[name] = measure_both


def adhoc_cpu(options: Options) -> Figures:
    goals = []
    with (
        bench(embedded=options.smallest) as servers,
        engine(servers, "key", SLOTS=120) as by_key,
        engine(servers, "password", SLOTS=120) as by_password,
    ):
        contest = Contest(servers, options.hosts_or(120, 2))
        for module in ["ping"] if options.smallest else MODULES:
            args = MODULES[module]
            plain, tuned = f"{module}: ansible", f"{module}: ansible, tuned"
            for login, by in (("key", by_key), ("password", by_password)):
                name = f"{module}: engine, {login}"
                contest.engine(name, by, partial(by.adhoc, contest.hosts, module, args))
                goals += [Goal(name, plain, at_most=0.07), Goal(name, tuned, at_most=0.15)]
            contest.command(plain, partial(contest.commands.ansible, module, args))
            contest.command(tuned, partial(contest.commands.ansible, module, args, tuned=True))
        return contest.figures(options.rounds, goals)


def raw(options: Options) -> Figures:
    text = "echo hi"
    with bench(embedded=options.smallest) as servers, engine(servers, SLOTS=120) as by:
        contest = Contest(servers, options.hosts_or(120, 2))
        commands = contest.commands
        contest.engine("engine", by, partial(by.adhoc, contest.hosts, "raw", text))
        contest.command("clush", partial(commands.clush, text))
        contest.command("clush, tuned", partial(commands.clush, text, tuned=True))
        contest.command("parallel-ssh", partial(commands.parallel_ssh, text))
        if commands.has_pssh:
            contest.command("pssh", partial(commands.pssh, text))
            contest.command("pssh, tuned", partial(commands.pssh, text, tuned=True))
        contest.command("ansible, tuned", partial(commands.ansible, "raw", text, tuned=True))
        return contest.figures(options.rounds, [Goal("engine", "clush", at_most=0.8)], base="clush")


def copy_template(options: Options) -> Figures:
    """The engine takes the file out of a project that distribute has cloned, the command out of a folder."""
    runs = itertools.count(1)
    goals = []
    with (
        bench(embedded=options.smallest) as servers,
        servers.git_project("bench", "greetings", {"greeting.j2": GREETING}) as gitlab,
        engine(servers, SLOTS=120, gitlab=gitlab) as by,
    ):
        by.clone("greetings")
        source = servers.directory / "greeting.j2"
        source.write_bytes(GREETING)
        contest = Contest(servers, options.hosts_or(60, 2))

        def args(file: str | Path) -> str:
            """A new file on each host: the hosts have one disk."""
            return f"src={file} dest=/home/ee-ops/{next(runs)}-{{{{ inventory_hostname }}}}"

        def submit(module: str) -> str:
            return by.adhoc(contest.hosts, module, args("greetings/greeting.j2"), template=True)

        def command(module: str, *, tuned: bool = False) -> Command:
            return contest.commands.ansible(module, args(source), tuned=tuned)

        for module in ("copy", "template"):
            contest.engine(f"{module}: engine", by, partial(submit, module))
            contest.command(f"{module}: ansible", partial(command, module))
            contest.command(f"{module}: ansible, tuned", partial(command, module, tuned=True))
            goals.append(Goal(f"{module}: engine", f"{module}: ansible", at_most=0.15))
        return contest.figures(options.rounds, goals)


def playbook(options: Options) -> Figures:
    content = PLAYBOOK.read_text()
    with bench(embedded=options.smallest) as servers, engine(servers, SLOTS=120) as by:
        contest = Contest(servers, options.hosts_or(30, 2))
        contest.engine("engine", by, partial(by.playbook, contest.hosts, content))
        contest.command("ansible-playbook", partial(contest.commands.playbook, PLAYBOOK))
        contest.command("ansible-playbook, tuned", partial(contest.commands.playbook, PLAYBOOK, tuned=True))
        goals = [
            Goal("engine", "ansible-playbook", at_most=0.15),
            Goal("engine", "ansible-playbook, tuned", at_most=0.3),
        ]
        return contest.figures(options.rounds, goals)


SCENARIOS = (
    Scenario(
        "adhoc-cpu",
        "controller CPU a host of shell, command, ping and stat on 120 hosts",
        "at most 0.07 of the ansible command's, at most 0.15 of the tuned one's, with a key and with a password",
        COUNTED,
        adhoc_cpu,
    ),
    Scenario(
        "raw",
        "controller CPU a host of a raw command on 120 hosts",
        "at most 0.8 of clush's",
        COUNTED,
        raw,
    ),
    Scenario(
        "copy-template",
        "controller CPU a host of copy and template, one file to 60 hosts",
        "at most 0.15 of the ansible command's",
        COUNTED,
        copy_template,
    ),
    Scenario(
        "playbook",
        "controller CPU a host of a playbook of 5 tasks on 30 hosts",
        "at most 0.15 of ansible-playbook's, at most 0.3 of the tuned one's",
        COUNTED,
        playbook,
    ),
)
