"""An NFS 4.2 server in user space (nfs-ganesha), on 127.0.0.1 alone. Needs root.

Its clients are nfs-ls, nfs-cat and nfs-cp of libnfs-utils, and the kernel of a guest (nfs_guest.py).
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.servers.process import Process, ServerMissing, free_ports, listens, program

SHIPPED = Path(__file__).parents[2] / "conf/nfs/ganesha.conf"
# Scope and owner: a client that mounts from two servers with the same ones takes them for two ways to one server.
CONFIG = """NFS_CORE_PARAM {{
  Protocols = 4; Bind_addr = 127.0.0.1; NFS_Port = {port};
  Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false;
}}
NFSV4 {{
  Graceless = true; Lease_Lifetime = 10; Grace_Period = 5; Only_Numeric_Owners = true;
  RecoveryBackend = fs; RecoveryRoot = {directory}/recovery;
  Server_Scope = "port-{port}"; Server_Owner = "port-{port}";
}}
"""
# It keeps nothing in mind, because files are changed without it: by whoever has the folder on a disk of its own.
EXPORT = """EXPORT {{
  Export_Id = {number}; Path = {path}; Pseudo = /{name}; Access_Type = {access}; FSAL {{ Name = VFS; }}
  SecType = sys; Squash = no_root_squash; Protocols = 4; Transports = TCP; Attr_Expiration_Time = 0;
}}
"""


class NfsServer:
    """exports: name to folder; a client finds the folder as /NAME. A second start keeps the port.

    as_shipped: the one folder is exported by the text of conf/nfs/ganesha.conf, to clients on 127.0.0.1.
    """

    def __init__(self, directory: Path, exports: Mapping[str, Path], *, as_shipped: bool = False) -> None:
        self.directory = directory
        self.exports = exports
        self.as_shipped = as_shipped
        self.port = 0
        self.process = Process(directory, "ganesha")

    def start(self, *, read_only: bool = False) -> None:
        """Blocks until it serves every export. Raises ServerMissing with what keeps it from running here."""
        if os.geteuid() != 0:
            raise ServerMissing("nfs-ganesha needs root: run the tests as root")
        server = program("ganesha.nfsd", "nfs-ganesha-vfs")
        for path in self.exports.values():
            if (kind := _file_system(path)).startswith("overlay"):
                raise ServerMissing(
                    f"{path} is on {kind}, which NFS cannot export: TMPDIR must be on ext4, xfs or tmpfs"
                )
        if not self.port:
            (self.port,) = free_ports(1)
        (self.directory / "recovery").mkdir(exist_ok=True)
        config = self.directory / "ganesha.conf"
        config.write_text(CONFIG.format(port=self.port, directory=self.directory) + self._exports(read_only))
        inside = (  # it insists on /run/ganesha
            "mount -t tmpfs tmpfs /run; mkdir /run/ganesha; "
            f"exec {server} -F -f {config} -L STDOUT -p {self.directory}/pid"
        )
        self.process.start(["unshare", "--mount", "sh", "-euc", inside])
        self.process.wait_until(lambda: listens(self.port))

    def stop(self) -> None:
        self.process.stop()

    def kill(self) -> None:
        """Connections fail, until it is started again."""
        self.process.stop(first=signal.SIGKILL)

    def pause(self) -> None:
        """Connections stay open and nothing answers."""
        self.process.pause()

    def resume(self) -> None:
        self.process.send(signal.SIGCONT)

    def url(self, path: str) -> str:
        """For nfs-ls, nfs-cat and nfs-cp; path begins with the name of an export."""
        return f"nfs://127.0.0.1/{path}?version=4&nfsport={self.port}"

    def _exports(self, read_only: bool) -> str:
        if self.as_shipped:
            ((name, path),) = self.exports.items()
            return _shipped(path.resolve(), name)
        access = "RO" if read_only else "RW"
        return "".join(
            EXPORT.format(number=number, path=path.resolve(), name=name, access=access)
            for number, (name, path) in enumerate(self.exports.items(), 1)
        )


def _shipped(path: Path, name: str) -> str:
    text = SHIPPED.read_text()
    for there, here in (
        ("Path = /srv/distribute/files;", f"Path = {path};"),
        ("Pseudo = /srv/distribute/files;", f"Pseudo = /{name};"),
        ("Clients = 10.0.0.0/24;", "Clients = 127.0.0.1;"),
    ):
        assert text.count(there) == 1, f"{SHIPPED} has no {there}"
        text = text.replace(there, here)
    return text


def _file_system(path: Path) -> str:
    command = [program("stat", "coreutils"), "-f", "-c", "%T", str(path)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
