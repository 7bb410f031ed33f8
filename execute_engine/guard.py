"""The guard of one unit: it keeps the unit's deadline, and nothing of the unit outlives it.

Who kills whom:

| what happens                            | who kills                            | how the unit ends          |
|-----------------------------------------|--------------------------------------|----------------------------|
| there is no room for a runner           | nobody                               | not_started                |
| the runner ends with exit code 0        | guard: what the runner left behind   | finished                   |
| the runner crashes or is killed         | guard: at once                       | runner_died                |
| a process of the unit takes too much    | guard: at once, when the launcher    | memory                     |
| memory                                  | has seen it and woken it             |                            |
| no beat of the engine for 5/6 of its    | guard: at once, as it may run again  | lease                      |
| lease (on_engine_loss: rerun)           | elsewhere                            |                            |
| the unit's deadline comes               | guard: 3 s after its order to end    | deadline                   |
| the consumer orders a stop              | guard: 3 s after its order to end    | stopped                    |
| the consumer dies (EOF of control)      | guard: at once                       | nobody is there to be told |
| the launcher dies (EOF of life)         | guard: at once                       | launcher_died              |
| the guard dies                          | kernel: the runner (PDEATHSIG);      | guard_died                 |
|                                         | launcher: the rest, its orphans now  |                            |
| the guard is stopped past its time      | client: the guard; then as above     | guard_stuck                |
| guard and consumer die or are stopped   | launcher: as above                   | nobody is there to be told |
| guard and launcher die                  | client: by the mark in environments  | launcher_died              |
| all three die                           | the next consumer: kill_former       | nobody is there to be told |

A killing goes on until the guard, a subreaper, has no child any more: then it has no descendant, whatever session or
process group one moved to. It is given up after 2 s in which nothing ended, or 4 s; what is left is reported, and the
launcher, whose orphans these are then, goes on for as long as it lives.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from contract import logs, processes
from contract.failpoint import fail_point
from execute_engine import events as framing
from execute_engine import scratch, sweep
from execute_engine.forking import STOP_SIGNALS, Children, fork

GRACE_SECONDS = 3.0  # from the order to end until the kill
CLEAR_SECONDS = 4.0  # for killing, at most; the consumer waits a little longer for the report
RUNNER_ENDS_SECONDS = 2.0  # of these the runner may use so many for ending its hosts
EXIT_LEFT = 1  # the launcher goes on killing after a guard that ends so, or in any other way but 0
OOM_SCORE = 500  # the kernel, short of memory, takes runners before services

RunnerMain = Callable[[socket.socket, int], None]


@dataclass(frozen=True)
class Report:
    """The guard's one message over control."""

    ended: str  # as in the table: not_started | finished | deadline | stopped | memory | lease | runner_died | ...
    runner_exit: int | None  # exit code, or minus the signal; None: it was not started, or could not be killed
    left: tuple[int, ...]  # pids that could not be killed


