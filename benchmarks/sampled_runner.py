"""The runner, with a note of where its processor time goes: a module for the consumer to run units with.

It is execute_engine.runner with a sampler beside: a thread that asks every millisecond how much each other thread has
had the processor since the last look, and counts that for what the thread does now. It gets the interpreter where
another thread gives it up, so a function that waits or writes also stands for what its thread did just before. What a
thread has had in all is exact. STATE_DIR/stacks has a JSON file a runner afterwards:
{"outermost;...;innermost": milliseconds}.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path
from types import CodeType, FrameType
from typing import NoReturn

from execute_engine import former, runner

LOOK_SECONDS = 0.001  # and so soon a thread that works gives the interpreter up
FOLDER = "stacks"

preload = runner.preload


def main(events: socket.socket, orders_fd: int) -> NoReturn:
    """As execute_engine.runner's, for launcher.py."""
    sampler = Sampler()
    leave = runner._leave

    def write_and_leave(code: int) -> NoReturn:
        sampler.write(Path(os.environ[former.STATE_DIR], FOLDER))
        leave(code)

    runner._leave = write_and_leave
    sys.setswitchinterval(LOOK_SECONDS)
    sampler.start()
    runner.main(events, orders_fd)


class Sampler(threading.Thread):
    """Of all threads of this process but itself."""

    def __init__(self) -> None:
        super().__init__(name="sampler", daemon=True)
        self._milliseconds: dict[tuple[CodeType, ...], float] = defaultdict(float)
        self._seen: dict[int, float] = {}  # by the kernel's number of a thread: its processor time at the last look

    def run(self) -> None:
        while True:
            time.sleep(LOOK_SECONDS)
            self.look()

    def write(self, directory: Path) -> None:
        """DIRECTORY/PID.json"""
        found = {";".join(map(_name, stack)): value for stack, value in self._milliseconds.copy().items()}
        directory.mkdir(exist_ok=True)
        (directory / f"{os.getpid()}.json").write_text(json.dumps(found))

    def look(self) -> None:
        frames = sys._current_frames()
        for thread in threading.enumerate():
            # The main thread's native_id is still that of the process which this one was forked from.
            number = os.getpid() if thread is threading.main_thread() else thread.native_id
            if thread is self or number is None or thread.ident is None:
                continue
            try:
                now = time.clock_gettime(_processor_clock(number))
            except OSError:  # it has ended
                continue
            spent = now - self._seen.get(number, 0.0)
            self._seen[number] = now
            if spent and (frame := frames.get(thread.ident)):
                self._milliseconds[_stack(frame)] += 1000 * spent


def _processor_clock(thread: int) -> int:
    """The number of a thread's own clock: MAKE_THREAD_CPUCLOCK of Linux, include/linux/posix-timers_types.h."""
    return (~thread << 3) | 6


def _stack(frame: FrameType | None) -> tuple[CodeType, ...]:
    """From the thread's own function down, or from the runner's: not what has called them."""
    stack = []
    while frame is not None and frame.f_code is not main.__code__:
        stack.append(frame.f_code)
        frame = frame.f_back
    while len(stack) > 1 and stack[-1].co_filename == threading.__file__:
        stack.pop()
    return tuple(reversed(stack))


def _name(code: CodeType) -> str:
    """Class.function (package/module.py), wherever the package is installed."""
    path = Path(code.co_filename)
    within = next((path.relative_to(place) for place in _PLACES if path.is_relative_to(place)), Path(path.name))
    return f"{code.co_qualname} ({within})"


_PLACES = sorted((Path(place) for place in sys.path if place), key=lambda place: -len(place.parts))
