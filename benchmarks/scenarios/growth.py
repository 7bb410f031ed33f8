"""What grows with the number of hosts: rows to write, rows to look among, rows to send."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import requests
import sqlalchemy as sa

from benchmarks.harness import Figures, Goal, Options, Scenario, alternate, say
from benchmarks.services import Bench, bench
from contract.database import Database, now
from contract.states import HostStatus, UnitState
from contract.tables import host_result, unit
from distribute.store.submission import NewTask, submit
from execute_engine import results
from execute_engine.outbox import MAX_ROWS
from execute_engine.unit import HostRow
from tests.daemons import Services

UNIT_HOSTS = 30
PAGE_HOSTS = 100
ENGINE, INSERTS = "the engine's writer", "one executemany of INSERTs"
LOOKS = 20  # a round: single requests are too short to be compared
OPTIONS: dict[str, object] = {
    "become": None, "check": False, "template": False, "parallel": 0, "unit_hosts": UNIT_HOSTS,
    "args_are_json": False, "strategies": [],
}  # fmt: skip
ENDED = {"state": UnitState.FINISHED, "success": unit.c.host_count}
OUTPUT = "a line of output such as many commands print, and a bit more of it\n"


@dataclass(frozen=True)
class Table:
    """Tasks that stand in a database, without services."""

    database: Database

    def task(self, name: str, hosts: int) -> int:
        """Submit it; the task's key."""
        names = tuple(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}" for number in range(hosts))
        new = NewTask(name, name, "adhoc", 60, OPTIONS, [], "", names, UNIT_HOSTS, "", module="shell", args="echo hi")
        return int(self.database.write(lambda connection: submit(connection, new)).row.key)

    def rows(self, key: int) -> list[HostRow]:
        """A result for each of its hosts."""
        query = sa.select(host_result.c.id, host_result.c.unit_id).where(host_result.c.task_key == key)
        found = self.database.read(lambda connection: connection.execute(query.order_by(host_result.c.id)).all())
        at = now().isoformat(sep=" ")
        done = {"rc": 0, "changed": 1, "stdout": OUTPUT, "stderr": "", "tasks_ok": 1, "tasks_total": 1, "detail": "{}"}
        times = {"started_at": at, "finished_at": at}
        return [
            HostRow(row.id, row.unit_id, 1, str(HostStatus.SUCCESS), "engine-1", **done, **times)  # type: ignore[arg-type]
            for row in found
        ]

    def end(self, key: int) -> None:
        """All hosts of the task have succeeded."""
        of_task = sa.update(unit).where(unit.c.task_key == key).values(ENDED)
        done = sa.update(host_result).where(host_result.c.task_key == key)
        values = {"status": HostStatus.SUCCESS, "stdout": OUTPUT, "rc": 0, "detail": {}, "finished_at": now()}
        self.database.write(lambda connection: (connection.execute(of_task), connection.execute(done.values(values))))


@contextlib.contextmanager
def table(servers: Bench) -> Iterator[Table]:
    database = Database(servers.database("rows"), answer_timeout_seconds=600)
    try:
        yield Table(database)
    finally:
        database.close()


def results_stored(options: Options) -> Figures:
    hosts = options.hosts_or(100_000, 100)
    with bench(embedded=options.smallest) as servers, table(servers) as rows:
        turns = iter(range(2 * options.rounds))
        contestants = {
            ENGINE: partial(_by_engine, rows, turns, hosts),
            INSERTS: partial(_by_inserts, rows, turns, hosts),
        }
        samples = alternate(contestants, options.rounds)
    return Figures("seconds", samples, goals=[Goal(ENGINE, INSERTS, at_most=2)])


def _by_engine(to: Table, turns: Iterator[int], hosts: int) -> float:
    key, incarnation = to.task(f"t{next(turns)}", hosts), "e" * 32
    running = sa.update(unit).where(unit.c.task_key == key)
    values = {"state": UnitState.RUNNING, "incarnation": incarnation, "begun_at": now()}
    to.database.write(lambda connection: connection.execute(running.values(values)))
    rows = to.rows(key)
    began = time.monotonic()
    for start in range(0, hosts, MAX_ROWS):
        results.store(to.database, incarnation, rows[start : start + MAX_ROWS])
    return time.monotonic() - began


def _by_inserts(to: Table, turns: Iterator[int], hosts: int) -> float:
    key = to.task(f"t{next(turns)}", hosts)
    rows = [{**vars(row), "task_key": key, "detail": {}} for row in to.rows(key)]
    for row in rows:
        row |= {"host": f"of-{row.pop('id')}", "started_at": now(), "finished_at": now()}
    began = time.monotonic()
    to.database.write(lambda connection: connection.execute(sa.insert(host_result), rows))
    return time.monotonic() - began


