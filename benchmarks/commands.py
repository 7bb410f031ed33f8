"""The contestants that are commands: Ansible's own, ClusterShell's and parallel-ssh's."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cpu import Spent, spent_by
from tests.servers.fleet import Fleet
from tests.servers.process import ServerMissing

SSH_OPTIONS = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")
PYTHON = "/usr/bin/python3"  # on the hosts, as the engine has it: nobody has to look for it


@dataclass(frozen=True)
class Command:
    argv: Sequence[str]
    env: dict[str, str]
    scratch: Path
    hosts: int

    def cpu_ms_a_host(self) -> float:
        """One run's CPU with all that it starts, ssh's masters too."""
        return 1000 * self._run().cpu_seconds / self.hosts

    def wall_seconds(self) -> float:
        """One run's, to the command's end."""
        return self._run().wall_seconds

    def _run(self) -> Spent:
        return spent_by(self.argv, self.env, self.scratch)


@dataclass(frozen=True)
class Commands:
    fleet: Fleet
    scratch: Path  # its path is short: ssh's control sockets lie in it
    hosts: Sequence[str]

    def ansible(self, module: str, args: str, *, tuned: bool) -> Command:
        return self._ansible(["ansible", "all", "-m", module, "-a", args], tuned)

    def playbook(self, path: Path, *, tuned: bool) -> Command:
        return self._ansible(["ansible-playbook", str(path)], tuned)

    def _ansible(self, argv: list[str], tuned: bool) -> Command:
        """Defaults, but for what it takes to reach the fleet; tuned is as fast as its own settings make it."""
        ssh_args = " ".join(f"-o {option}" for option in SSH_OPTIONS)
        env = self._env() | {
            "ANSIBLE_SSH_EXTRA_ARGS": ssh_args + tuned * " -o KexAlgorithms=curve25519-sha256",
            "ANSIBLE_HOST_KEY_CHECKING": "False",
            # A fresh place: no run finds the masters of the one before.
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.scratch / secrets.token_hex(4)),
        }
        if tuned:
            env |= {"ANSIBLE_PIPELINING": "True", "ANSIBLE_FORKS": str(len(self.hosts)), "ANSIBLE_STRATEGY": "free"}
        argv[1:1] = ["-i", ",".join(self.hosts) + ",", "-u", self.fleet.user, "--private-key", str(self.fleet.key)]
        argv += ["-e", f"ansible_port={self.fleet.port} ansible_python_interpreter={PYTHON}"]
        return Command([_beside_python(argv[0]), *argv[1:]], env, self.scratch, len(self.hosts))

    def clush(self, text: str) -> Command:
        """All hosts at once, and as many answers gathered into one (-b), as it is used."""
        ssh = [f"-i {self.fleet.key}", f"-p {self.fleet.port}", *(f"-o {option}" for option in SSH_OPTIONS)]
        argv = ["clush", "-b", "-f", str(len(self.hosts)), "-w", ",".join(self.hosts), "-l", self.fleet.user]
        argv += ["-o", " ".join(ssh), text]
        return Command([_beside_python(argv[0]), *argv[1:]], self._env(), self.scratch, len(self.hosts))

    def _env(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "HOME": str(self.scratch), "LC_ALL": "C.UTF-8"}


def _beside_python(name: str) -> str:
    """A program of this environment. Raises ServerMissing with what to do."""
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        raise ServerMissing(f"{name} is missing beside {sys.executable}: ./script/setup benchmarks installs it")
    return str(path)
