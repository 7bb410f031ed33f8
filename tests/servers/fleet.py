"""A fleet of ssh hosts on one machine: one sshd, and every address 127.100.x.y is a host; sick_hosts.py has the sick.

User ee-ops logs in by key and has sudo without password; user ee-pass has a password, for ssh and for sudo; user git
logs in by the same key, and whatever it asks for, git_command is run (git.py).
Users, homes and sudoers exist only inside the fleet's own mount and pid namespace: the machine's files stay as they
are, and stop() ends whatever the hosts still run. The network faults are one nftables table. Needs root.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.servers import sick_hosts
from tests.servers.process import Process, ServerMissing, free_ports, listens, program

OPS, PASS, GIT, PASSWORD = "ee-ops", "ee-pass", "git", "ee-password"
SUDOERS = f"""Defaults timestamp_timeout=0
root ALL=(ALL) ALL
{OPS} ALL=(ALL) NOPASSWD: ALL
{PASS} ALL=(ALL) ALL
"""


class Fleet:
    """key is the path of the private key that ee-ops logs in with, and the host keys stand beside it."""

    user, password_user, password = OPS, PASS, PASSWORD

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.key = directory / "id"
        self.git_home = directory / "home" / GIT
        self.git_command = self.git_home / "command"
        self.port = 0
        self.process = Process(directory, "fleet")

    def start(self) -> None:
        """Blocks until every port answers. A second start keeps keys and takes another port."""
        if os.geteuid() != 0:
            raise ServerMissing("the ssh fleet needs root (namespaces, nftables): run the tests as root")
        sshd = program("sshd", "openssh-server")
        program("nft", "nftables")
        program("sudo", "sudo")
        self.port, other_key, silent = free_ports(3)
        for name in ("id", "host_key", "host_key_2"):
            make_key(self.directory / name)
        self._users()
        for suffix, port in (("", self.port), ("_2", other_key)):
            text = sick_hosts.sshd_config(
                port, f"{self.directory}/host_key{suffix}", "UsePAM no", "AcceptEnv GIT_PROTOCOL"
            )
            (self.directory / f"sshd_config{suffix}").write_text(text)
        self._nft(sick_hosts.nft_rules(self._table, self.port, other_key, silent))
        namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        self.process.start([*namespaces, "sh", "-c", self._inside(sshd, silent)])
        self.process.wait_until(lambda: all(map(listens, (self.port, other_key, silent))))

    def stop(self) -> None:
        self.process.stop()
        if self.port:
            self._nft(f"add table inet {self._table}\ndelete table inet {self._table}")  # no error where there is none

    @staticmethod
    def hosts(kind: str = "healthy", count: int = 1) -> list[str]:
        """The first count addresses of a kind of sick_hosts.NETWORKS."""
        return sick_hosts.hosts(kind, count)

    def cut(self, *addresses: str) -> None:
        """Pull the plug: from now on every packet of ssh to and from these hosts is lost, in open connections too."""
        self._nft(f"add element inet {self._table} cut {{ {', '.join(addresses)} }}")

    def refuse_next(self, *addresses: str) -> None:
        """Flapping hosts forget what they did before: their next connection is refused, the one after not."""
        elements = f"element inet {self._table} refused_once {{ {', '.join(addresses)} }}"
        self._nft(f"add {elements}\ndelete {elements}")  # no error where they were not refused last

    def change_key(self, *addresses: str) -> None:
        """From now on these hosts show another host key than before."""
        self._nft(f"add element inet {self._table} rekeyed {{ {', '.join(addresses)} }}")

    def mend(self, *addresses: str) -> None:
        """These hosts are plugged in and have their first key."""
        for kind in ("cut", "rekeyed"):
            elements = f"element inet {self._table} {kind} {{ {', '.join(addresses)} }}"
            self._nft(f"add {elements}\ndelete {elements}")  # no error where they were not cut

    def sessions(self) -> dict[int, str]:
        """The sshd processes of open connections (pid, command line)."""
        return {pid: line for pid, line in self._all_processes().items() if "sshd" in line and "listener" not in line}

    def processes(self) -> dict[int, str]:
        """What the hosts run now (pid, command line), the fleet's own processes left out."""
        found = self._all_processes()
        return {pid: line for pid, line in found.items() if "sshd" not in line and "create_server" not in line}

    def _all_processes(self) -> dict[int, str]:
        space = Path(f"/proc/{self.process.pid}/ns/pid_for_children").readlink()
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if (entry / "ns/pid").readlink() == space:
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    found[int(entry.name)] = line
            except OSError:  # ended meanwhile
                continue
        return {pid: line for pid, line in found.items() if line}

    @property
    def _table(self) -> str:
        return f"execute_engine_fleet_{self.port}"

    def _inside(self, sshd: str, silent: int) -> str:
        listener = (
            f"import socket, time; s = socket.create_server(('127.0.0.1', {silent}), backlog=4096); time.sleep(1e9)"
        )
        return f"""set -eu; cd '{self.directory}'
for f in passwd shadow sudoers; do mount --bind $f /etc/$f; done
mount --bind home /home; mount -t tmpfs tmpfs /run; mkdir /run/sshd
/usr/bin/python3 -c "{listener}" &
{sshd} -f "$PWD/sshd_config_2"; exec {sshd} -D -e -f "$PWD/sshd_config" """

    def _users(self) -> None:
        command = [program("openssl", "openssl"), "passwd", "-6", "-stdin"]
        hashed = subprocess.run(command, input=PASSWORD, check=True, capture_output=True, text=True).stdout.strip()
        passwd, shadow = (Path("/etc", name).read_text() for name in ("passwd", "shadow"))
        for number, (user, secret) in enumerate(
            {OPS: "*", PASS: hashed, GIT: "*"}.items(), 61001
        ):  # "!" would lock the key too
            passwd += f"{user}:x:{number}:100::/home/{user}:/bin/bash\n"
            shadow += f"{user}:{secret}:19000::::::\n"
            home = self.directory / "home" / user
            (home / ".ssh").mkdir(parents=True, exist_ok=True)
            if user != PASS:
                forced = f'command="/home/{GIT}/command" ' if user == GIT else ""
                (home / ".ssh/authorized_keys").write_text(forced + (self.directory / "id.pub").read_text())
            subprocess.run(["chown", "-R", f"{number}:100", str(home)], check=True)
        for name, text, mode in (("passwd", passwd, 0o644), ("shadow", shadow, 0o600), ("sudoers", SUDOERS, 0o440)):
            (self.directory / name).write_text(text)
            (self.directory / name).chmod(mode)

    @staticmethod
    def _nft(text: str) -> None:
        subprocess.run([program("nft", "nftables"), "-f", "-"], input=text, text=True, check=True)


def make_key(path: Path) -> None:
    """An ed25519 key without passphrase, and PATH.pub beside it; an existing one is kept."""
    if not path.exists():
        command = [program("ssh-keygen", "openssh-client"), "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
