"""What a runner says and how its unit ends, as the loop's thread takes it in; database and launcher answer at once."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from execute_engine.conversation import FLOW_BYTES
from execute_engine.database_thread import DatabaseThread
from execute_engine.events import HostDone, encode
from execute_engine.job import Job
from execute_engine.launcher_client import LauncherClient
from execute_engine.output import Cleaner
from execute_engine.running import RunningUnits
from execute_engine.slots import Slots
from execute_engine.spool import Spool
from execute_engine.store import Claimed, Store
from execute_engine.unit import HostRow
from execute_engine.unit_process import UnitEnd, UnitProcess
from tests.unit.execute_engine.jobs import job

STARTED = encode({"event": "host_started", "host": "h1", "at": "2026-01-01T00:00:00Z"})


class AtOnce:
    """The database thread, without the thread."""

    def submit(self, _what: str, work: Callable[[], Any], answer: Callable[[Any], None]) -> None:
        answer(work())


class Rows:
    """The store: what it was given."""

    def __init__(self) -> None:
        self.saved: list[HostRow] = []

    def begin(self, _unit_id: int) -> bool:
        return True

    def save(self, rows: Sequence[HostRow]) -> int:
        self.saved += rows
        return 0

    def end(self, _unit_id: int, _free_slots: int) -> bool:
        return True

    def give_back(self, *_: Any) -> bool:
        return True


class Launcher:
    """runner is the other end of the last unit's events; ends is what the next collect() brings."""

    def __init__(self) -> None:
        self.ends: list[UnitEnd] = []
        self._open: list[socket.socket] = []

    def launch(self, unit: Job, _lease_until: float | None) -> UnitProcess:
        (events, self.runner), (control, guard) = socket.socketpair(), socket.socketpair()
        self._open += [events, self.runner, control, guard]
        for ours in (events, control):
            ours.setblocking(False)
        return UnitProcess(unit, os.getpid(), events, control)

    def sockets(self) -> list[socket.socket]:
        return []

    def collect(self) -> list[UnitEnd]:
        ends, self.ends = self.ends, []
        return ends

    def close(self) -> None:
        for one in self._open:
            one.close()


@pytest.fixture
def launcher() -> Iterator[Launcher]:
    made = Launcher()
    yield made
    made.close()


@pytest.fixture
def rows() -> Rows:
    return Rows()


@pytest.fixture
def running(tmp_path: Path, launcher: Launcher, rows: Rows) -> RunningUnits:
    """With one unit of two hosts, whose Job was taken."""
    units = RunningUnits(
        cast(LauncherClient, launcher), cast(DatabaseThread, AtOnce()), cast(Store, rows), Slots(60, 4),
        Spool(tmp_path / "spool", "a", 1_000_000), 5.0, Cleaner(), lambda _hosts, _unreachable: None,
    )  # fmt: skip
    units.start(Claimed(7, 2, job(hosts=2), {"h1": 1, "h2": 2}))
    launcher.runner.recv(1 << 16)
    return units


def descriptors(running: RunningUnits, *, with_events: bool) -> set[int]:
    return {descriptor for descriptor, _ in running.sources(with_events=with_events)}


def done(host: str) -> bytes:
    return encode(HostDone(host, "success").to_event())


def test_events_wait_for_each_other(running: RunningUnits, launcher: Launcher) -> None:
    assert running.events_at() < time.monotonic()
    launcher.runner.sendall(STARTED)
    running.turn(descriptors(running, with_events=True))
    assert running.events_at() > time.monotonic()
    assert descriptors(running, with_events=False) == set()
    assert len(descriptors(running, with_events=True)) == 1


def test_a_runner_that_says_much_is_not_made_to_wait(running: RunningUnits, launcher: Launcher) -> None:
    launcher.runner.sendall(STARTED * (FLOW_BYTES // len(STARTED) + 1))
    running.turn(descriptors(running, with_events=True))
    assert running.events_at() < time.monotonic()


def test_the_end_of_a_unit_takes_in_what_was_not_read_yet(
    running: RunningUnits, launcher: Launcher, rows: Rows
) -> None:
    launcher.runner.sendall(STARTED + done("h1") + done("h2"))
    launcher.runner.close()
    launcher.ends = [UnitEnd(7, "finished", 0, ())]
    running.turn(set())
    assert [(row.id, row.status) for row in rows.saved] == [(1, "success"), (2, "success")]
    assert running.ids == set()


def test_a_runner_that_died_before_it_began_anything_puts_the_next_claim_off_whatever_it_said_last(
    running: RunningUnits, launcher: Launcher
) -> None:
    launcher.runner.sendall(encode({"event": "log", "level": "warning", "text": "worker processes"}))
    launcher.runner.close()
    launcher.ends = [UnitEnd(7, "runner_died", 1, ())]
    running.turn(set())
    assert "a runner died before it began anything" in str(running.launch_problem())
    assert running.claims_at() > time.monotonic()
