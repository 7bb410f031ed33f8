"""A machine of its own with the kernel's NFS client: a QEMU guest that mounts the share of an NfsServer. Needs root.

The guest is this machine again: it has all its files at the same places (virtiofs), as they are when it first looks at
them, and keeps what it writes in memory. So the checkout, its .venv and every program are there. Each address of the
fleet is the fleet's; what listens on 127.0.0.1 of the machine is at MACHINE. It is emulated (no KVM): a program needs
ten to twenty times as long.
"""

from __future__ import annotations

import configparser
import fcntl
import re
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.servers.nfs import NfsServer
from tests.servers.process import Process, ServerMissing, program, wait_for

INIT = Path(__file__).with_suffix(".sh")
ROOT = Path(__file__).parents[2]
MODULES = ("virtio_pci", "virtio_net", "virtiofs", "nfsv4", "overlay")
MEMORY = "1024M"
MACHINE = "10.0.2.2"
STATUS = "guest-status "
MOUNT_UNIT = ROOT / "conf/nfs/mnt.mount"


class NfsGuest:
    """Where the shipped mount unit says, and with its options, the guest has the export `share` of server.

    The server may be paused or killed meanwhile.
    """

    def __init__(self, directory: Path, server: NfsServer, timeo: int) -> None:
        """timeo, in tenths of a second, takes the shipped one's place: a request to a dead server fails after three."""
        self.directory = directory
        self.server = server
        self.mount_point, options = _shipped()
        self.options = re.sub(r"\btimeo=\d+", f"timeo={timeo}", options)
        self._files = Process(directory, "virtiofsd")
        self.process = Process(directory, "guest")
        self._output = directory / "output"

    def start(self, script: str) -> None:
        """Boot, and run a bash script in the checkout. Returns at once. Raises ServerMissing with what is missing."""
        emulator = program("qemu-system-x86_64", "qemu-system-x86")
        files, initrd = boot_files(), self.directory / "initrd"
        _write_initrd(files / "memory", initrd)
        socket_options = [f"--socket-path={self.directory}/files", "-o", "source=/"]
        self._files.start([_virtiofsd(), "-f", *socket_options, "-o", "cache=always", "-o", "sandbox=chroot"])
        self._files.wait_until((self.directory / "files").exists)
        (self.directory / "script").write_text(f"cd {ROOT}\n{script}\n")
        environment = {
            "MACHINE": MACHINE,
            "SHARE_PORT": self.server.port,
            "MOUNT_POINT": self.mount_point,
            "MOUNT_OPTIONS": self.options,
            "SCRIPT": self.directory / "script",
        }
        words = ["console=ttyS0", "quiet", "panic=1", "mitigations=off", f"rdinit=/{INIT.name}"]
        words += [f"{name}={value}" for name, value in environment.items()]
        self._output.unlink(missing_ok=True)
        self.process.start([
            emulator, "-accel", "tcg", "-cpu", "max", "-m", MEMORY, "-display", "none", "-nodefaults",
            "-no-reboot", "-kernel", str(files / "vmlinuz"), "-initrd", str(initrd), "-append", " ".join(words),
            "-object", f"memory-backend-memfd,id=memory,size={MEMORY},share=on", "-numa", "node,memdev=memory",
            "-chardev", f"socket,id=files,path={self.directory}/files",
            "-device", "vhost-user-fs-pci,chardev=files,tag=machine",
            "-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile=", "-serial", "stdio",
            "-chardev", f"socket,id=script,path={self.directory}/tty,server=on,wait=off,logfile={self._output}",
            "-serial", "chardev:script",
        ])  # fmt: skip

    def output(self) -> str:
        """What the script has said so far."""
        return self._output.read_text(errors="replace") if self._output.exists() else ""

    def wait_for_line(self, line: str, seconds: float = 300) -> None:
        """Blocks until the script has said this line."""
        self.process.wait_until(lambda: line in self.output().split("\n")[:-1], seconds)

    def tell(self, line: str) -> None:
        """A line of up to 4 kB for the script to read from its standard input. Blocks until the guest has it."""
        with socket.socket(socket.AF_UNIX) as tty:
            tty.settimeout(60)
            tty.connect(f"{self.directory}/tty")
            tty.sendall(f"{line}\n".encode())
            tty.shutdown(socket.SHUT_WR)
            while tty.recv(1 << 16):  # where it is closed at once, the guest gets the first 8 bytes
                pass

    def ask(self, line: str, seconds: float = 300) -> str:
        """tell() it, and block until the script has said a line, which is returned."""
        before = self.output().count("\n")
        self.tell(line)
        self.process.wait_until(lambda: self.output().count("\n") > before, seconds)
        return self.output().split("\n")[before]

    def result(self, seconds: float = 300) -> tuple[int, str]:
        """Blocks until the guest is off. The script's exit status, and all that it has said."""
        wait_for("the guest to end", lambda: not self.process.alive, seconds)
        said, found, status = self.output().rpartition(STATUS)
        if not found:
            raise RuntimeError(f"the guest died:\n{self.output()}\n{self.process.log()}")
        return int(status), said

    def run(self, script: str, seconds: float = 300) -> tuple[int, str]:
        """start() and result()."""
        try:
            self.start(script)
            return self.result(seconds)
        finally:
            self.stop()

    def stop(self) -> None:
        self.process.stop(seconds=5)
        self._files.stop()


