"""Controller CPU a host for `shell: echo hi`: this engine's whole process tree against the `ansible` command.

    .venv/bin/python -m benchmarks.shell_cpu [--hosts 120] [--rounds 5]

The contestants take turns in one run, medians are printed. Counted is user + system time of every process that the
contestant starts, read from the kernel: the engine's supervisor, consumer, launcher, guards and runners; the ansible
command with its workers, ssh clients and multiplexing masters. Not counted: sshd and the modules on the hosts' side,
distribute. "tuned" is pipelining and KexAlgorithms=curve25519-sha256 with the same -f 30.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.services import Services, running_fleet
from tests.servers.fleet import Fleet

TICKS = os.sysconf("SC_CLK_TCK")
PR_SET_CHILD_SUBREAPER = 36


def tree_cpu_seconds(root: psutil.Process) -> float:
    """User and system time of the processes of the tree, with those of children that they have waited for."""
    total = 0.0
    for process in [root, *root.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def engine_cpu(services: Services, hosts: list[str]) -> float:
    """CPU seconds that one task costs the engine."""
    engine = psutil.Process(services.engine_pid)
    before = tree_cpu_seconds(engine)
    counts = services.run(hosts, "shell", "echo hi")["counts"]
    time.sleep(1)  # guards are reaped by now, so that their time stands in the launcher's
    assert counts["success"] == len(hosts), counts
    return tree_cpu_seconds(engine) - before


def ansible(scratch: Path, fleet: Fleet, hosts: list[str], tuned: bool) -> float:
    """One `ansible` command; being the subreaper, this process inherits its ssh masters and counts them too."""
    ssh_args = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(scratch),
        "ANSIBLE_HOST_KEY_CHECKING": "False",
        "ANSIBLE_SSH_EXTRA_ARGS": ssh_args + (" -o KexAlgorithms=curve25519-sha256" if tuned else ""),
        "ANSIBLE_PIPELINING": str(tuned),
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(scratch / "cp"),
    }
    command = [
        str(Path(sys.executable).with_name("ansible")), "all", "-i", ",".join(hosts) + ",", "-f", "30",
        "-u", "ee-ops", "--private-key", str(fleet.key), "-m", "shell", "-a", "echo hi",
        "-e", f"ansible_port={fleet.port} ansible_python_interpreter=/usr/bin/python3",
    ]  # fmt: skip
    before = children_cpu_seconds()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, cwd=scratch)
    for master in ssh_masters():
        master.terminate()
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0] or ssh_masters():
            time.sleep(0.02)
    return children_cpu_seconds() - before


def ssh_masters() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # ended meanwhile
            if child.name() == "ssh":
                found.append(child)
    return found


def children_cpu_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--port", type=int, default=18007)
    options = parser.parse_args()
    hosts = [f"127.100.{n // 250}.{n % 250 + 1}" for n in range(options.hosts)]
    seconds: dict[str, list[float]] = {"engine": [], "ansible, defaults": [], "ansible, tuned": []}
    with tempfile.TemporaryDirectory(prefix="ee-bench-") as name, running_fleet(Path(name) / "fleet") as fleet:
        services = Services(Path(name), fleet, options.port, slots=120)
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        try:
            engine_cpu(services, hosts[:3])  # the first unit after a start pays for what is cached afterwards
            for _ in range(options.rounds):
                seconds["engine"].append(engine_cpu(services, hosts))
                seconds["ansible, defaults"].append(ansible(Path(name), fleet, hosts, tuned=False))
                seconds["ansible, tuned"].append(ansible(Path(name), fleet, hosts, tuned=True))
        finally:
            services.stop()
    engine = statistics.median(seconds["engine"])
    print(f"{'':20} CPU ms a host: median   least    most   ratio engine / this")
    for contestant, values in seconds.items():
        low, middle, high = (1000 * f(values) / options.hosts for f in (min, statistics.median, max))
        print(f"{contestant:20} {middle:21.1f} {low:7.1f} {high:7.1f} {engine / statistics.median(values):12.3f}")


if __name__ == "__main__":
    main()
