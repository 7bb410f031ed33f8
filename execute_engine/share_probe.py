"""Whether the share of project files answers: a child reads a file of it, again and again.

A read from a dead NFS server can hang in the kernel, where no signal ends it. So it is never done here, and such a
child is left alone: no other is started until it has ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from contract import span
from contract.project_files import SHARE_MARK
from execute_engine.timer import Timer

LOOK_SECONDS = 4.0  # from one look to the next
DEADLINE_SECONDS = 5.0  # a look that takes longer hangs
_NOTHING_YET = "nothing is known yet"
_HANGS = "reading it hangs"


class ShareProbe:
    """For one thread, which it never makes wait. Moments are monotonic."""

    def __init__(self, files_dir: Path, marks: Mapping[str, str]) -> None:
        """marks: in the environment of the children, so that a next engine finds those that we leave."""
        self._files_dir = files_dir
        self._environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", **marks}
        self._look = Timer(LOOK_SECONDS)
        self._child: subprocess.Popen[bytes] | None = None
        self._ending: int | None = None  # its pidfd: its output is there before it has ended
        self._begun_at = 0.0
        self._hangs_since: float | None = None
        self._trouble = _NOTHING_YET

    @property
    def answers(self) -> bool:
        """False before the first answer."""
        return not self._trouble

    def problem(self, moment: float) -> str | None:
        """One sentence; None while the share answers, and before the first answer."""
        if self._trouble in ("", _NOTHING_YET):
            return None
        since = "" if self._hangs_since is None else f" for {span.words(moment - self._hangs_since)}"
        return f"project files cannot be read, the share at {self._files_dir} is away: {self._trouble}{since}"

    def source(self) -> int | None:
        """Readable when the child ends."""
        return self._ending

    def due_at(self) -> float:
        """When turn() has something to do though the source is not readable."""
        if self._child is None:
            return self._look.at
        return float("inf") if self._hangs_since is not None else self._begun_at + DEADLINE_SECONDS

    def turn(self, moment: float) -> bool:
        """Look at the child, or start one. True when the share answers and did not before, or the other way round."""
        answered = self.answers
        if self._child is not None:
            self._mind(self._child, moment)
        elif self._look.due(moment):
            self._start(moment)
        return answered != self.answers

    def close(self) -> None:
        if self._child is not None:
            self._child.kill()

    def _start(self, moment: float) -> None:
        self._begun_at = moment
        try:
            self._child = subprocess.Popen(
                ["head", "-c", "1", str(self._files_dir / SHARE_MARK)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=self._environment,
                cwd="/",
                close_fds=False,  # all of ours are closed by exec anyway
            )
            self._ending = os.pidfd_open(self._child.pid)
        except OSError as error:  # no descriptor is left: a child that was started is looked at in each turn
            self._trouble = f"it cannot be looked at: {error}"

    def _mind(self, child: subprocess.Popen[bytes], moment: float) -> None:
        code = child.poll()
        if code is None:
            if moment >= self._begun_at + DEADLINE_SECONDS:
                self._hangs_since = self._begun_at if self._hangs_since is None else self._hangs_since
                self._trouble = _HANGS
                child.kill()  # in vain while the kernel does not let it go
            return
        assert child.stdout is not None
        with child.stdout:
            said = child.stdout.read(1000).decode(errors="replace").strip()
        if self._ending is not None:
            os.close(self._ending)
        self._child = self._ending = None
        if self._hangs_since is not None and code == -signal.SIGKILL:
            return  # that was we, and says nothing new
        self._hangs_since = None
        self._trouble = _words(code, said)


def _words(code: int, said: str) -> str:
    if code == 0:
        return "" if said else f"its {SHARE_MARK} is empty"
    if said.endswith("No such file or directory"):
        return f"not mounted, there is no {SHARE_MARK}"
    return said.rpartition(": ")[2] or f"the look at it ended with {code}"
