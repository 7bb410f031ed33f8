"""A mixed load, while everything but the hosts is killed, paused and restarted at random: docs/reliability.md.

pytest tests/acceptance/test_faults.py --fault-seed 7 --fault-seconds 600
"""

from __future__ import annotations

import collections
import itertools
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import sqlalchemy as sa

from contract.states import ENDED_TASKS, FINAL_STATUSES, EngineState, HostStatus, TaskState, UnitState
from contract.tables import engine, host_result, task, unit
from tests.acceptance.faults import Injector, by_kind, draw, former_log
from tests.daemons import BASE_PATH, Backend, Services
from tests.integration.databases import create
from tests.servers.fleet import Fleet
from tests.servers.kafka import KafkaCluster
from tests.servers.mariadb import MariaDB
from tests.servers.process import wait_for

RERUN = True  # a third of the tasks is submitted with on_engine_loss: rerun
RERUN_STARTS = 3  # how often such a task may start on one host
ENGINES = 3
UNIT_HOSTS = 10
HOSTS = {"raw": (90, 110), "shell": (30, 40), "playbook": (50, 70)}  # of a task: a Python module costs most
TURNS = ("raw", "shell", "raw", "playbook")
TASKS = 10  # at least: 640 hosts
ADDRESSES = 2000  # then they come again, in other tasks
TASK_SECONDS = 6.0  # between two submissions
WORK_SECONDS = (0.0, 6.0)
TIMEOUT_SECONDS = 60
CALM_SECONDS = 300.0  # after the last fault, for everything to end and to be well again
ANSWER_SECONDS = 5.0  # the client's patience with one request
SHOWN = 40  # rows in the report of a failure
LOG_CHARACTERS = 100_000_000
OWN_FAULTS = ("uncaught exception", "not heard from for")  # in a log: nothing is paused for as long as a hang takes
UNIT_ENDED = 'msg="unit ended"'
WHOLE_ENGINE = {"supervisor": 1, "consumer": 1, "launcher": 1}  # its processes while nothing runs

PLAYBOOK = """\
- hosts: all
  gather_facts: false
  tasks:
    - {{name: begin, raw: "{begin}"}}
    - {{name: work, raw: "sleep {seconds}"}}
    - {{name: end, raw: "{end}"}}
"""


@dataclass
class Figures:
    """What one run was and how it ended; its JSON is the last line of the output."""

    seed: int
    fault_seconds: float
    faults: dict[str, int]  # by kind
    answers: dict[str, int]  # to the client's requests, by HTTP status or exception
    tasks: int  # accepted
    hosts: int
    by_status: dict[str, int]
    missing: int  # hosts of accepted tasks without a final result: must be 0
    lost: int  # hosts with the status lost: their engine died, and that is what is known
    doubled: int  # hosts on which the command was started more often than allowed: must be 0
    calm_seconds: float  # from the last fault's end until everything had ended and was well
    seconds: float  # from the first submission to then


@dataclass(frozen=True)
class Work:
    """One task of the load. Each start of its command on a host appends a line to file, each end another one."""

    task_id: str
    at: float  # seconds from the beginning
    kind: str  # raw, shell, playbook
    hosts: list[str]
    work_seconds: float
    rerun: bool
    file: Path

    def request(self) -> tuple[str, dict[str, Any]]:
        """Path and body of its submission."""
        body: dict[str, Any] = {"task_id": self.task_id, "task_name": "load", "ips": self.hosts}
        body["timeout"] = TIMEOUT_SECONDS
        if self.rerun:
            body["on_engine_loss"] = "rerun"
        begin, end = (f"echo {word} {self.task_id} {{{{ inventory_hostname }}}} >> {self.file}" for word in WORDS)
        if self.kind == "playbook":
            content = PLAYBOOK.format(begin=begin, end=end, seconds=f"{self.work_seconds:.1f}")
            return "/playbook/", {**body, "playbook_name": "load.yml", "playbook_content": content}
        args = f"{begin}; sleep {self.work_seconds:.1f}; {end}"
        return "/adhoc/", {**body, "module": self.kind, "args": args, "become": False, "template": True}

    def count(self, word: str) -> collections.Counter[str]:
        """Lines by host; word is one of WORDS."""
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        found = (line.split() for line in lines)
        return collections.Counter(host for what, task_id, host in found if (what, task_id) == (word, self.task_id))


WORDS = BEGIN, END = "begin", "end"


