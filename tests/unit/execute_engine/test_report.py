"""The runner's events: in order, masked, never blocking who sends them, and over when the consumer is gone."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from execute_engine.events import Decoder
from execute_engine.output import Cleaner
from execute_engine.report import BACKLOG_BYTES, Report, utc_now
from tests.servers.process import wait_for

SECONDS = 60.0
BIG = {"event": "log", "level": "info", "text": "x" * 60_000}


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(SECONDS)
        yield ours, theirs


def read(events: socket.socket, count: int) -> list[dict[str, Any]]:
    decoder, found = Decoder(), []
    while len(found) < count:
        data = events.recv(1 << 20)
        assert data, f"the socket was closed after {len(found)} events"
        found += decoder.feed(data)
    return found


def over(thread: threading.Thread) -> bool:
    thread.join(0.05)
    return not thread.is_alive()


def test_events_arrive_in_order_and_masked(ends: tuple[socket.socket, socket.socket]) -> None:
    report = Report(ends[1], Cleaner(["correct horse"]))
    report.log("warning", "it is correct horse")
    for number in range(100):
        report.send({"event": "task_started", "host": "h1", "task": f"task {number}", "nested": ["correct horse"]})
    found = read(ends[0], 101)
    assert found[0] == {"event": "log", "level": "warning", "text": "it is ***"}
    assert [event["task"] for event in found[1:]] == [f"task {number}" for number in range(100)]
    assert found[1]["nested"] == ["***"]
    assert report.flush(SECONDS)


def test_an_event_without_a_secret_is_not_searched_text_by_text(ends: tuple[socket.socket, socket.socket]) -> None:
    class Counting(Cleaner):
        events = 0

        def event(self, event: Mapping[str, Any]) -> dict[str, Any]:
            self.events += 1
            return super().event(event)

    cleaner = Counting(["correct horse"])
    report = Report(ends[1], cleaner)
    for length in range(300):
        report.log("info", "x" * length)
    assert cleaner.events == 0
    report.log("info", "correct horse")
    assert cleaner.events == 1
    assert [event["text"] for event in read(ends[0], 301)][-2:] == ["x" * 299, "***"]


def test_an_event_is_on_its_way_when_send_returns(ends: tuple[socket.socket, socket.socket]) -> None:
    """Whatever the runner does next, be it one call of C code for ever, the consumer knows of it."""
    report = Report(ends[1], Cleaner())
    report.log("info", "before")
    assert Decoder().feed(ends[0].recv(1 << 20, socket.MSG_DONTWAIT))[0]["text"] == "before"


def test_sending_never_blocks_and_giving_way_does(ends: tuple[socket.socket, socket.socket]) -> None:
    report = Report(ends[1], Cleaner())
    count = BACKLOG_BYTES // 60_000 + 20
    for _ in range(count):  # nobody reads: this would hang
        report.send(BIG)
    assert not report.flush(0.01)
    waiting = threading.Thread(target=report.give_way, daemon=True)
    waiting.start()
    assert not over(waiting)
    read(ends[0], count)
    wait_for("room for more", lambda: over(waiting))
    assert report.flush(SECONDS)


def test_when_the_consumer_is_gone_nobody_waits_for_it(ends: tuple[socket.socket, socket.socket]) -> None:
    report = Report(ends[1], Cleaner())
    for _ in range(BACKLOG_BYTES // 60_000 + 20):
        report.send(BIG)
    waiting = threading.Thread(target=report.give_way, daemon=True)
    waiting.start()
    assert not over(waiting)
    ends[0].close()
    wait_for("the end of the wait", lambda: over(waiting))
    assert not report.flush(SECONDS), "what was not written is not reported as written"
    report.send(BIG)
    report.give_way()


def test_times_are_utc_with_microseconds_and_without_a_zone() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}", utc_now())
