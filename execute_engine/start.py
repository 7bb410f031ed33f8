"""How an incarnation begins: alone in its STATE_DIR, after its former ones were ended, when the database is there."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from contract import migrations, span
from contract.config import EngineSettings
from contract.database import Database
from contract.errors import DatabaseError
from contract.supervised import Lifeline
from execute_engine.engine_row import EngineRow, Twin
from execute_engine.errors import StopRequested, TwinError
from execute_engine.progress import Report
from execute_engine.stops import Stops

T = TypeVar("T")

PAUSE_SECONDS = 0.5

log = logging.getLogger(__name__)


class Patience:
    """Waiting at the start: it is told what for, the supervisor hears that we live, and a stop signal ends it."""

    def __init__(self, lifeline: Lifeline, stops: Stops, report: Report) -> None:
        self._lifeline = lifeline
        self._report = report
        self._stops = stops
        self._told = ("", "")
        self._since = 0.0  # monotonic; when the wait for this began

    def wait(self, what: str, detail: str = "") -> None:
        """Sleep for PAUSE_SECONDS. Raises StopRequested."""
        if what != self._told[0]:
            self._since = time.monotonic()
        if (what, detail) != self._told:
            self._told = (what, detail)
            log.warning("waiting", extra={"what": what, "detail": detail})
        waited = span.words(time.monotonic() - self._since)
        self._lifeline.status(f"waiting for {what} for {waited}{detail and ': '}{detail}")
        self._lifeline.alive()
        self._lifeline.ready()  # we run; whoever started us shall not wait for what we wait for
        if self._stops.wait(PAUSE_SECONDS):
            raise StopRequested(f"told to stop while waiting for {what}")

    def goes_on(self) -> None:
        """Nothing is waited for, it takes long: a part of it is done. Others shall not take that for standing still.

        Raises StopRequested.
        """
        self._report.write({"database": 1})
        self._lifeline.alive()
        if self._stops.count:
            raise StopRequested("told to stop while starting")

    def insist(self, work: Callable[[], T]) -> T:
        """work(), again and again until the database does not refuse it."""
        while True:
            try:
                return work()
            except DatabaseError as exc:
                self._report.write({"database": 0})  # we live, and it is away
                self.wait("the database", str(exc))


@contextmanager
def only_one(state_dir: Path, patience: Patience) -> Iterator[None]:
    """Inside the block no other consumer has this STATE_DIR; the kernel ends that with this process, however it ends.

    Waits for another one for as long as it lives: its units are running, and are not ours to end.
    """
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (state_dir / "lock").open("a+") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                file.seek(0)
                patience.wait(f"process {file.read().strip() or '?'}, which uses {state_dir} too")
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


class Memory:
    """The incarnations that this STATE_DIR has seen and whose units may not be settled yet, one a line."""

    def __init__(self, state_dir: Path) -> None:
        self._file = state_dir / "incarnations"

    def former(self) -> list[str]:
        try:
            return [line for line in self._file.read_text().split() if len(line) == 32 and line.isalnum()]
        except FileNotFoundError:
            return []

    def keep(self, incarnations: list[str]) -> None:
        """On disk when it returns."""
        fresh = self._file.with_suffix(".new")
        with fresh.open("w") as file:
            file.writelines(f"{incarnation}\n" for incarnation in incarnations)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._file)


def await_database(database: Database, patience: Patience) -> None:
    """Until the database answers and its schema is this program's; distribute brings it up to date."""
    patience.insist(lambda: migrations.check(database))


def refuse_twins(row: EngineRow, former: list[str], settings: EngineSettings, patience: Patience) -> None:
    """Raises TwinError when an engine of this id lives elsewhere: its beat moves while we look.

    One that does not beat is watched until it is declared dead, or for LEASE_SECONDS.
    """
    first: dict[str, Twin] = patience.insist(lambda: row.twins(former))
    deadline = time.monotonic() + settings.lease_seconds
    seen = first
    while seen and time.monotonic() < deadline:
        patience.wait(f"the end of another engine {settings.engine_id!r} on {next(iter(seen.values())).host_name}")
        seen = patience.insist(lambda: row.twins(former))
        for incarnation, twin in seen.items():
            if incarnation not in first or twin.beat != first[incarnation].beat:
                raise TwinError(
                    f"expected to be the only engine {settings.engine_id!r}, found one alive on {twin.host_name}: "
                    f"stop it, or give this one an [Exec_Engine] ENGINE_ID of its own"
                )
