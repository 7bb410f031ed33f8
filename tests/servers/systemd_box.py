"""A throw-away machine with a real systemd as its process 1 (systemd_box.sh). Needs root.

The box is this machine again: its files as they are, and its network, so that the fleet and each port of a test are
there. What it writes is its own, lasts over its reboots and is gone after stop(). /tmp is its own and empty: a test's
files have to be copied in. Of this machine's services none runs in it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.servers.process import Process, ServerMissing, program, wait_for

SCRIPT = Path(__file__).with_suffix(".sh")
UP = ("running", "degraded")  # of systemctl is-system-running
RUN_SECONDS = 300.0


class SystemdBox:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.process = Process(directory, "systemd")

    def start(self) -> None:
        """Blocks until it has booted."""
        if os.geteuid() != 0:
            raise ServerMissing("the box with systemd needs root (namespaces): run the tests as root")
        if not Path("/lib/systemd/systemd").exists():
            raise ServerMissing("systemd is missing: install systemd")
        self.process.start([program("unshare", "util-linux"), "--mount", "bash", str(SCRIPT), str(self.directory)])
        self._wait_for_boot(former=0)

    def stop(self) -> None:
        """Its services are killed, not asked."""
        (self.directory / "stop").touch()
        if self.process.alive:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            with contextlib.suppress(TimeoutError):
                wait_for("the box to end", lambda: not self.process.alive, 30)
        self.process.stop()
        if (file := self.directory / "cgroup").exists():
            for folder, _, _ in os.walk(file.read_text().strip(), topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)

    def cut_power(self) -> None:
        """All its processes are gone at once; it boots again. Blocks until it has."""
        former = self.pid
        os.kill(former, signal.SIGKILL)
        self._wait_for_boot(former)

    def reboot(self) -> None:
        """Its services are stopped in order, each for as long as it takes; it boots again. Blocks until it has."""
        former = self.pid
        self.run("systemctl", "reboot")
        self._wait_for_boot(former)

    @property
    def pid(self) -> int:
        """Of its process 1, as this machine counts."""
        return int((self.directory / "pid").read_text())

    @property
    def root(self) -> Path:
        """Its files, from outside. Links in it that are absolute lead out of it."""
        return Path(f"/proc/{self.pid}/root")

    def run(self, *command: str, check: bool = True, seconds: float = RUN_SECONDS, **environment: str) -> str:
        """What the command prints, on both streams. Raises AssertionError with it when it fails and check is true."""
        found = self.run_any(*command, seconds=seconds, **environment)
        assert not check or found.returncode == 0, f"{command} ended with {found.returncode}:\n{found.stdout}"
        return found.stdout

    def run_any(
        self, *command: str, seconds: float = RUN_SECONDS, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Its exit code, with both streams as stdout."""
        inside = ["nsenter", "-t", str(self.pid), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", "--"]
        return subprocess.run(
            [*inside, *command],
            env={**os.environ, "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": "", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )

    def show(self, unit: str, name: str) -> str:
        """A property of a unit, as systemctl show knows it."""
        return self.run("systemctl", "show", "--value", "-p", name, unit).strip()

    def journal(self, unit: str) -> str:
        """The text of each line alone."""
        return self.run("journalctl", "-o", "cat", "-u", unit)

    def processes(self, unit: str, title: str = "") -> dict[int, str]:
        """Every process of the unit's control group whose command line holds title, with its number on this machine."""
        if not (group := self.show(unit, "ControlGroup")):  # it does not run
            return {}
        found = {}
        for file in (Path((self.directory / "cgroup").read_text().strip()) / group.strip("/")).glob("**/cgroup.procs"):
            with contextlib.suppress(OSError):  # ended meanwhile
                for pid in file.read_text().split():
                    line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    found[int(pid)] = line
        return {pid: line for pid, line in found.items() if title in line}

    def copy_in(self, source: Path, target: str, leave_out: Callable[[str, list[str]], set[str]] | None = None) -> None:
        """A folder or a file, with its modes; target is its path in the box."""
        place = self.root / target.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, place, symlinks=True, ignore=leave_out)
        else:
            shutil.copy2(source, place)

    def _wait_for_boot(self, former: int) -> None:
        def booted() -> bool:
            with contextlib.suppress(FileNotFoundError, ValueError):
                if self.pid == former:
                    return False
                return self.run_any("systemctl", "is-system-running").stdout.strip() in UP
            return False

        self.process.wait_until(booted)
