from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from contract.errors import DatabaseAway
from execute_engine import database_thread
from execute_engine.database_thread import DatabaseThread

PATIENCE_SECONDS = 60.0


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_thread, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(database_thread, "LONGEST_PAUSE_SECONDS", 0.02)


class Refusing:
    """Work that the database refuses so many times."""

    def __init__(self, times: int, done: Callable[[], None]) -> None:
        self._times = times
        self._done = done

    def __call__(self) -> None:
        if self._times:
            self._times -= 1
            raise DatabaseAway("not now")
        self._done()


def test_work_is_done_in_order_and_answered_where_it_is_asked_for() -> None:
    woken = threading.Event()
    thread = DatabaseThread(woken.set)
    found: list[tuple[int, str]] = []
    for number in range(50):
        thread.submit("x", lambda number=number: (number, threading.current_thread().name), found.append)
    thread.start()
    assert thread.close(PATIENCE_SECONDS)
    assert woken.is_set()
    assert found == []
    thread.deliver()
    assert found == [(number, "database") for number in range(50)]


def test_refused_work_keeps_its_place_while_urgent_work_goes_on() -> None:
    thread = DatabaseThread(lambda: None)
    order: list[str] = []
    thread.submit("a", Refusing(20, lambda: order.append("first")), lambda _: None)
    thread.submit("b", lambda: order.append("second"), lambda _: None)
    thread.start()
    for _ in range(3):
        done = threading.Event()
        thread.submit("beat", done.set, lambda _: None, urgent=True)
        assert done.wait(PATIENCE_SECONDS)
        order.append("beat")
    assert thread.close(PATIENCE_SECONDS)
    assert [what for what in order if what != "beat"] == ["first", "second"]
    assert order.index("beat") < order.index("first")
    assert thread.problem() is None


def test_an_outage_is_told_with_its_reason() -> None:
    thread = DatabaseThread(lambda: None)
    refused = threading.Event()

    def refuse() -> None:
        refused.set()
        raise DatabaseAway("no route")

    thread.submit("x", refuse, lambda _: None)
    thread.start()
    assert refused.wait(PATIENCE_SECONDS)
    assert not thread.close(0.2)
    problem = thread.problem()
    assert problem is not None
    assert problem.startswith("waiting for the database for")
    assert problem.endswith("no route")


def test_what_is_no_refusal_is_raised_in_the_loop() -> None:
    thread = DatabaseThread(lambda: None)
    thread.submit("x", lambda: 1 // 0, lambda _: None)
    thread.start()
    assert thread.close(PATIENCE_SECONDS)
    with pytest.raises(ZeroDivisionError):
        thread.deliver()


def test_a_request_that_does_not_come_back_shows_and_a_database_that_refuses_is_no_silence() -> None:
    begun, go_on, done, woken = (threading.Event() for _ in range(4))
    thread = DatabaseThread(woken.set)
    thread.start()
    assert thread.silent_seconds() == 0

    def hang() -> None:
        begun.set()
        assert go_on.wait(PATIENCE_SECONDS)

    thread.submit("hangs", hang, lambda _: done.set())
    assert begun.wait(PATIENCE_SECONDS)
    first = thread.silent_seconds()
    assert thread.silent_seconds() > first
    go_on.set()
    assert woken.wait(PATIENCE_SECONDS)
    thread.deliver()
    assert done.is_set()
    assert thread.silent_seconds() == 0

    refused = threading.Event()
    again = threading.Event()

    def refuse_then_hang() -> None:
        if not refused.is_set():
            refused.set()
            raise DatabaseAway("not now")
        again.set()
        assert go_on.wait(PATIENCE_SECONDS)

    go_on.clear()
    thread.submit("refused", refuse_then_hang, lambda _: None)
    assert again.wait(PATIENCE_SECONDS)
    assert thread.problem() is not None
    assert thread.silent_seconds() == 0  # that it is away is told as such
    go_on.set()
    assert thread.close(PATIENCE_SECONDS)
