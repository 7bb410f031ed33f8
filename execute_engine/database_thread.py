"""The one thread that speaks with the database, so that no outage stops the consumer's loop."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from contract import span
from contract.errors import DatabaseError

T = TypeVar("T")

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0
_URGENT, _NORMAL, _LAST = range(3)

log = logging.getLogger(__name__)


@dataclass(frozen=True, order=True)
class _Request:
    priority: int
    number: int
    what: str = field(compare=False)
    work: Callable[[], Any] | None = field(compare=False)  # None: the end of the thread
    answer: Callable[[Any], None] = field(compare=False)


class DatabaseThread:
    """Runs requests one after the other, in the order in which they came, urgent ones before the others.

    A request that the database refuses goes back to its place and is tried again after a growing pause, for ever:
    what is asked for is never dropped. Any other exception of a request is raised in deliver(), and ends the thread.
    wake is called, in this thread, when an answer is there.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._requests: queue.PriorityQueue[_Request] = queue.PriorityQueue()
        self._answers: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._number = 0
        self._open = 0  # submitted and not yet answered; only the loop's thread counts
        self._away: tuple[float, str] | None = None  # since when, why
        self._at_work_since: float | None = None  # at one request
        self._thread = threading.Thread(target=self._run, name="database", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def open_requests(self) -> int:
        return self._open

    def submit(self, what: str, work: Callable[[], T], answer: Callable[[T], None], *, urgent: bool = False) -> None:
        """Have work() done in the thread and answer(its result) called by deliver(). Never blocks."""
        self._number += 1
        self._open += 1
        self._requests.put(_Request(_URGENT if urgent else _NORMAL, self._number, what, work, answer))

    def deliver(self) -> None:
        """Call the answers that have come, in the caller's thread and in the order of the work."""
        while True:
            try:
                answer = self._answers.get_nowait()
            except queue.Empty:
                return
            self._open -= 1
            answer()

    def problem(self) -> str | None:
        """One sentence while the database refuses; None when all is well."""
        away = self._away
        return away and f"waiting for the database for {span.words(time.monotonic() - away[0])}: {away[1]}"

    def silent_seconds(self) -> float:
        """For how long the present request has been at work; 0 without one, and while the database refuses."""
        since = self._at_work_since
        return 0.0 if since is None or self._away is not None else time.monotonic() - since

    def close(self, deadline_seconds: float) -> bool:
        """Let it finish what was submitted; False when it could not in time. Answers are still to be delivered."""
        self._requests.put(_Request(_LAST, 0, "end", None, lambda _: None))
        self._thread.join(deadline_seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            request = self._requests.get()
            if request.work is None:
                return
            self._at_work_since = time.monotonic()
            try:
                result = request.work()
            except DatabaseError as exc:
                self._at_work_since = None
                self._refused(request, exc)
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
                continue
            except BaseException as exc:  # noqa: BLE001 - it is raised again where it can end the process
                self._answers.put(_raiser(exc))
                self._wake()
                return
            self._at_work_since = None
            pause = FIRST_PAUSE_SECONDS
            self._answered(request, result)

    def _refused(self, request: _Request, exc: DatabaseError) -> None:
        if self._away is None:
            self._away = (time.monotonic(), str(exc))
            log.warning("the database refuses, trying again", extra={"what": request.what, "error": str(exc)})
        self._requests.put(request)

    def _answered(self, request: _Request, result: Any) -> None:
        if self._away is not None:
            log.info("the database answers again", extra={"after_seconds": round(time.monotonic() - self._away[0], 1)})
            self._away = None
        self._answers.put(lambda: request.answer(result))
        self._wake()


def _raiser(exc: BaseException) -> Callable[[], None]:
    def raise_it() -> None:
        raise exc

    return raise_it