class Client:
    """Submits and follows tasks as a client should: whatever is no answer, it asks again, now here and now there."""

    def __init__(self, backend: Backend, distributes: int, seconds: float) -> None:
        ports = [backend.ports[f"engine-{number}"] for number in range(1, distributes + 1)]
        self._addresses = itertools.cycle([f"http://127.0.0.1:{port}{BASE_PATH}" for port in ports])
        self._deadline = time.monotonic() + seconds
        self.answers: collections.Counter[str] = collections.Counter()

    def run(self, work: Work) -> dict[str, Any]:
        """Submit it; once accepted, submit it again; follow it until it has ended. Returns GET /tasks/{id}/ of it."""
        path, body = work.request()
        accepted = self.ask("POST", path, body)
        again = self.ask("POST", path, body)
        assert accepted == again, f"the same submission was answered in two ways: {accepted}, {again}"
        while True:
            found: dict[str, Any] = self.ask("GET", f"/tasks/{work.task_id}/")
            if found["state"] in ENDED_TASKS or time.monotonic() > self._deadline:
                return found
            time.sleep(1.0)

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """The data of the answer with code 200."""
        while True:
            try:
                answer = requests.request(method, next(self._addresses) + path, json=body, timeout=ANSWER_SECONDS)
                said = str(answer.status_code)
                self.answers[said] += 1
                if answer.status_code < 500:
                    assert answer.status_code == 200, f"{method} {path}: {answer.text}"
                    return answer.json()["data"]
            except requests.RequestException as exc:
                said = type(exc).__name__
                self.answers[said] += 1
            if time.monotonic() > self._deadline:
                raise TimeoutError(f"no answer to {method} {path}, the last one was {said}")
            time.sleep(0.3)


