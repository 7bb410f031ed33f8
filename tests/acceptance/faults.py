"""Faults drawn from a seed: what of a running cluster is killed, paused or restarted, when, and for how long."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tests.daemons import Daemon, Services
from tests.servers.kafka import KafkaCluster
from tests.servers.mariadb import MariaDB

LONGEST_GAP_SECONDS = 3.4  # between the beginnings of two faults; half of it in the mean
PARTS = {  # each is one process: kill and pause
    "consumer": "execute-engine: consumer",
    "launcher": "execute-engine: launcher",
    "guard": "execute-engine: guard",
    "runner": "execute-engine: runner",
    "web": "distribute: web",
    "dispatcher": "distribute: dispatcher",
}
PAUSE = (1.0, 12.0)  # seconds
KINDS: dict[str, tuple[float, float]] = {  # for how long, seconds; whoever starts the part again adds its own pause
    **{f"kill {part}": (0.0, 0.0) for part in PARTS},
    **{f"pause {part}": PAUSE for part in PARTS},
    **{f"{how} {service}": (0.5, 6.0) for how in ("kill", "restart") for service in ("engine", "distribute")},
    "pause engine": PAUSE,  # all its processes at once, as a machine that is suspended
    **{f"kill {server}": (0.5, 6.0) for server in ("mariadb", "kafka")},
    **{f"pause {server}": PAUSE for server in ("mariadb", "kafka")},
}
OFTEN = ("kill guard", "kill runner")  # twice as often: each is one of many
VICTIM_SECONDS = 5.0  # how long a victim is waited for, where there is none at the moment
STOP_SECONDS = 30.0  # from SIGTERM to SIGKILL in a restart
BROKER = 1


@dataclass(frozen=True)
class Fault:
    at: float  # seconds from the beginning
    kind: str
    which: int  # of the victims there are then, counted round and round
    seconds: float


@dataclass(frozen=True)
class Injected:
    fault: Fault
    victim: str  # "" where there was none
    began: float  # seconds from the beginning; later than planned where the same daemon or server was down
    ended: float

    def __str__(self) -> str:
        what = f"{self.fault.kind:<20} {self.victim or '-'}"
        return f"{self.began:8.2f} to {self.ended:8.2f}  planned {self.fault.at:8.2f}  {what}"


def draw(seed: int, seconds: float) -> list[Fault]:
    """The same for the same seed. Every kind comes once before one comes again."""
    chance = random.Random(seed)
    faults: list[Fault] = []
    kinds: list[str] = []
    moment = chance.uniform(2.0, 4.0)
    while moment < seconds:
        if not kinds:
            kinds = [*KINDS, *OFTEN]
            chance.shuffle(kinds)
        kind = kinds.pop()
        duration = chance.uniform(*KINDS[kind])
        faults.append(Fault(round(moment, 2), kind, chance.randrange(1_000_000), round(duration, 2)))
        moment += chance.uniform(0.0, LONGEST_GAP_SECONDS)
    return faults


def by_kind(injected: Sequence[Injected]) -> dict[str, int]:
    """Those that had a victim."""
    found = Counter(one.fault.kind for one in injected if one.victim)
    return {kind: found[kind] for kind in KINDS if found[kind]}


class Injector:
    """Of a whole daemon, and of a server, one fault at a time; parts are hit whatever else happens to their daemon."""

    def __init__(self, services: Services, mariadb: MariaDB, kafka: KafkaCluster) -> None:
        self._services = services
        self._mariadb = mariadb
        self._kafka = kafka
        self._daemons = {"engine": services.engines, "distribute": services.distributes}
        names = [daemon.name for daemon in (*services.engines, *services.distributes)]
        self._locks = {name: threading.Lock() for name in (*names, "mariadb", "kafka")}
        self._began = 0.0
        self.injected: list[Injected] = []

    def run(self, faults: Sequence[Fault]) -> None:
        """Blocks until the last one is over and everything was started again; injected then has them all."""
        self._began = time.monotonic()
        with ThreadPoolExecutor(64) as pool:
            futures = []
            for fault in faults:
                time.sleep(max(0.0, fault.at - self._now()))
                futures.append(pool.submit(self._inject, fault))
        for future in futures:
            future.result()

    def _inject(self, fault: Fault) -> None:
        how, what = fault.kind.split()
        if what in PARTS:
            victim, began = self._hit_part(fault, how, what)
        elif what in self._daemons:
            daemons = self._daemons[what]
            victim, began = self._hit_daemon(fault, how, daemons[fault.which % len(daemons)])
        else:
            victim, began = self._hit_server(fault, how, what)
        self.injected.append(Injected(fault, victim, round(began, 2), round(self._now(), 2)))

    def _hit_part(self, fault: Fault, how: str, part: str) -> tuple[str, float]:
        found = self._one_of(part, fault.which)
        began = self._now()
        if found is None:
            return "", began
        victim, handle = found
        with _closing({0: handle}):
            if how == "kill":
                _send(handle, signal.SIGKILL)
            else:
                _pause({0: handle}, fault.seconds)
        return victim, began

    def _one_of(self, part: str, which: int) -> tuple[str, int] | None:
        """A process of all daemons, with a handle that is never another process's."""
        daemons = self._daemons["engine" if PARTS[part].startswith("execute-engine") else "distribute"]
        deadline = time.monotonic() + VICTIM_SECONDS
        while time.monotonic() < deadline:
            found = [(daemon, *one) for daemon in daemons for one in sorted(daemon.processes(PARTS[part]).items())]
            if found:
                daemon, pid, title = found[which % len(found)]
                with contextlib.suppress(ProcessLookupError):
                    return f"{daemon.name} {pid} {title.strip()}", os.pidfd_open(pid)
            time.sleep(0.1)
        return None

    def _hit_daemon(self, fault: Fault, how: str, daemon: Daemon) -> tuple[str, float]:
        with self._locks[daemon.name]:
            began = self._now()
            if how == "pause":
                with _closing(_freeze(daemon)) as handles:
                    _continue(handles, fault.seconds)
            else:
                daemon.stop(STOP_SECONDS, signal.SIGKILL if how == "kill" else signal.SIGTERM)
                time.sleep(fault.seconds)
                _keep_log(daemon)
                daemon.launch()
        return daemon.name, began

    def _hit_server(self, fault: Fault, how: str, server: str) -> tuple[str, float]:
        with self._locks[server]:
            began = self._now()
            mariadb, kafka = self._mariadb, self._kafka
            if how == "pause" and server == "mariadb":
                mariadb.pause()
                time.sleep(fault.seconds)
                mariadb.resume()
            elif how == "pause":
                kafka.pause(BROKER)
                time.sleep(fault.seconds)
                kafka.resume(BROKER)
            elif server == "mariadb":
                mariadb.kill()
                time.sleep(fault.seconds)
                mariadb.start()
            else:
                kafka.kill(BROKER)
                time.sleep(fault.seconds)
                kafka.start_broker(BROKER)
        return server, began

    def _now(self) -> float:
        return time.monotonic() - self._began


