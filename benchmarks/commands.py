"""The contestants that are commands: Ansible's own, and those that run plain commands on many hosts."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cpu import Spent, spent_by
from tests.servers.fleet import Fleet
from tests.servers.process import ServerMissing

SSH_OPTIONS = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")
# Of OpenSSH's key exchanges the cheapest: the default one, safe from quantum computers, is most of a client's CPU.
FAST_KEY_EXCHANGE = "KexAlgorithms=curve25519-sha256"
PSSH = "parallel-ssh"  # what Debian calls it
PYTHON = "/usr/bin/python3"  # on the hosts, as the engine has it: nobody has to look for it


@dataclass(frozen=True)
class Command:
    """To be run as often as asked for."""

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
    """For the same hosts, with the same login by key."""

    fleet: Fleet
    scratch: Path  # its path is short: ssh's control sockets lie in it
    hosts: Sequence[str]

    def ansible(self, module: str, args: str, *, tuned: bool = False) -> Command:
        return self._ansible(["ansible", "all", "-m", module, "-a", args], tuned)

    def playbook(self, path: Path, *, tuned: bool = False) -> Command:
        return self._ansible(["ansible-playbook", str(path)], tuned)

    def clush(self, text: str, *, tuned: bool = False) -> Command:
        """All hosts at once, equal answers gathered into one (-b), as it is used. tuned: the fast key exchange."""
        ssh = [f"-i {self.fleet.key}", f"-p {self.fleet.port}", *(f"-o {option}" for option in _ssh_options(tuned))]
        argv = ["clush", "-b", "-f", str(len(self.hosts)), "-w", ",".join(self.hosts), "-l", self.fleet.user]
        return self._command([_beside_python(argv[0]), *argv[1:], "-o", " ".join(ssh), text])

    def parallel_ssh(self, text: str) -> Command:
        """The library of that name, in one process."""
        script = Path(__file__).with_name("parallel_ssh.py")
        login = [self.fleet.user, str(self.fleet.port), str(self.fleet.key)]
        return self._command([sys.executable, "-I", str(script), *login, ",".join(self.hosts), text])

    @property
    def has_pssh(self) -> bool:
        return shutil.which(PSSH) is not None

    def pssh(self, text: str, *, tuned: bool = False) -> Command:
        """The command of Debian's package pssh, where has_pssh."""
        options = [f"-O{option}" for option in (*_ssh_options(tuned), f"IdentityFile={self.fleet.key}")]
        targets = [f"-H{self.fleet.user}@{host}:{self.fleet.port}" for host in self.hosts]
        return self._command([PSSH, "-i", "-p", str(len(self.hosts)), *options, *targets, text])

    def _ansible(self, argv: list[str], tuned: bool) -> Command:
        """Defaults, but for what it takes to reach the fleet; tuned is as fast as its own settings make it."""
        env = {
            "ANSIBLE_SSH_EXTRA_ARGS": " ".join(f"-o {option}" for option in _ssh_options(tuned)),
            "ANSIBLE_HOST_KEY_CHECKING": "False",
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.scratch / secrets.token_hex(4)),
        }
        if tuned:
            env |= {"ANSIBLE_PIPELINING": "True", "ANSIBLE_FORKS": str(len(self.hosts)), "ANSIBLE_STRATEGY": "free"}
        argv[1:1] = ["-i", ",".join(self.hosts) + ",", "-u", self.fleet.user, "--private-key", str(self.fleet.key)]
        argv += ["-e", f"ansible_port={self.fleet.port} ansible_python_interpreter={PYTHON}"]
        return self._command([_beside_python(argv[0]), *argv[1:]], env)

    def _command(self, argv: Sequence[str], env: dict[str, str] | None = None) -> Command:
        own = {"PATH": os.environ["PATH"], "HOME": str(self.scratch), "LC_ALL": "C.UTF-8"}
        return Command(argv, own | (env or {}), self.scratch, len(self.hosts))


def _ssh_options(tuned: bool) -> tuple[str, ...]:
    return (*SSH_OPTIONS, FAST_KEY_EXCHANGE) if tuned else SSH_OPTIONS


def _beside_python(name: str) -> str:
    """A program of this environment. Raises ServerMissing with what to do."""
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        raise ServerMissing(f"{name} is missing beside {sys.executable}: ./script/setup installs it")
    return str(path)
