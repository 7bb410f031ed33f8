"""How many units a second dispatcher, Kafka, database and beats carry with 100 engines without ssh; all else is real.

    .venv/bin/python -m benchmarks simulation
    .venv/bin/python -m benchmarks.scenarios.simulation [--engines 100] [--units 6000] [--profile DIRECTORY]

Its own MariaDB and Kafka, distribute as a service, and the engines' consumers as processes of one harness, whose
runners answer after a random time (benchmarks/simulated_engines.py). Counted are the units that ended between a tenth
and nine tenths of the load, and the processor time of each part meanwhile; statements are the server's own counters.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from kafka.admin import KafkaAdminClient
from kafka.errors import RetriableError

from benchmarks.harness import ROOT, Figures, Goal, Options, Scenario, say
from contract.config import DatabaseSettings
from contract.database import Database
from contract.migrations import upgrade
from tests.daemons import Backend, Services
from tests.servers.kafka import KafkaCluster
from tests.servers.mariadb import PASSWORD, USER, MariaDB
from tests.servers.process import Process, wait_for

UNIT_HOSTS = 30
TASK_HOSTS = 60_000
TICKS = os.sysconf("SC_CLK_TCK")
DATABASE = "ee_simulation"
TOPIC = "units"
IDLE_SECONDS = 10.0
PATIENCE_SECONDS = 900.0
REBALANCE_DELAY_MS = 10_000  # all engines start at once
COUNTERS = ("Questions", "Com_select", "Com_update", "Com_insert", "Com_commit", "Com_rollback", "Innodb_os_log_fsyncs",
            "Innodb_rows_read", "Innodb_row_lock_waits", "Innodb_row_lock_time")  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """What was so at one moment: counters that only grow; seconds of processor time by part."""

    at: float
    units: int
    cpu: dict[str, float]
    status: dict[str, int]


class Simulation:
    """Everything up; cleaned up by whoever entered running()."""

    def __init__(self, directory: Path, options: argparse.Namespace) -> None:
        self._options = options
        self.mariadb = MariaDB(_made(directory / "db"))
        self.kafka = KafkaCluster(_made(directory / "kafka"), rebalance_delay_ms=REBALANCE_DELAY_MS)
        with ThreadPoolExecutor() as pool:
            server_options = ("--innodb-buffer-pool-size=1G", "--max-connections=1000")
            for started in (pool.submit(self.mariadb.start, *server_options), pool.submit(self.kafka.start)):
                started.result()
        self.mariadb.sql(f"CREATE DATABASE {DATABASE}")
        settings = DatabaseSettings(
            ip="127.0.0.1", port=self.mariadb.port, database=DATABASE, user=USER, password=PASSWORD
        )
        database = Database(settings)
        upgrade(database)
        database.close()
        backend = Backend("cluster", directory, TOPIC, settings, self.kafka.bootstrap)
        config = backend.config_file(
            "simulated",
            Kafka_Cluster={"PARTITIONS": options.partitions or options.engines},
            Exec_Engine={"SLOTS": options.slots, "LEASE_SECONDS": 30, "NUMBER": UNIT_HOSTS},
        )
        self._admin = KafkaAdminClient(bootstrap_servers=self.kafka.bootstrap)
        self.services = Services(backend)
        self.distribute = self.services.start_distribute(config)
        self.engines = Process(directory, "engines")
        command = [sys.executable, "-m", "benchmarks.simulated_engines", "--config", str(config)]
        command += ["--engines", str(options.engines), "--seconds", str(options.seconds)]
        command += ["--profile", str(options.profile)] if options.profile else []
        self.engines.start(command, {**os.environ, "PYTHONPATH": str(ROOT)})
        wait_for("the engines", lambda: self._count("engine", "state = 'live'") == options.engines)

    def idle(self) -> tuple[Sample, Sample]:
        """What the engines cost that wait for work, when the group has its partitions."""
        wait_for("the consumer group", self._is_stable, 300)
        say("all partitions are assigned")
        return self._sample(0), self._sample(1, time.monotonic() + IDLE_SECONDS)

    def _is_stable(self) -> bool:
        try:
            (group,) = self._admin.describe_groups([TOPIC]).values()
        except RetriableError as exc:  # the broker is about to make the topic that holds the groups
            say(f"group: {exc}")
            return False
        finally:
            time.sleep(3)
        say(f"group: {group['group_state']}, members: {len(group['members'])}")
        return bool(group["group_state"] == "Stable" and len(group["members"]) == self._options.engines)

    def measure(self) -> tuple[Sample, Sample]:
        """Submit the load, and the samples at a tenth of it and at the end of the window."""
        units = self._options.units
        for start in range(0, units * UNIT_HOSTS, TASK_HOSTS):
            hosts = range(start, min(start + TASK_HOSTS, units * UNIT_HOSTS))
            names = [f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in hosts]
            self.services.submit_adhoc(names)
        say("all is submitted")
        first = self._sample(units // 10)
        return first, self._sample(units - units // 10, time.monotonic() + self._options.window)

    def stored(self) -> Iterator[str]:
        """What the load has left on disk: rows with their indexes, a message with what Kafka adds to it."""
        for table in ("host_result", "unit"):
            self.mariadb.sql(f"ANALYZE TABLE {DATABASE}.{table}")
            size = self.mariadb.sql(
                "SELECT data_length + index_length FROM information_schema.tables"
                f" WHERE table_schema = '{DATABASE}' AND table_name = '{table}'"
            )
            yield f"{table}: {int(size) / self._count(table, 'true'):.0f} bytes a row"
        log = sum(part.stat().st_size for part in self.kafka.directory.glob(f"data-1/{TOPIC}-*/*.log"))
        yield f"Kafka: {log / self._count('unit', 'published_at IS NOT NULL'):.0f} bytes a message"

    def stop(self) -> None:
        self.engines.stop()
        self.services.stop()
        self.kafka.stop()
        self.mariadb.stop()

    def problems(self) -> list[str]:
        """What the engines and distribute have warned of."""
        logs = self.engines.log_file.read_text() + self.distribute.log_file.read_text()
        return [line for line in logs.splitlines() if "level=warning" in line or "level=error" in line]

    def _sample(self, least: int, until: float = math.inf) -> Sample:
        """When so many units have ended, or at this moment. Raises TimeoutError."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (units := self._finished()) < least and time.monotonic() < until:
            if time.monotonic() > deadline:
                raise TimeoutError(f"expected {least} units to end in {PATIENCE_SECONDS} s, found {units}")
            time.sleep(1.0)
        return Sample(time.monotonic(), units, self._cpu(), self._status())

    def _finished(self) -> int:
        return self._count("unit", "state = 'finished'")

    def _count(self, table: str, condition: str) -> int:
        return int(self.mariadb.sql(f"SELECT COUNT(*) FROM {DATABASE}.{table} WHERE {condition}"))

    def _status(self) -> dict[str, int]:
        rows = (line.split("\t") for line in self.mariadb.sql("SHOW GLOBAL STATUS").splitlines())
        return {row[0]: int(row[1]) for row in rows if row[0] in COUNTERS}

    def _cpu(self) -> dict[str, float]:
        seconds = {"database": _cpu_of(self.mariadb.process.pid), "kafka": _cpu_of(self.kafka.brokers[1].pid)}
        for process in psutil.Process(self.distribute.pid).children(recursive=True):
            part = "dispatcher" if "dispatcher" in " ".join(process.cmdline()) else "web"
            seconds[part] = seconds.get(part, 0.0) + _cpu_of(process.pid)
        hosts, *engines = psutil.Process(self.engines.pid).children()
        return seconds | {"engines": sum(_cpu_of(engine.pid) for engine in engines), "hosts": _cpu_of(hosts.pid)}


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def _cpu_of(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


@contextmanager
def running(options: argparse.Namespace) -> Iterator[Simulation]:
    with tempfile.TemporaryDirectory(prefix="ee-sim-", ignore_cleanup_errors=True) as directory:
        simulated = Simulation(Path(directory), options)
        try:
            yield simulated
        finally:
            simulated.stop()
            if options.logs:
                shutil.copytree(directory, options.logs, ignore=lambda _, names: [n for n in names if ".log" not in n])


def arguments(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", type=int, default=100)
    parser.add_argument("--units", type=int, default=6000, help=f"of {UNIT_HOSTS} hosts; 0: only the idle time")
    parser.add_argument("--slots", type=int, default=200, help="of each engine")
    parser.add_argument("--partitions", type=int, default=0, help="0: as many as engines")
    parser.add_argument("--window", type=float, default=60.0, help="seconds to measure, to nine tenths at most")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a host, on average")
    parser.add_argument("--logs", type=Path, help="a directory that is made, for what distribute and engines have said")
    parser.add_argument("--profile", type=Path, help="a directory for the profile of one engine")
    return parser.parse_args(given)


def simulation(options: Options) -> Figures:
    sizes = ("--engines", "2", "--units", "20", "--window", "10") if options.smallest else ()
    rates, notes = [], []
    for _ in range(options.rounds):
        with running(arguments(*sizes)) as simulated:
            idle = simulated.idle()
            loaded = simulated.measure()
            stored = list(simulated.stored())
        rates.append((loaded[1].units - loaded[0].units) / (loaded[1].at - loaded[0].at))
        notes += ["idle:", *report(*idle), "with all units submitted:", *report(*loaded), *stored]
    return Figures("units a second", {"all engines": rates}, goals=[Goal("all engines", at_least=60)], notes=notes)


def main() -> None:
    options = arguments(*sys.argv[1:])
    with running(options) as simulated:
        print(*report(*simulated.idle()), sep="\n")
        if options.units:
            print(*report(*simulated.measure()), *simulated.stored(), sep="\n")
            problems = simulated.problems()
            print(f"warnings and errors: {len(problems)}", *problems[-5:], sep="\n  ")


def report(first: Sample, last: Sample) -> Iterator[str]:
    """A table of what was used from one sample to the other."""
    units, seconds = last.units - first.units, last.at - first.at
    yield f"{units} units in {seconds:.1f} s, {units / seconds:.1f} a second, {UNIT_HOSTS * units / seconds:.0f} hosts"
    yield f"{'':24} {'cores':>8} {'CPU ms a unit':>14}"
    used = {part: last.cpu[part] - before for part, before in first.cpu.items()}
    for part, cpu in {**used, "all": sum(used.values())}.items():
        yield f"{part:24} {cpu / seconds:8.2f} {1000 * cpu / units if units else 0:14.2f}"
    yield f"{'':24} {'a second':>8} {'a unit':>14}"
    for name, before in first.status.items():
        number = last.status[name] - before
        yield f"{name:24} {number / seconds:8.1f} {number / units if units else 0:14.2f}"


SCENARIOS = (
    Scenario(
        "simulation",
        "units a second that dispatcher, Kafka, database and beats carry with 100 engines whose hosts are simulated",
        "at least 60, and better 200",
        "Units that ended in a window of 60 s, 30 hosts each that answer after half a second to one and a half. All of "
        "it shares this machine: also the engines' consumers, which have machines of their own elsewhere.",
        simulation,
    ),
)

if __name__ == "__main__":
    main()
