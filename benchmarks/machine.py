"""What the figures were measured on."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

from tests.servers import kafka
from tests.servers.process import ServerMissing, program

PACKAGES = ("ansible-core", "asyncssh", "kafka-python", "SQLAlchemy", "ClusterShell", "parallel-ssh")


def machine() -> dict[str, str | int]:
    """Cores, processor, kernel and versions; what is not installed is left out."""
    found: dict[str, str | int] = {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": _cpu_model(),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    for server, package in (("mariadbd", "mariadb-server"), ("sshd", "openssh-server")):
        with contextlib.suppress(ServerMissing):
            found[server] = _version(program(server, package))
    found["kafka"] = kafka.VERSION
    return found


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(path: str) -> str:
    """The first line of what it says of itself: sshd does so on standard error."""
    said = subprocess.run([path, "-V"], capture_output=True, text=True, check=False)
    return (said.stdout or said.stderr).strip().split("\n")[0].removeprefix(path).strip()
