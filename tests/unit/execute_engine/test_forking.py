"""Forking without exec."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator

import pytest

from execute_engine.forking import EXIT_BROKEN, STOP_SIGNALS, Children, fork


@pytest.fixture
def children() -> Iterator[Children]:
    before = signal.getsignal(signal.SIGCHLD)
    children = Children()
    yield children
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, before)
    children.close()


def _exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _sleep() -> int:
    time.sleep(1000)
    return 0


def _raise(error: BaseException) -> int:
    raise error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError("a bug"), EXIT_BROKEN),
        (KeyboardInterrupt(), EXIT_BROKEN),
        (SystemExit(3), 3),
        (SystemExit(None), 0),
        (SystemExit("text"), 1),
    ],
)
def test_what_the_child_raises_ends_in_its_exit_code(error: BaseException, code: int) -> None:
    assert _exit_code(fork(lambda: _raise(error))) == code


def test_the_child_returns_its_exit_code() -> None:
    assert _exit_code(fork(lambda: 5)) == 5


def test_the_child_has_default_signals_and_the_parent_keeps_its_own(children: Children) -> None:
    def defaults() -> int:
        actions = {signal.getsignal(number) for number in (signal.SIGCHLD, *STOP_SIGNALS)}
        return int(actions != {signal.SIG_DFL} or bool(signal.pthread_sigmask(signal.SIG_BLOCK, ())))

    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        assert _exit_code(fork(defaults)) == 0
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
        assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_end_of_a_child_can_be_polled_for(children: Children) -> None:
    reader, writer = os.pipe()
    pid = fork(lambda: len(os.read(reader, 1)))
    assert select.select([children], [], [], 0)[0] == []
    assert children.reap() == {}
    assert children.any_left
    os.write(writer, b"x")
    assert select.select([children], [], [], 60)[0] == [children]
    assert children.reap() == {pid: 1}
    assert select.select([children], [], [], 0)[0] == []
    os.close(reader)
    os.close(writer)


def test_a_child_that_was_killed_is_told_by_its_signal(children: Children) -> None:
    pid = fork(_sleep)
    os.kill(pid, signal.SIGKILL)
    assert select.select([children], [], [], 60)[0] == [children]
    assert children.reap() == {pid: -signal.SIGKILL}


def test_without_a_child_it_says_so() -> None:
    """In a process of its own: this one may have servers of other tests among its children."""

    def alone() -> int:
        children = Children()
        before = children.any_left
        os.waitpid(fork(lambda: 0), os.WNOHANG)
        while children.any_left:
            select.select([children], [], [], 60)
            children.reap()
        return 3 if before else 4

    pid = fork(alone)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