def former_log(daemon: Daemon) -> str:
    """What it said before it was last started again."""
    file = daemon.log_file.with_suffix(".former.log")
    return file.read_text(errors="replace") if file.exists() else ""


def _keep_log(daemon: Daemon) -> None:
    """launch() begins the log anew."""
    with daemon.log_file.with_suffix(".former.log").open("ab") as file:
        file.write(daemon.log_file.read_bytes())


def _freeze(daemon: Daemon) -> dict[int, int]:
    """SIGSTOP to every process of it, the supervisor first, until none is found that was not stopped."""
    handles: dict[int, int] = {}
    tried: set[int] = set()
    while new := {daemon.pid, *daemon.processes()} - tried:
        for pid in sorted(new, key=lambda pid: (pid != daemon.pid, pid)):
            tried.add(pid)
            with contextlib.suppress(ProcessLookupError):
                handles[pid] = os.pidfd_open(pid)
                _send(handles[pid], signal.SIGSTOP)
    return handles


def _pause(handles: dict[int, int], seconds: float) -> None:
    for handle in handles.values():
        _send(handle, signal.SIGSTOP)
    _continue(handles, seconds)


def _continue(handles: dict[int, int], seconds: float) -> None:
    time.sleep(seconds)
    for handle in handles.values():
        _send(handle, signal.SIGCONT)


@contextlib.contextmanager
def _closing(handles: dict[int, int]) -> Iterator[dict[int, int]]:
    try:
        yield handles
    finally:
        for handle in handles.values():
            os.close(handle)


def _send(handle: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(handle, number)
