from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest

from contract import signals, supervised
from contract.errors import DatabaseAway
from contract.supervised import Lifeline
from execute_engine import progress, start
from execute_engine.errors import StopRequested
from execute_engine.progress import Report
from execute_engine.start import Patience
from execute_engine.stops import Stops


def test_a_wait_for_the_database_is_progress_and_says_that_it_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "PAUSE_SECONDS", 0.01)
    refusals = [DatabaseAway("not now")] * 3

    def work() -> str:
        if refusals:
            raise refusals.pop()
        return "done"

    with signals.caught(signal.SIGTERM) as caught:
        assert Patience(Lifeline(None), Stops(caught), Report(tmp_path, "a")).insist(work) == "done"
    found = progress.read(tmp_path)
    assert found is not None
    assert (found.counter, found.figures) == (3, {"database": 0})


def test_a_start_that_takes_long_and_goes_on_is_seen_by_heartbeat_and_supervisor(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, signals.caught(signal.SIGTERM) as caught:
        patience = Patience(Lifeline(theirs), Stops(caught), Report(tmp_path, "a"))
        patience.goes_on()
        assert ours.recv(100, socket.MSG_DONTWAIT) == supervised.ALIVE
        patience.goes_on()
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(StopRequested, match="told to stop while starting"):
            patience.goes_on()
    found = progress.read(tmp_path)
    assert found is not None
    assert (found.counter, found.figures) == (3, {"database": 1})
