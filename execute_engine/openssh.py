"""CONNECTION = openssh: Ansible's ssh plugin and the ssh client, with host keys of our own and an end for one host.

For those who need the client's own configuration (ProxyCommand, Kerberos). A host is ended by killing its clients;
what they started there may go on, so stopped_on_host is unknown. The stages are coarse.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection import ssh as ssh_plugin

from execute_engine.job import Job
from execute_engine.output_limit import Budget, Meter
from execute_engine.report import utc_now

ASKPASS = Path(__file__).with_name("askpass")
LAST_WORDS_SECONDS = 2.0
READ_BYTES = 1 << 20
_PROGRAMS = (b"ssh", b"sftp", b"scp")
_budget = Budget()
_current = threading.local()


@dataclass(frozen=True)
class Where:
    stage: str
    since_iso: str
    since_monotonic: float
    quiet_since: float | None = None


class Hosts:
    """The ssh clients of one runner, for threads and processes. Made and started before the first task."""

    def __init__(
        self, job: Job, scratch: Path, emit: Callable[[dict[str, Any]], None], flush: Callable[[float], bool]
    ) -> None:
        """flush blocks until all that was emitted has left this process, so many seconds at most."""
        self._job = job
        self._scratch = scratch
        self._known_hosts = scratch / "known_hosts"
        self._emit = emit
        self._flush = flush
        self._began: dict[str, Where] = {}
        self._told: set[str] = set()
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def start(self) -> None:
        """Writes the known keys; from now on the ssh plugin refuses hosts that were ended."""
        lines = [f"{self._address(host)} {key}\n" for host, keys in self._job.host_keys.items() for key in keys]
        self._known_hosts.write_text("".join(lines))
        self._told.update(line.strip() for line in lines)
        plain, send = ssh_plugin.Connection._run, ssh_plugin.Connection._send_initial_data

        def run(connection: Any, *args: Any, **kwargs: Any) -> Any:
            if reason := self.ended(connection.host):
                raise AnsibleConnectionFailure(reason)
            if os.getpid() == self._pid:  # a worker process has nobody to tell: begin() was called for it
                self.begin(connection.host)
            with self._password_for(connection), _metered(connection.host):
                return plain(connection, *args, **kwargs)

        def send_initial_data(connection: Any, pipe: Any, data: bytes, client: subprocess.Popen[bytes]) -> None:
            """A client that takes no data is about to end, and says why: better words than those of its broken pipe."""
            try:
                send(connection, pipe, data, client)
            except AnsibleConnectionFailure:
                try:
                    client.wait(LAST_WORDS_SECONDS)
                except subprocess.TimeoutExpired:
                    pass
                else:
                    return
                raise

        ssh_plugin.Connection._run = run
        ssh_plugin.Connection._send_initial_data = send_initial_data
        ssh_plugin.subprocess = SimpleNamespace(**{**vars(subprocess), "Popen": _Client})
        ssh_plugin.Connection._init_shm = _askpass  # Ansible's own needs a Python and leaves shared memory when killed

    def variables(self) -> dict[str, Any]:
        """Extra variables for Ansible's ssh plugin."""
        ssh, check = self._job.ssh, self._job.ssh.host_key_checking
        options = [
            "KexAlgorithms=^curve25519-sha256",  # first, the older ones behind it
            f"StrictHostKeyChecking={check}",
            f"UserKnownHostsFile={'/dev/null' if check == 'no' else self._known_hosts}",
            "HashKnownHosts=no",
            "UpdateHostKeys=no",
            "ControlMaster=no",
            "ControlPath=none",
            "ServerAliveInterval=15",
            "ServerAliveCountMax=4",
            "LogLevel=ERROR",
        ]
        if ssh.key_file:
            options.append("IdentitiesOnly=yes")
        return {
            "ansible_ssh_args": shlex.join(word for option in options for word in ("-o", option)),
            "ansible_ssh_common_args": "",
            "ansible_ssh_extra_args": "",
            "ansible_sftp_extra_args": "",
            "ansible_scp_extra_args": "",
            "ansible_ssh_executable": "ssh",
            "ansible_sftp_executable": "sftp",
            "ansible_scp_executable": "scp",
            "ansible_ssh_retries": 0,
            "ansible_control_path": "none",
            "ansible_ssh_password_mechanism": "ssh_askpass",
        }

    def begin(self, host: str) -> None:
        """A client is started now, or a worker process that will start one."""
        first, now = host not in self._began, utc_now()
        self._began[host] = Where("running", now, time.monotonic())
        if first:
            self._emit({"event": "host_started", "host": host, "at": now})
            self._flush(
                self._job.timeout_seconds
            )  # nothing may be started on a host of which the consumer does not know

    def ended(self, host: str) -> str | None:
        """The reason that end() gave; also in a worker process, whose memory is older than that."""
        with contextlib.suppress(FileNotFoundError):
            return self._mark(host).read_text()
        return None

    def _mark(self, host: str) -> Path:
        return self._scratch / f"ended-{host}"

    def where(self, host: str) -> Where | None:
        """Only that a client was started: connecting and running look the same from outside."""
        return self._began.get(host)

    def end(self, hosts: Iterable[str], reason: str, seconds: float) -> dict[str, str]:
        """Kills the clients of these hosts, and those that were on their way; blocks for a tenth of a second."""
        hosts = list(hosts)
        for host in hosts:
            self._mark(host).write_text(reason)
        for _ in range(3):
            if not self._kill(hosts):
                break
            time.sleep(0.05)
        return dict.fromkeys(hosts, "unknown")

    def leave(self, hosts: Iterable[str], reason: str) -> None:
        """A client that is killed ends nothing on its host: the same as end()."""
        self.end(hosts, reason, 0)

    def interrupt(self, host: str, exception: BaseException) -> None:
        """Ends what runs there now; the worker's thread raises by itself as soon as it comes back."""
        self._kill([host])

    def tell_new_keys(self) -> None:
        """Emit the keys that the clients have accepted since the last call."""
        if self._job.ssh.host_key_checking != "accept-new":
            return
        by_address = {self._address(host): host for host in self._job.hosts}
        with self._lock:
            for line in self._known_hosts.read_text().splitlines():
                address, _, key = line.partition(" ")
                if line not in self._told and address in by_address:
                    self._told.add(line)
                    self._emit({"event": "host_key", "host": by_address[address], "key": key})

    def close(self) -> None:
        self.tell_new_keys()

    @contextlib.contextmanager
    def _password_for(self, connection: Any) -> Iterator[None]:
        """A pipe with the password in it while one client runs."""
        if not self._job.ssh.password:
            yield
            return
        pipe = self._scratch / f"askpass-{uuid.uuid4().hex}"
        os.mkfifo(pipe, 0o600)
        descriptor = os.open(pipe, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.write(descriptor, self._job.ssh.password.encode() + b"\n")
            connection.askpass_pipe = pipe
            yield
        finally:
            os.close(descriptor)
            pipe.unlink()

    def _address(self, host: str) -> str:
        return host if self._job.ssh.port == 22 else f"[{host}]:{self._job.ssh.port}"

    def _kill(self, hosts: list[str]) -> bool:
        """Whether there was a client of these hosts among this process's descendants."""
        wanted = {host.encode() for host in hosts} | {f"[{host}]".encode() for host in hosts}
        found = [pid for pid, words in _descendants(os.getpid()) if _is_client(words) and wanted & set(words)]
        for pid in found:
            os.kill(pid, signal.SIGKILL)
        return bool(found)


class _Client(subprocess.Popen[bytes]):
    """An ssh client whose output is metered: the ssh plugin reads whatever comes, into memory."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        meter = getattr(_current, "meter", None)
        if meter is not None:
            self.stdout, self.stderr = (_MeteredPipe(pipe, meter, self) for pipe in (self.stdout, self.stderr))  # type: ignore[assignment,arg-type]


class _MeteredPipe:
    """As much of a pipe's interface as the ssh plugin uses."""

    def __init__(self, pipe: IO[bytes], meter: Meter, client: _Client) -> None:
        self.fileno, self.close = pipe.fileno, pipe.close
        self._meter = meter
        self._client = client

    def read(self) -> bytes:
        """What is there, READ_BYTES or a little more. Raises AnsibleError, and ends the client, when it is too much."""
        data = b""
        with contextlib.suppress(BlockingIOError):
            while len(data) < READ_BYTES and (more := os.read(self.fileno(), READ_BYTES)):
                data += more
        if too_much := self._meter.add(len(data)):
            self._client.kill()
            self._client.wait()
            raise too_much
        return data


@contextlib.contextmanager
def _metered(host: str) -> Iterator[None]:
    """In this thread clients are metered."""
    _current.meter = meter = Meter(host, _budget)
    try:
        yield
    finally:
        meter.close()
        del _current.meter


def _askpass(connection: Any) -> dict[str, Any]:
    """In place of the ssh plugin's _init_shm: how its Popen starts a client that may need a password."""
    pipe = getattr(connection, "askpass_pipe", None)
    if pipe is None:
        return {}
    own = {"SSH_ASKPASS": str(ASKPASS), "SSH_ASKPASS_REQUIRE": "force", "EXECUTE_ENGINE_ASKPASS": str(pipe)}
    return {"env": {"DISPLAY": "-", **os.environ, **own}, "start_new_session": True}


def _is_client(words: list[bytes]) -> bool:
    return bool(words) and os.path.basename(words[0]) in _PROGRAMS


def _descendants(root: int) -> list[tuple[int, list[bytes]]]:
    """pid and command line of every process below root."""
    parents, lines = {}, {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(entry.name)] = int((entry / "stat").read_bytes().rpartition(b")")[2].split()[1])
            lines[int(entry.name)] = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it ended meanwhile
            continue
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return [(pid, lines[pid]) for pid in found - {root} if pid in lines]
