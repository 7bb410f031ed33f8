"""A fleet without root: one sshd of the current user's own, and every address 127.a.b.c on its port is a host.

It logs in the user who started it, by a key made for it. Nothing of the user's own ssh files is read or changed, and
no other user can log in. The kinds of sick_hosts.BY_THE_NETWORK are not here: they need root.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import signal
import subprocess
from pathlib import Path

from tests.servers import sick_hosts
from tests.servers.fleet import make_key
from tests.servers.process import Process, free_ports, listens, program

MARK = "EXECUTE_ENGINE_FLEET"  # in the environment of whatever the hosts run


class PrivateSshd:
    """key is the path of the private key that user logs in with."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.key = directory / "id"
        self.home = directory / "home"
        self.user = getpass.getuser()
        self.port = 0
        self.process = Process(directory, "sshd")

    def start(self) -> None:
        """Blocks until the port answers. Raises ServerMissing without sshd."""
        sshd = program("sshd", "openssh-server")  # it insists on an absolute path
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(
                mode=0o755, exist_ok=True
            )  # made at boot where the service runs; root's sshd insists
        (self.port,) = free_ports(1)
        for name in ("id", "host_key"):
            make_key(self.directory / name)
        self.home.mkdir(exist_ok=True)
        config = self.directory / "sshd_config"
        host_key = str(self.directory / "host_key")
        config.write_text(sick_hosts.sshd_config(self.port, host_key, *self._options(), user=self.user))
        command = [sshd, "-f", str(config)]
        # From 9.8 on it shuts out an address after some refused logins; before, the option is unknown.
        forgiving = ["-o", "PerSourcePenalties=no"]
        if subprocess.run([*command, *forgiving, "-t"], capture_output=True, check=False).returncode == 0:
            command += forgiving
        self.process.start([*command, "-D", "-e"])
        self.process.wait_until(lambda: listens(self.port))

    def stop(self) -> None:
        """Ends the sshd, its connections, and whatever the hosts still run."""
        self.process.stop()
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    @staticmethod
    def hosts(kind: str = "healthy", count: int = 1) -> list[str]:
        """The first count addresses of a kind, not one of sick_hosts.BY_THE_NETWORK."""
        assert kind not in sick_hosts.BY_THE_NETWORK, f"{kind} needs the fleet of root"
        return sick_hosts.hosts(kind, count)

    def processes(self) -> list[int]:
        """What the hosts run now, found by a mark in its environment: each command has a session of its own."""
        mark = f"{MARK}={self.directory}".encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # ended meanwhile, or another user's
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return found

    def _options(self) -> list[str]:
        return [
            f"AuthorizedKeysFile {self.directory}/id.pub",
            "StrictModes no",  # it would check the path up to the root, and /tmp is open to all; our folder is not
            f"UsePAM {'yes' if _locked(self.user) else 'no'}",
            f"PermitRootLogin {'prohibit-password' if os.geteuid() == 0 else 'no'}",
            "PasswordAuthentication no",
            "PermitUserRC no",
            # A home of its own: the user's .bashrc may do anything (bash reads it when sshd starts it), and Ansible's
            # temporary files do not belong into the user's. One line: sshd reads only the first SetEnv.
            f"SetEnv {MARK}={self.directory} HOME={self.home}",
        ]


def _locked(user: str) -> bool:
    """Whether the password is locked, as only root can see: then sshd lets the key in only where PAM decides."""
    with contextlib.suppress(PermissionError):
        return f"\n{user}:!" in "\n" + Path("/etc/shadow").read_text()
    return False
