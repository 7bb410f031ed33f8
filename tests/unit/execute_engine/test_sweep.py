"""Killing until nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from contract import processes
from execute_engine import sweep
from execute_engine.forking import Children, fork


@pytest.fixture
def shell() -> Iterator[subprocess.Popen[bytes]]:
    """A shell with two children, the second with a child of its own; its output ends when all are gone."""
    script = "sleep 1000 & sh -c 'sleep 1000 & echo up; wait' & wait"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        yield process
        for pid in sweep.strike_descendants({process.pid}, kill=lambda pid: None):
            sweep.kill(pid)
        process.kill()


def test_a_strike_finds_all_descendants_and_not_the_root(shell: subprocess.Popen[bytes]) -> None:
    found = sweep.strike_descendants({shell.pid}, kill=lambda pid: None)
    assert len(found) == 3
    assert shell.pid not in found


def test_strikes_of_a_subreaper_end_all_its_descendants() -> None:
    """Also those that lose their parent in the strike, between being listed and being looked at."""

    def strike_own() -> int:
        processes.become_subreaper()
        children = Children()
        # The shells end by themselves and leave the sleepers to the subreaper.
        subprocess.Popen(["sh", "-c", "for n in 1 2 3 4 5; do (sleep 1000 & setsid sleep 1000 & sleep 1000) & done"])
        while len(sweep.strike_descendants({os.getpid()}, kill=lambda pid: None)) < 15:
            children.reap()
        strikes = 0
        while children.any_left and strikes < 1000:
            sweep.strike_descendants({os.getpid()})
            time.sleep(0.01)
            children.reap()
            strikes += 1
        return int(children.any_left)

    _, status = os.waitpid(fork(strike_own), 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_what_is_below_the_spared_is_spared_too(shell: subprocess.Popen[bytes]) -> None:
    children = sweep.strike_descendants({shell.pid}, kill=lambda pid: None)
    parents = {pid for pid in children if sweep.strike_descendants({pid}, kill=lambda pid: None)}
    assert len(parents) == 1
    assert len(sweep.strike_descendants({shell.pid}, spared=parents)) == 1
    assert shell.poll() is None


def test_a_sweep_that_finds_nothing_has_nothing_left() -> None:
    clearing = sweep.Sweep(set, 60.0)
    clearing.step()
    assert clearing.left == ()
    assert not clearing.given_up


def test_a_sweep_goes_on_while_something_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "STALL_SECONDS", 0.2)
    living = set(range(10))
    clearing = sweep.Sweep(lambda: set(living), 60.0)
    while living:
        clearing.step()
        assert not clearing.given_up
        living.pop()
        time.sleep(0.05)
    clearing.step()
    assert clearing.left == ()


def test_a_sweep_gives_up_what_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "STALL_SECONDS", 0.05)
    clearing = sweep.Sweep(lambda: {7, 3}, 60.0)
    clearing.step()
    assert not clearing.given_up
    time.sleep(0.06)
    clearing.step()
    assert clearing.given_up
    assert clearing.left == (3, 7)


def test_a_sweep_gives_up_what_multiplies_as_fast_as_it_is_killed() -> None:
    generations = iter(range(1_000_000))
    clearing = sweep.Sweep(lambda: {next(generations)}, 0.05)
    clearing.step()
    assert not clearing.given_up
    time.sleep(0.06)
    clearing.step()
    assert clearing.given_up


def test_killing_what_is_gone_is_no_error() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    sweep.kill(child)


def test_a_kill_is_one_that_nothing_survives() -> None:
    with subprocess.Popen(["sh", "-c", "trap '' TERM INT HUP; echo up; read x"], stdout=-1, stdin=-1) as process:
        assert process.stdout is not None
        process.stdout.readline()
        sweep.kill(process.pid)
        assert process.wait() == -signal.SIGKILL