def pages(options: Options) -> Figures:
    tasks, hosts = (2, 100) if options.smallest else (10, 100_000)
    with bench(embedded=options.smallest) as servers, servers.services(engines=0) as services:
        rows = Table(Database(services.backend.database_settings, answer_timeout_seconds=600))
        for number in range(tasks):
            rows.end(rows.task(f"t{number}", hosts))
            say(f"rows: {(number + 1) * hosts}")
        rows.database.close()
        middle = _cursor(services, "t1", hosts // 2)
        contestants = {
            "progress of a task": _look(services, "/tasks/t1/"),
            f"a page of {PAGE_HOSTS} hosts": _look(services, f"/tasks/t1/hosts/?limit={PAGE_HOSTS}{middle}"),
        }
        samples = alternate(contestants, options.rounds)
    return Figures("milliseconds", samples, goals=[Goal(name, at_most=20) for name in contestants])


def _cursor(services: Services, task_id: str, after: int) -> str:
    """For the query of the page behind so many hosts."""
    cursor, seen = "", 0
    while seen < after:
        limit = min(1000, after - seen)
        cursor = f"&cursor={services.api(f'/tasks/{task_id}/hosts/?limit={limit}{cursor}')['cursor']}"
        seen += limit
    return cursor


def _look(services: Services, path: str) -> Callable[[], float]:
    """Milliseconds of one GET, the median of LOOKS over a connection that stands."""
    session = requests.Session()

    def look() -> float:
        times = []
        for _ in range(LOOKS):
            began = time.monotonic()
            answer = session.get(services.url(path), timeout=60)
            times.append(1000 * (time.monotonic() - began))
            answer.raise_for_status()
        return sorted(times)[LOOKS // 2]

    return look


def stream(options: Options) -> Figures:
    hosts = options.hosts_or(100_000, 100)
    grown = []
    with (
        bench(embedded=options.smallest) as servers,
        servers.services(engines=0, Distribute={"WORKERS": 1}) as services,
    ):
        rows = Table(Database(services.backend.database_settings, answer_timeout_seconds=600))
        rows.end(rows.task("t1", hosts))
        rows.database.close()
        _read(services, "/tasks/t1/hosts/?limit=10", 10)  # what the first request of a worker loads
        workers = list(services.processes("distribute: web"))
        for _ in range(options.rounds):
            before = _resident_mb(workers)
            for worker in workers:
                Path(f"/proc/{worker}/clear_refs").write_text("5")  # the peak begins anew
            _read(services, "/adhoc/?task_id=t1", hosts)
            grown.append(max(0.0, _resident_mb(workers, "VmHWM") - before))
            say(f"grown by {grown[-1]:.1f} MB")
    return Figures("MB", {"web worker, growth": grown}, goals=[Goal("web worker, growth", at_most=50)])


def _read(services: Services, path: str, hosts: int) -> None:
    """Throw the answer away as it comes. Raises RuntimeError when it does not have so many hosts."""
    found = 0
    with requests.get(services.url(path), stream=True, timeout=600) as answer:
        tail = b""
        for chunk in answer.iter_content(1 << 16):
            found += (tail + chunk).count(b'"ip"')
            tail = chunk[-3:]
    if found != hosts:
        raise RuntimeError(f"expected {hosts} hosts in the answer to {path}, found {found}")


def _resident_mb(pids: Sequence[int], what: str = "VmRSS") -> float:
    lines = (line for pid in pids for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return sum(int(line.split()[1]) for line in lines if line.startswith(f"{what}:")) / 1000


SCENARIOS = (
    Scenario(
        "results",
        "100,000 results into MariaDB",
        "at most 2 times what one plain executemany of INSERTs in one transaction takes",
        "The engine's own writer, in its batches, each a transaction; wall time of both, from Python's rows on.",
        results_stored,
    ),
    Scenario(
        "pages",
        "GET of a task's progress and of a page of 100 hosts, among 1,000,000 host rows",
        "at most 20 ms each",
        f"Wall time of one request over a standing connection, the median of {LOOKS}; the page is the task's middle.",
        pages,
    ),
    Scenario(
        "stream",
        "GET /adhoc/?task_id= of 100,000 hosts",
        "the web worker's memory grows by at most 50 MB",
        "The highest resident memory of distribute's web processes during the answer, less that before it.",
        stream,
    ),
)
