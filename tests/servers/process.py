"""Servers in the background that leave nothing behind, however the process that started them ends.

Each server leads a process group of its own: signals reach its children too. A reaper outside of all these groups
kills them when their starter is gone, after a SIGKILL as well.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")  # not on the PATH of an ordinary user


class ServerMissing(Exception):
    """This machine cannot run the server; the text says what to install or who must start it."""


class Process:
    """One server; its output goes to DIRECTORY/NAME.log. It can be started again after it has ended."""

    def __init__(self, directory: Path, name: str) -> None:
        self.name = name
        self.log_file = directory / f"{name}.log"
        self._child: subprocess.Popen[bytes] | None = None

    def start(self, argv: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        """Returns at once; the log file begins anew."""
        assert not self.alive, f"{self.name} runs already"
        with self.log_file.open("wb") as log:
            self._child = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, start_new_session=True
            )
        _reap_after_us(self._child.pid)

    @property
    def pid(self) -> int:
        """The leader of the server's process group."""
        assert self._child is not None, f"{self.name} was not started"
        return self._child.pid

    @property
    def alive(self) -> bool:
        """Asked without reaping it: as long as it is a zombie its number cannot become somebody else's."""
        if self._child is None or self._child.returncode is not None:
            return False
        return os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def send(self, number: signal.Signals) -> None:
        """Signal the whole group."""
        if self._child is not None and self._child.returncode is None:
            os.killpg(self._child.pid, number)

    def pause(self) -> None:
        """The server hangs, until it is sent SIGCONT: when this returns, no thread of it does anything more."""
        self.send(signal.SIGSTOP)
        threads = Path(f"/proc/{self.pid}/task")
        wait_for(f"{self.name} to stand still", lambda: all(map(_stands_still, threads.iterdir())))

    def stop(self, seconds: float = 30, first: signal.Signals = signal.SIGTERM) -> int | None:
        """Ask it to stop (a paused one too), wait, then kill what is left of its group. Returns its exit code."""
        if self._child is None:
            return None
        for number, patience in ((first, seconds), (signal.SIGKILL, 10)):
            self.send(number)
            self.send(signal.SIGCONT)
            with contextlib.suppress(TimeoutError):
                wait_for(f"{self.name} to stop", lambda: not self.alive, patience)
                break
        self.send(signal.SIGKILL)  # whoever of its group has outlived it
        return self._child.wait(timeout=10)

    def log(self, characters: int = 3000) -> str:
        """The end of its output."""
        return self.log_file.read_text(errors="replace")[-characters:] if self.log_file.exists() else ""

    def wait_until(self, condition: Callable[[], bool], seconds: float = 180) -> None:
        """Raises RuntimeError with the end of the log when the server dies before the condition holds."""

        def ready() -> bool:
            if not self.alive:
                raise RuntimeError(f"{self.name} died:\n{self.log()}")
            return condition()

        wait_for(self.name, ready, seconds)


def _stands_still(thread: Path) -> bool:
    """As the state after the name in brackets says (proc(5), /proc/pid/stat)."""
    with contextlib.suppress(OSError):  # it has ended: another look
        return (thread / "stat").read_text().rpartition(")")[2].split()[0] == "T"
    return False


def wait_for(what: str, condition: Callable[[], T], seconds: float = 120) -> T:
    """Poll until the condition is true and return its value; TimeoutError names what was waited for."""
    deadline = time.monotonic() + seconds
    while True:
        if result := condition():
            return result
        if time.monotonic() >= deadline:
            raise TimeoutError(f"{seconds} s passed, still waiting for {what}")
        time.sleep(0.05)


def listens(port: int, host: str = "127.0.0.1") -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


def free_ports(count: int) -> list[int]:
    """Ports free now, below the range for outgoing connections: one of those could take a killed server's port.

    None is given twice, or looked at again: whoever got it may be about to bind it, in another thread.
    """
    ports: list[int] = []
    with _ports_lock:
        for port in random.sample(sorted(set(range(20000, 32000)) - _ports_given), 500):
            with contextlib.suppress(OSError), socket.create_server(("", port)):
                ports.append(port)
            if len(ports) == count:
                _ports_given.update(ports)
                return ports
    raise OSError("not enough free ports")


def program(name: str, package: str) -> str:
    """The absolute path of a program. Raises ServerMissing with the Debian package that has it."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *SBIN))
    if found := shutil.which(name, path=path):
        return found
    raise ServerMissing(f"{name} is missing: install {package} (./script/setup does it)")


_ports_lock = threading.Lock()
_ports_given: set[int] = set()
_reaper_lock = threading.Lock()
_reaper_input: int | None = None


def _reap_after_us(pid: int) -> None:
    """Tell the reaper of a process group. It kills what is left of all of them when this process ends."""
    global _reaper_input
    with _reaper_lock:
        if _reaper_input is None:
            reads, _reaper_input = os.pipe()
            script = str(Path(__file__).with_name("reaper.py"))
            os.posix_spawn(sys.executable, [sys.executable, script], os.environ, setsid=True, file_actions=[
                (os.POSIX_SPAWN_DUP2, reads, 0), (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
            ])  # fmt: skip
            os.close(reads)
        os.write(_reaper_input, f"{pid}\n".encode())