class Check:
    """What must be true in the end; problems has a sentence for each thing that is not."""

    def __init__(self, services: Services, works: Sequence[Work]) -> None:
        self._services = services
        self._works = works
        self.problems: list[str] = []
        self.rows: dict[str, list[sa.Row[Any]]] = {work.task_id: [] for work in works}
        self.wrong: set[tuple[str, str]] = set()  # task, host
        self.missing = self.doubled = 0

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Whatever is raised inside is a problem too, and does not keep the others from being found."""
        try:
            yield
        except Exception as exc:  # noqa: BLE001 - it ends up in the report
            self.problems.append(f"{type(exc).__name__}: {exc}")

    def settled(self) -> None:
        """Everything comes to rest: before this has been waited for nothing else is looked at."""
        for distribute in self._services.distributes:
            with self.noting():
                self._services.wait_distribute(distribute)
        self._soon("engines that are not well", self._sick_engines, 90)
        self._soon("processes beyond the daemons' own", self._orphans, 60)
        self._soon("results in a spool", self._spooled, 60)
        self._soon("directories of runners", self._scratch, 30)

    def answers(self, answers: collections.Counter[str]) -> None:
        """A part that is away is a 503, or no answer at all; 500 is a fault of the program."""
        if answers["500"]:
            self.problems.append(f"{answers['500']} requests were answered with 500")

    def logs(self) -> None:
        """What went wrong and was mended by a restart: it cost units that nobody had injected a fault into."""
        for daemon in (*self._services.distributes, *self._services.engines):
            lines = (former_log(daemon) + daemon.log(LOG_CHARACTERS)).splitlines()
            self.problems += [f"{daemon.name}: {line}" for line in lines if any(words in line for words in OWN_FAULTS)]
            ended = collections.Counter(line.split(" unit=")[1].split()[0] for line in lines if UNIT_ENDED in line)
            often = {number: count for number, count in ended.items() if count > RERUN_STARTS}
            if often:
                self.problems.append(f"{daemon.name}: units ended more often than they can start, by id: {often}")

    def results(self) -> None:
        query = (
            sa.select(task.c.id.label("task_id"), host_result, unit.c.number, unit.c.incarnation)
            .join(task, task.c.key == host_result.c.task_key)
            .join(unit, unit.c.id == host_result.c.unit_id)
            .order_by(host_result.c.id)
        )
        for row in self._services.database.read(lambda connection: connection.execute(query).all()):
            self.rows.setdefault(row.task_id, []).append(row)
        if strangers := self.rows.keys() - {work.task_id for work in self._works}:
            self.problems.append(f"tasks that nobody has submitted: {sorted(strangers)}")
        for work in self._works:
            with self.noting():
                self._of_task(work)
        states = sa.select(unit.c.state, sa.func.count()).group_by(unit.c.state)
        by_state = self._services.database.read(lambda connection: dict(map(tuple, connection.execute(states))))
        if by_state.keys() != {UnitState.FINISHED}:
            self.problems.append(f"units by state: {by_state}")

    def by_status(self) -> dict[str, int]:
        return dict(collections.Counter(row.status for rows in self.rows.values() for row in rows).most_common())

    def _of_task(self, work: Work) -> None:
        rows = self.rows[work.task_id]
        found = self._services.task(work.task_id)
        if found["state"] != TaskState.FINISHED:
            self.problems.append(f"{work.task_id} has not finished: {found}")
        counts = {status: number for status, number in found["counts"].items() if number}
        if counts != collections.Counter(row.status for row in rows):
            self.problems.append(f"{work.task_id}: GET /tasks/ counts {counts}, and the rows say another thing")
        if collections.Counter(row.host for row in rows) != collections.Counter(work.hosts):
            self.problems.append(f"{work.task_id} has {len(rows)} rows for {len(work.hosts)} hosts")
        begun, ended = work.count(BEGIN), work.count(END)
        self.missing += len(set(work.hosts) - {row.host for row in rows if row.status in FINAL_STATUSES})
        for row in rows:
            if row.status not in FINAL_STATUSES:
                self._blame(work, row.host, f"is {row.status}")
            elif row.status == HostStatus.SUCCESS and not (begun[row.host] and ended[row.host]):
                self._blame(work, row.host, f"is {row.status}, and has begun {begun[row.host]} times")
            elif row.status != HostStatus.SUCCESS and not (row.msg or row.blame):
                self._blame(work, row.host, f"is {row.status} without a reason")
            elif row.status in (HostStatus.FAILED, HostStatus.HELD):
                self._blame(work, row.host, f"is {row.status}: its commands cannot fail")
        for host in begun | ended:
            if max(begun[host], ended[host]) > (RERUN_STARTS if work.rerun else 1):
                self.doubled += 1
                self._blame(work, host, f"has begun {begun[host]} times, and ended {ended[host]} times")

    def _blame(self, work: Work, host: str, what: str) -> None:
        self.wrong.add((work.task_id, host))
        self.problems.append(f"{work.task_id} on {host} {what}")

    def _soon(self, what: str, found: Callable[[], object], seconds: float) -> None:
        with self.noting():
            try:
                wait_for(f"no {what}", lambda: not found(), seconds)
            except TimeoutError:
                self.problems.append(f"{what} after {seconds:.0f} s: {found()}")

    def _sick_engines(self) -> list[dict[str, Any]]:
        engines = self._services.api("/engines/")["data"]
        well = {"state": EngineState.LIVE, "missing": None}
        sick = [one for one in engines if {**one, **well} != one or one["free_slots"] != one["slots"]]
        return sick or ([] if len(engines) == ENGINES else engines)

    def _orphans(self) -> list[str]:
        """Of each engine daemon what is not, once each, its own; what is missing is named too."""
        wrong = []
        for daemon in self._services.engines:
            titles = [title.strip() for title in daemon.processes().values()]
            found = collections.Counter(title.removeprefix("execute-engine: ") for title in titles)
            if found != WHOLE_ENGINE:
                wrong.append(f"{daemon.name}: {dict(found)}")
        return wrong

    def _spooled(self) -> list[str]:
        return [str(file) for file in self._services.backend.directory.glob("engine-*/state/**/*.spool")]

    def _scratch(self) -> list[str]:
        query = sa.select(engine.c.incarnation)
        incarnations = self._services.database.read(lambda connection: connection.scalars(query).all())
        left = (Path("/tmp").glob(f"execute-engine-runner-{name}-*") for name in incarnations)
        return [str(path) for path in itertools.chain.from_iterable(left)]


@pytest.fixture
def own_mariadb(server_directory: Path) -> Iterator[MariaDB]:
    server = MariaDB(_open(server_directory, "m"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_kafka(server_directory: Path) -> Iterator[KafkaCluster]:
    cluster = KafkaCluster(_open(server_directory, "k"))
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture
def share(server_directory: Path) -> Path:
    """Where the hosts may write."""
    share = _open(server_directory, "share")
    share.chmod(0o777)
    return share


def _open(directory: Path, name: str) -> Path:
    directory.chmod(0o755)
    (directory / name).mkdir()
    return directory / name


@pytest.fixture
def cluster(
    own_mariadb: MariaDB, own_kafka: KafkaCluster, fleet: Fleet, tmp_path: Path, topic: str
) -> Iterator[Services]:
    """Two distributes and three engines."""
    backend = Backend("cluster", tmp_path, topic, create(own_mariadb), own_kafka.bootstrap, fleet)
    services = Services(backend)
    try:
        services.start(ENGINES, distributes=2, Exec_Engine={"SLOTS": 4 * UNIT_HOSTS, "NUMBER": UNIT_HOSTS})
        yield services
    finally:
        services.stop()


def draw_load(seed: int, seconds: float, fleet: Fleet, share: Path) -> list[Work]:
    chance = random.Random(seed)
    count = max(TASKS, int(seconds / TASK_SECONDS))
    hosts = itertools.cycle(fleet.hosts("healthy", ADDRESSES))
    works = []
    for number in range(count):
        kind = TURNS[number % len(TURNS)]
        works.append(
            Work(
                task_id=f"load-{number}",
                at=number * seconds / count,
                kind=kind,
                hosts=list(itertools.islice(hosts, chance.randint(*HOSTS[kind]))),
                work_seconds=chance.uniform(*WORK_SECONDS),
                rerun=RERUN and number % 3 == 2,
                file=share / f"load-{number}",
            )
        )
    return works


def test_what_was_accepted_ends_and_nothing_starts_twice_whatever_dies(
    cluster: Services,
    own_mariadb: MariaDB,
    own_kafka: KafkaCluster,
    fleet: Fleet,
    share: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seed, fault_seconds = request.config.getoption("fault_seed"), request.config.getoption("fault_seconds")
    faults = draw(seed, fault_seconds)
    works = draw_load(seed, fault_seconds, fleet, share)
    injector = Injector(cluster, own_mariadb, own_kafka)
    client = Client(cluster.backend, 2, fault_seconds + CALM_SECONDS)

    check = Check(cluster, works)
    began = time.monotonic()
    with ThreadPoolExecutor(len(works) + 1) as pool:
        faulty = pool.submit(injector.run, faults)
        ends: list[Future[dict[str, Any]]] = []
        for work in works:
            time.sleep(max(0.0, began + work.at - time.monotonic()))
            ends.append(pool.submit(client.run, work))
        with check.noting():
            faulty.result()
        calm = time.monotonic()
        for end in ends:
            with check.noting():
                end.result()
    check.settled()
    seconds = time.monotonic() - began
    check.answers(client.answers)
    check.logs()
    with check.noting():
        check.results()

    figures = Figures(
        seed=seed,
        fault_seconds=fault_seconds,
        faults=by_kind(injector.injected),
        answers=dict(client.answers),
        tasks=len(works),
        hosts=sum(len(work.hosts) for work in works),
        by_status=check.by_status(),
        missing=check.missing,
        lost=check.by_status().get(HostStatus.LOST, 0),
        doubled=check.doubled,
        calm_seconds=round(began + seconds - calm, 1),
        seconds=round(seconds, 1),
    )
    with capsys.disabled():
        print(f"\nseed {seed}, {fault_seconds:g} s of faults:")
        print("".join(f"    {kind:<20} {count:>4}\n" for kind, count in figures.faults.items()), end="")
        print(json.dumps(asdict(figures)))
    if check.problems:
        print(report(check, injector, cluster))
    assert not check.problems, f"seed {seed}: {check.problems[:SHOWN]}"


def report(check: Check, injector: Injector, services: Services) -> str:
    daemons = [*services.distributes, *services.engines]
    rows = [row for rows in check.rows.values() for row in rows if (row.task_id, row.host) in check.wrong]
    parts = {
        "problems": check.problems[:SHOWN],
        "faults": [str(one) for one in sorted(injector.injected, key=lambda one: one.began)],
        f"wrong rows, {SHOWN} of {len(rows)}": [str(row._asdict()) for row in rows[:SHOWN]],
        "the ends of former logs": [f"--- {daemon.log_file}\n{former_log(daemon)[-6000:]}" for daemon in daemons],
        "the ends of the logs": [services.logs()],
    }
    return "\n".join(f"=== {title}\n" + "\n".join(lines) for title, lines in parts.items())