class Guard:
    """Runs in the process that the launcher forked for it.

    events belongs to the runner: closed here once it is started, so that its EOF is the runner's. control comes from
    the consumer: {"stop": reason} and {"lease_until": monotonic} frames, and EOF when it is gone. life is a pipe whose
    EOF says that the launcher is. user is who the runner becomes; the guard stays root then, and can kill it.
    """

    def __init__(
        self,
        unit_id: int,
        timeout_seconds: float,
        memory_bytes: int,
        lease_until: float | None = None,
        *,
        events: socket.socket,
        control: socket.socket,
        life: int,
        run: RunnerMain,
        user: processes.User | None = None,
        kill: sweep.Kill = sweep.kill,
    ) -> None:
        self._deadline = time.monotonic() + timeout_seconds
        self._unit_id = unit_id
        self._memory_bytes = memory_bytes
        self._lease_until = float("inf") if lease_until is None else lease_until
        self._events = events
        self._control = control
        self._life = life
        self._run = run
        self._user = user
        self._kill = kill
        self._decoder = framing.Decoder()
        self._runner_pid = 0
        self._runner_exit: int | None = None
        self._orders = -1

    def guard(self) -> int:
        """Start the runner, watch it to its end, kill what is left, report. Returns the exit code: 0 or EXIT_LEFT."""
        processes.become_subreaper()
        processes.set_title(f"execute-engine: guard {self._unit_id}")
        logs.configure("execute-engine", f"guard {self._unit_id}")
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        self._children = Children()
        try:
            self._start_runner()
        except OSError:  # the machine has no process or descriptor left
            ended = "not_started"
        else:
            fail_point("runner-forked")
            ended = self._watch()
        left = self._clear()
        scratch.remove(self._runner_pid)  # it could not, if it was killed
        self._tell(Report(ended, self._runner_exit, left))
        return EXIT_LEFT if left else 0

    def _start_runner(self) -> None:
        orders, self._orders = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._orders, False)
        guard_pid = os.getpid()
        self._runner_pid = fork(lambda: self._be_runner(guard_pid, orders))
        os.close(orders)
        self._events.close()

    def _be_runner(self, guard_pid: int, orders: int) -> int:
        os.setsid()
        self._children.close()
        self._control.close()
        os.close(self._life)
        os.close(self._orders)
        _raise_oom_score()
        processes.set_title(f"execute-engine: runner {self._unit_id}")
        if self._user is not None:
            processes.become(self._user)
        processes.die_with_parent(guard_pid)  # behind what would undo it; a guard that died before is noticed
        self._run(self._events, orders)
        return 0

    def _watch(self) -> str:
        """Until the runner has ended or must be killed; returns how the unit ended. Orders it to end on the way."""
        poll = select.poll()
        for source in (self._children, self._control, self._life):
            poll.register(source, select.POLLIN)
        ordered, until = "", self._deadline
        while True:
            seconds = min(until, self._lease_until) - time.monotonic()
            ready = {descriptor for descriptor, _ in poll.poll(max(0.0, seconds) * 1000)}
            self._reap()
            if time.monotonic() >= self._lease_until:  # before anything is read: a lease that ended does not come back
                return ordered or "lease"
            if self._runner_exit is not None:
                return ordered or ("finished" if self._runner_exit == 0 else "runner_died")
            if self._life in ready:
                return "launcher_died"
            stop = self._read_stop() if self._control.fileno() in ready else ""
            if stop is None:
                return "consumer_died"
            if processes.resident_bytes(os.getpid()) > self._memory_bytes:  # with what a dead parent left to us
                return ordered or "memory"
            if time.monotonic() >= until:
                if ordered:
                    return ordered
                ordered, until = "deadline", self._order_end("deadline")
            elif stop and not ordered:
                ordered, until = "stopped", self._order_end(f"stop:{stop}")

    def _read_stop(self) -> str | None:
        """The reason of a stop order, "" when there is none, None when the consumer is gone or does not make sense."""
        try:
            data = self._control.recv(65536, socket.MSG_DONTWAIT)
            if not data:
                return None
            stop = ""
            for frame in self._decoder.feed(data):
                if "lease_until" in frame:
                    self._lease_until = float(frame["lease_until"])
                else:
                    stop = stop or str(frame["stop"])
            return stop
        except BlockingIOError:
            return ""
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _order_end(self, reason: str) -> float:
        """Tell the runner; returns when it will be killed. One that does not read or is gone loses only its chance."""
        order = {"order": "end", "reason": reason, "seconds": RUNNER_ENDS_SECONDS}
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(self._orders, framing.encode(order))
        return time.monotonic() + GRACE_SECONDS

    def _clear(self) -> tuple[int, ...]:
        """Kill until there is no child left; returns the pids that could not be killed."""
        clearing = sweep.Sweep(lambda: sweep.strike_descendants({os.getpid()}, kill=self._kill), CLEAR_SECONDS)
        poll = select.poll()
        poll.register(self._children, select.POLLIN)
        self._reap()
        while self._children.any_left:
            clearing.step()
            if clearing.given_up:
                return clearing.left
            poll.poll(sweep.PAUSE_SECONDS * 1000)
            self._reap()
        return ()

    def _reap(self) -> None:
        ended = self._children.reap()
        if self._runner_exit is None:
            self._runner_exit = ended.get(self._runner_pid)

    def _tell(self, report: Report) -> None:
        with contextlib.suppress(OSError):  # the consumer is gone: there is nobody to tell
            self._control.send(framing.encode(asdict(report)), socket.MSG_DONTWAIT)


def look_at_memory(guard_pid: int, memory_bytes: int) -> None:
    """For the launcher, often: wake this guard of its own if a process of the unit holds more; the guard looks itself.

    One process that looks at a hundred units takes a fraction of what a hundred guards do that each wake for it.
    """
    if processes.resident_bytes(guard_pid) > memory_bytes:
        os.kill(guard_pid, signal.SIGCHLD)  # a guard takes it for the end of a child, and an unready one ignores it


def _raise_oom_score() -> None:
    score = Path("/proc/self/oom_score_adj")
    with contextlib.suppress(OSError):  # a /proc that is read-only
        if int(score.read_text()) < OOM_SCORE:
            score.write_text(str(OOM_SCORE))