def _shipped() -> tuple[str, str]:
    """Where and Options of the mount unit, without those that are for systemd: no mount gets to see them."""
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(MOUNT_UNIT)
    mount = unit["Mount"]
    options = [option for option in mount["Options"].split(",") if option not in ("_netdev", "nofail")]
    return mount["Where"], ",".join(options)


def _virtiofsd() -> str:
    for found in ("/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd"):
        if Path(found).exists():
            return found
    raise ServerMissing("virtiofsd is missing: install qemu-system-common, or from Debian 13 on virtiofsd")


def boot_files() -> Path:
    """A folder with vmlinuz and what has to be in memory to mount the rest; the first call fills it (28 MB by apt)."""
    folder = Path.home() / ".cache/execute-engine/nfs-guest-3"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
                _download(Path(scratch))
                _pick(Path(scratch), Path(scratch) / "picked")
                (Path(scratch) / "picked").rename(folder)
    return folder


def _download(folder: Path) -> None:
    """Debian's kernel for virtual machines and a busybox that needs no libraries, unpacked and not installed."""
    apt, cache = program("apt-get", "apt"), program("apt-cache", "apt")
    depends = [cache, "depends", "linux-image-cloud-amd64"]
    if not (found := subprocess.run(depends, capture_output=True, text=True, check=False).stdout):
        subprocess.run([apt, "update", "-qq"], check=True)
        found = subprocess.run(depends, capture_output=True, text=True, check=True).stdout
    kernels = re.findall(r"Depends: (linux-image-\S+)", found)
    download = [apt, "download", "-qq", "-o", "APT::Sandbox::User=root", "busybox-static", *kernels]
    if subprocess.run(download, cwd=folder, check=False).returncode:  # its lists may be old
        subprocess.run([apt, "update", "-qq"], check=True)
        subprocess.run(download, cwd=folder, check=True)
    for package in folder.glob("*.deb"):
        subprocess.run([program("dpkg-deb", "dpkg"), "-x", str(package), str(folder)], check=True)


def _pick(source: Path, target: Path) -> None:
    (target / "memory/modules").mkdir(parents=True)
    next(source.glob("boot/vmlinuz-*")).rename(target / "vmlinuz")
    (source / "bin/busybox").rename(target / "memory/busybox")
    known = {path.stem.replace("-", "_"): path for path in source.glob("lib/modules/**/*.ko")}
    order = list(dict.fromkeys(name for module in MODULES for name in _with_what_it_needs(module, known)))
    for name in order:
        known[name].rename(target / "memory/modules" / name)
    (target / "memory/modules/order").write_text("".join(f"{name}\n" for name in order))


def _with_what_it_needs(module: str, known: Mapping[str, Path]) -> Iterator[str]:
    """Names of modules in the order in which the kernel takes them."""
    needs = re.search(rb"\0depends=([^\0]*)\0", known[module].read_bytes())
    assert needs, f"{known[module]} does not say what it depends on"
    for name in filter(None, needs[1].decode().replace("-", "_").split(",")):
        yield from _with_what_it_needs(name, known)
    yield module


def _write_initrd(memory: Path, target: Path) -> None:
    """Two archives, one after the other: the kernel unpacks both."""
    command = [str(memory / "busybox"), "cpio", "-o", "-H", "newc"]
    with target.open("wb") as archive:
        for folder, paths in ((memory, memory.rglob("*")), (INIT.parent, iter([INIT]))):
            names = "".join(f"{path.relative_to(folder)}\n" for path in sorted(paths))
            subprocess.run(
                command, cwd=folder, input=names.encode(), stdout=archive, stderr=subprocess.DEVNULL, check=True
            )
