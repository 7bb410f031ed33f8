"""One child of a supervisor: the process that runs, when it was heard from, and when it is to be started again."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass

from contract import notify, supervised
from contract.errors import ConfigError

RESTART_PAUSE_SECONDS = 1.0  # before the first restart; doubled at each further one
LONGEST_PAUSE_SECONDS = 30.0
WELL_SECONDS = 60.0  # who lived for so long starts over with the shortest pause

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Child:
    """What to keep alive: a command, and how long it may take to stop.

    ends_last: at a stop of the service it is told only when the others have ended, for it tells of them.
    """

    name: str
    argv: tuple[str, ...]
    stop_seconds: float
    ends_last: bool = False


class KeptChild:
    """A child in its supervisor. Times are of the monotonic clock; no call blocks."""

    def __init__(self, child: Child, hang_seconds: float) -> None:
        self.child = child
        self.is_ready = False
        self.start_at: float | None = time.monotonic()  # None: it runs, or is not to be started any more
        self.kill_at: float | None = None  # set when it was told to stop
        self._hang_seconds = hang_seconds
        self.is_leaving = False  # told to end at a reload; `successor` takes its place
        self.successor: Child | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline: socket.socket | None = None
        self._started_at = 0.0
        self._heard_at = 0.0
        self._killed_because = ""
        self._status = ""
        self._pause_seconds = RESTART_PAUSE_SECONDS

    @property
    def is_running(self) -> bool:
        return self._process is not None

    @property
    def is_heard(self) -> bool:
        """False when it runs and has said nothing for too long."""
        return not self.is_running or time.monotonic() < self._heard_at + self._hang_seconds

    @property
    def deadlines(self) -> list[float]:
        """When to look at it again though it has said nothing; none for one that was killed and is not gone yet."""
        if not self.is_running:
            return [] if self.start_at is None else [self.start_at]
        if self._killed_because:
            return []
        return [self._heard_at + self._hang_seconds, *([] if self.kill_at is None else [self.kill_at])]

    @property
    def status(self) -> str:
        return f"{self.child.name}: {self._status or ('runs' if self.is_ready else 'starts')}"

    def start(self) -> socket.socket | None:
        """fork and exec; the child gets one end of a new lifeline and nothing else of ours, the other is returned.

        None when it could not be started; it is then due again after the pause.
        """
        now = time.monotonic()
        self.start_at, self.is_ready, self._status, self._killed_because = None, False, "", ""
        self.kill_at = None
        self._started_at = self._heard_at = now
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            environment = {name: value for name, value in os.environ.items() if name not in notify.VARIABLES}
            environment[supervised.VARIABLE] = str(theirs.fileno())
            try:
                # A process group of its own: Ctrl-C reaches the supervisor alone, which passes it on once.
                self._process = subprocess.Popen(
                    self.child.argv,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    process_group=0,
                )
            except OSError as exc:
                ours.close()
                self._status = f"cannot be started: {exc}"
                self.start_again()
                return None
        ours.setblocking(False)
        self._lifeline = ours
        log.info("child started", extra={"child": self.child.name, "pid": self._process.pid})
        return ours

    def listen_anew(self) -> None:
        """Count its silence from now on."""
        self._heard_at = time.monotonic()

    def hear(self, connection: socket.socket) -> bool:
        """Read what it has said; False when its end of the lifeline is closed."""
        while True:
            try:
                message = connection.recv(4096)
            except BlockingIOError:
                return True
            except ConnectionResetError:  # it went with words of ours unread; told once, and its own are there still
                continue
            if not message:
                return False
            self._heard_at = time.monotonic()
            if message == supervised.READY:
                self.is_ready = True
            elif message.startswith(supervised.STATUS):
                self._status = message.removeprefix(supervised.STATUS).decode(errors="replace")

    def have_read_again(self) -> None:
        """Tell it that the configuration has changed; it looks at its next turn."""
        self._tell(supervised.RELOAD)

    def tell_restarts(self, run: str, number: int) -> None:
        """Tell it how many children were started again in this run of the supervisor."""
        self._tell(supervised.RESTARTS + f"{run} {number}".encode())

    def _tell(self, message: bytes) -> None:
        if self._lifeline is not None:
            with contextlib.suppress(OSError):  # gone; or full, of words that say no less
                self._lifeline.send(message, socket.MSG_NOSIGNAL)

    def leave_to(self, successor: Child | None) -> None:
        """End it, and have the other one started in its place, or nothing."""
        self.is_leaving, self.successor = True, successor
        if self.kill_at is None:
            self.kill_at = time.monotonic() + self.child.stop_seconds
            self.send(signal.SIGTERM)

    def send(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def kill(self, reason: str) -> None:
        """SIGKILL, once; the reason is told when it has ended."""
        if self._process is not None and not self._killed_because:
            self._killed_because = reason
            self._process.kill()

    def reap(self) -> int | None:
        """Its return code, once, when it has ended."""
        if self._process is None or (code := self._process.poll()) is None:
            return None
        if self._lifeline is not None and self._lifeline.fileno() >= 0:
            self.hear(self._lifeline)  # its last words
        self._process, self.is_ready = None, False
        if code != ConfigError.EXIT_CODE or not self._status:  # else it has said itself what is wrong
            self._status = self._killed_because or _described(code)
        log.info("child ended", extra={"child": self.child.name, "reason": self._status})
        return code

    def start_again(self) -> None:
        """Make it due after a pause that grows with every death, and is short again for one that lived well."""
        now = time.monotonic()
        if now - self._started_at >= WELL_SECONDS:
            self._pause_seconds = RESTART_PAUSE_SECONDS
        self.start_at = now + self._pause_seconds
        log.error(
            "child is started again after a pause",
            extra={"child": self.child.name, "reason": self._status, "pause_seconds": self._pause_seconds},
        )
        self._pause_seconds = min(2 * self._pause_seconds, LONGEST_PAUSE_SECONDS)


def _described(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
