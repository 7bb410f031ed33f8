"""Real runners in processes of their own, as a guard would start them: preloaded once, forked for each job."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from execute_engine.events import Decoder, encode
from execute_engine.job import Job, SshSettings

ROOT = Path(__file__).parent.parent
PATIENCE_SECONDS = 120.0
WAYS = {  # how workers and connections go together: the fields of Job
    "threads-asyncssh": {},
    "threads-openssh": {"connection": "openssh"},
    "processes": {"workers": "processes", "connection": "openssh"},
}


def one_play(*tasks: str, more: str = "") -> str:
    """A playbook of one play with these tasks, a line of YAML each; more are further lines of the play."""
    lines = "".join(f"    - {task}\n" for task in tasks)
    return f"- hosts: all\n  gather_facts: false\n{more}  tasks:\n{lines}"


class Preloaded:
    """A process with Ansible loaded that forks a runner for each pair of descriptors it is sent."""

    def __init__(self, log: Path, environment: dict[str, str] | None = None) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.runner_process", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **(environment or {})},
            )
        theirs.close()
        self._socket.settimeout(PATIENCE_SECONDS)
        self.plugins = self._socket.recv(1 << 20).decode().split()
        self._runners: list[Runner] = []

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self, job: Job) -> Runner:
        ours, theirs = socket.socketpair()
        orders, writer = os.pipe()
        socket.send_fds(self._socket, [b"run"], [theirs.fileno(), orders])
        theirs.close()
        os.close(orders)
        runner = Runner(int(self._socket.recv(100)), ours, writer, self)
        self._runners.append(runner)
        ours.sendall(encode(job.to_json()))
        return runner

    def wait(self, pid: int) -> tuple[int, float, float]:
        """Exit code, or minus the signal; CPU seconds of the runner and of what it started."""
        self._socket.sendall(b"wait %d" % pid)
        code, own, children = self._socket.recv(1000).split()
        return int(code), float(own), float(children)

    def close(self) -> None:
        for runner in self._runners:  # those that a failed test has left end when nobody holds their pipe
            runner.close()
        self._socket.close()
        self._process.wait(PATIENCE_SECONDS)


class Runner:
    def __init__(self, pid: int, events: socket.socket, orders: int, parent: Preloaded) -> None:
        self.pid = pid
        self.seen: list[dict[str, Any]] = []
        self._events = events
        self._orders = orders
        self._parent = parent
        self._decoder = Decoder()
        self.cpu_seconds = (0.0, 0.0)

    def order_end(self, reason: str = "deadline", seconds: float = 2.0) -> None:
        os.write(self._orders, encode({"order": "end", "reason": reason, "seconds": seconds}))

    def abandon(self) -> None:
        """As if the guard were gone."""
        if self._orders >= 0:
            os.close(self._orders)
            self._orders = -1

    def close(self) -> None:
        self.abandon()
        self._events.close()

    def read_until(self, condition: Callable[[], bool]) -> None:
        """Collect events in .seen until the condition holds, which must be before the runner ends."""
        if not condition():
            assert self.read(lambda event: condition()), f"the runner has ended: {str(self.seen)[-2000:]}"

    def read(self, until: Callable[[dict[str, Any]], bool] = lambda event: False) -> dict[str, Any] | None:
        """Collect events in .seen until one is wanted (returned), or the runner has ended (None)."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            ready, _, _ = select.select([self._events], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"no event for {PATIENCE_SECONDS} s; so far {str(self.seen)[-2000:]}"
            data = self._events.recv(1 << 20)
            events = self._decoder.feed(data)
            self.seen += events
            for event in events:
                if until(event):
                    return event
            if not data:
                return None

    def result(self) -> int:
        """Read to the end; the exit code, or minus the signal."""
        self.read()
        code, own, children = self._parent.wait(self.pid)
        self.cpu_seconds = (own, children)
        self.close()
        return code

    def ended(self, code: int = 0) -> dict[str, dict[str, Any]]:
        """Read to the end, which must be this one; the host_done events by host."""
        found = self.result()
        assert found == code, f"the runner ended with {found}; its events: {str(self.seen)[-2000:]}"
        return self.done()

    def done(self) -> dict[str, dict[str, Any]]:
        """The host_done events by host; there must be one a host."""
        events = [event for event in self.seen if event["event"] == "host_done"]
        by_host = {event["host"]: event for event in events}
        assert len(by_host) == len(events), "a host was reported twice"
        return by_host

    def named(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.seen if event["event"] == name]


def make_job(hosts: list[str], port: int, key: Path | str, files_dir: Path, **fields: Any) -> Job:
    """An ad hoc job for the fleet; fields of Job and of SshSettings replace the defaults."""
    ssh = SshSettings(
        user="ee-ops", port=port, password="", sudo_password="", key_file=str(key), host_key_checking="accept-new"
    )
    own = {name: fields.pop(name) for name in list(fields) if name in SshSettings.__dataclass_fields__}
    job = Job(
        unit_id=1,
        task_id="t",
        type="playbook" if "playbook_content" in fields else "adhoc",
        attempt=1,
        hosts=tuple(hosts),
        timeout_seconds=PATIENCE_SECONDS,
        engine_id="e1",
        ssh=replace(ssh, **own),
        host_keys={},
        connection="asyncssh",
        workers="threads",
        python_interpreter="/usr/bin/python3",
        files_dir=str(files_dir),
        vault_password_file="",
        become=None,
        check=False,
    )
    return replace(job, **fields)


def _serve(connection: socket.socket) -> None:
    from execute_engine import runner

    plugins = runner.preload()
    if directory := os.environ.get("RECORD_DIRECTORY"):
        from execute_engine.callback import Events
        from tests.differential import record

        record.wrap(Events, lambda: Path(directory) / str(os.getpid()))
    if seconds := os.environ.get("STRATEGY_SAFETY_SECONDS"):
        from execute_engine import workers

        workers.SAFETY_SECONDS = float(seconds)
    if seconds := os.environ.get("SSH_KEEPALIVE_SECONDS"):
        from execute_engine.ssh import login

        login.KEEPALIVE_SECONDS = int(seconds)
    connection.sendall(" ".join(plugins).encode())
    ended: dict[int, bytes] = {}
    while True:
        message, descriptors, _, _ = socket.recv_fds(connection, 1000, 2)
        if not message:
            return
        if message == b"run":
            connection.sendall(b"%d" % _fork(runner.main, *descriptors))
        else:
            pid = int(message.split()[1])
            if pid not in ended:
                _, status, usage = os.wait4(pid, 0)
                own = usage.ru_utime + usage.ru_stime
                ended[pid] = f"{os.waitstatus_to_exitcode(status)} {own} 0".encode()
            connection.sendall(ended[pid])


def _fork(main: Callable[[socket.socket, int], Any], events: int, orders: int) -> int:
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        main(socket.socket(fileno=events), orders)
    os.close(events)
    os.close(orders)
    return pid


@contextlib.contextmanager
def preloaded(log: Path, environment: dict[str, str] | None = None) -> Iterator[Preloaded]:
    process = Preloaded(log, environment)
    try:
        yield process
    finally:
        process.close()


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
