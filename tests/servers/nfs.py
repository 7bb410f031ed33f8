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

# It keeps nothing in mind, because files are changed without it: by whoever has the folder on a disk of its own.
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
MDCACHE {{ Dir_Chunk = 0; }}
EXPORT_DEFAULTS {{
  SecType = sys; Squash = no_root_squash; Protocols = 4; Transports = TCP; Attr_Expiration_Time = 0;
}}
"""
EXPORT = """EXPORT {{
  Export_Id = {number}; Path = {path}; Pseudo = /{name}; Access_Type = {access}; FSAL {{ Name = VFS; }}
}}
"""


class NfsServer:
    """exports: name to folder; a client finds the folder as /NAME. A second start keeps the port."""

    def __init__(self, directory: Path, exports: Mapping[str, Path]) -> None:
        self.directory = directory
        self.exports = exports
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
        access = "RO" if read_only else "RW"
        config = self.directory / "ganesha.conf"
        config.write_text(
            CONFIG.format(port=self.port, directory=self.directory)
            + "".join(
                EXPORT.format(number=number, path=path.resolve(), name=name, access=access)
                for number, (name, path) in enumerate(self.exports.items(), 1)
            )
        )
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


def _file_system(path: Path) -> str:
    command = [program("stat", "coreutils"), "-f", "-c", "%T", str(path)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
