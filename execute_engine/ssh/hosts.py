"""The door to all ssh connections of a runner: calls from any thread, one event loop behind them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from execute_engine.job import SshSettings
from execute_engine.output_limit import Budget
from execute_engine.ssh.command import BecomePrompt
from execute_engine.ssh.failures import Unreachable
from execute_engine.ssh.host import END_SECONDS, Host, Operation, Work
from execute_engine.ssh.host_keys import HostKeys
from execute_engine.ssh.login import Logins
from execute_engine.ssh.progress import Where, iso
from execute_engine.ssh.transfer import PIECE_BYTES, Transfer

log = logging.getLogger(__name__)

LOGINS_AT_ONCE = 60  # more starve each other on a busy machine
LOOK_SECONDS = 1.0  # stages shorter than this are not told
LATE_SECONDS = 0.5  # how much longer than promised end() waits for the loop
CLOSE_SECONDS = 2.0
TOLD_SECONDS = 0.02  # between two looks at whether an event was written


class Hosts:
    """All connections of one runner.

    emit is called from the loop's thread with the events host_started, stage and host_key of events.py; it must not
    block for long. told says whether all of them have left this process. Not for use in a child that is forked after
    start(): the loop's thread does not exist there.
    """

    def __init__(
        self,
        ssh: SshSettings,
        host_keys: Mapping[str, tuple[str, ...]],
        emit: Callable[[dict[str, Any]], None],
        told: Callable[[], bool],
    ) -> None:
        self.ssh = ssh
        self._host_keys = HostKeys(ssh.host_key_checking, host_keys)
        self._emit = emit
        self._told = told
        self._hosts: dict[str, Host] = {}
        self._making = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True, name="ssh")
        self._pid = os.getpid()
        self.logins: Logins
        self.login_slots = asyncio.Semaphore(LOGINS_AT_ONCE)
        self.budget = Budget()

    def start(self) -> None:
        """Reads the key and starts the loop. Raises KeyFileError when the key file cannot be used."""
        self.logins = Logins(self.ssh, self._host_keys)
        self._pid = os.getpid()
        self._thread.start()

    def run(
        self, host: str, command: str, data: bytes | None, tty: bool, prompt: BecomePrompt | None
    ) -> tuple[int, bytes, bytes]:
        """Exit status, stdout, stderr. Blocks the calling thread until the command has ended or end() came.

        Raises Unreachable, LoginRefused, or AnsibleError for a refused become and for too much output.
        """
        return self._do(host, lambda at, call: at.run(call, command, data, tty, prompt))  # type: ignore[no-any-return]

    def put(self, host: str, source: str, target: str) -> None:
        """Copies a local file; a new remote file gets its permissions. Raises OSError for what fails locally."""
        with open(source, "rb") as file:
            permissions = os.fstat(file.fileno()).st_mode & 0o777
            transfer = self._open(host, source, target, permissions)
            try:
                while piece := file.read(PIECE_BYTES):
                    self._do(host, functools.partial(_write, transfer, piece))
            except BaseException:
                self._soon(transfer.abandon)
                raise
            self._do(host, lambda at, call: transfer.close())

    def get(self, host: str, source: str, target: str) -> None:
        """Copies a remote file. Raises OSError for what fails locally."""
        transfer = self._open(host, source, target, None)
        try:
            with open(target, "wb") as file:
                while piece := self._do(host, lambda at, call: transfer.read()):
                    file.write(piece)
        finally:
            self._soon(transfer.abandon)

    def reset(self, host: str) -> None:
        """The next command of this host logs in anew."""
        self._soon(self._host(host).drop)

    def end(self, hosts: Iterable[str], reason: str, seconds: float = END_SECONDS) -> dict[str, str]:
        """Ends these hosts for good, side by side; nothing is started on them any more. From any thread.

        What runs gets TERM, after half of `seconds` KILL, then the connection is dropped and the waiting threads get
        Unreachable(reason). Answers host -> stopped_on_host: yes, no, or unknown. Returns within `seconds` + 0.5 s.
        """
        ending = [self._host(name) for name in dict.fromkeys(hosts)]
        for host in ending:
            host.ended = host.ended or reason
        return self._stop(ending, lambda: Unreachable("ended", reason), seconds)

    def leave(self, hosts: Iterable[str], reason: str) -> None:
        """As end(), but what runs on the hosts goes on there, without a connection."""
        leaving = [self._host(name) for name in dict.fromkeys(hosts)]
        for host in leaving:
            host.ended = host.ended or reason
            for operation in host.operations:
                operation.settle(None, Unreachable("ended", reason))
            self._soon(host.drop)

    def interrupt(self, host: str, error: BaseException, seconds: float = END_SECONDS) -> str:
        """Ends what runs on a host now as end() does, raises error in the threads that wait for it.

        The host may go on with another command. Answers stopped_on_host.
        """
        return self._stop([self._host(host)], lambda: error, seconds)[host]

    def ended(self, host: str) -> str | None:
        """The reason that end() gave for this host."""
        found = self._hosts.get(host)
        return found.ended if found is not None else None

    def where(self, host: str) -> Where | None:
        """None: nothing is going on at this host, or it waits for its turn to log in."""
        found = self._hosts.get(host)
        return found.where() if found is not None else None

    def close(self) -> None:
        """Drops every connection, ends the loop. Blocks 2 s at most."""
        for host in list(self._hosts.values()):
            host.ended = host.ended or "the unit is over"
        if not self._thread.is_alive():
            return
        self._soon(self._loop.create_task, self._close())
        self._thread.join(CLOSE_SECONDS)

    def tell(self, event: str, host: str, **facts: Any) -> None:
        """One event to the runner; loop only."""
        if event == "host_started":
            facts["at"] = iso(time.time())
        self._emit({"event": event, "host": host, **facts})

    async def told(self) -> None:
        """Until the consumer knows what was told: nothing may be started on a host of which it does not."""
        while not self._told():
            await asyncio.sleep(TOLD_SECONDS)

    def _host(self, name: str) -> Host:
        with self._making:
            if name not in self._hosts:
                self._hosts[name] = Host(name, self)
            return self._hosts[name]

    def _open(self, host: str, source: str, target: str, permissions: int | None) -> Transfer:
        found: Transfer = self._do(host, lambda at, call: at.open_file(call, source, target, permissions))
        return found

    def _do(self, name: str, work: Work) -> Any:
        """Runs work in the loop for the calling thread, which the unit's deadline or end() gets out of a long wait."""
        host = self._host(name)
        if host.ended is not None:
            raise Unreachable("ended", host.ended)
        if self._pid != os.getpid():
            raise Unreachable("internal", "asyncssh connections stay in the runner: use CONNECTION = openssh here")
        operation = Operation()
        self._soon(host.begin, operation, work)
        return operation.answer.result()

    def _soon(self, call: Callable[..., Any], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError as error:
            raise Unreachable("ended", "the connections of this unit are closed") from error

    def _stop(self, hosts: list[Host], verdict: Callable[[], BaseException], seconds: float) -> dict[str, str]:
        answers = {host.name: "unknown" for host in hosts}
        waiting = [(operation, verdict()) for host in hosts for operation in host.operations]

        async def stop(host: Host) -> None:
            answers[host.name] = await host.end(verdict, seconds)

        async def stop_all() -> None:
            await asyncio.gather(*map(stop, hosts), return_exceptions=True)

        if self._thread.is_alive():
            stopping = asyncio.run_coroutine_threadsafe(stop_all(), self._loop)
            try:
                stopping.result(seconds + LATE_SECONDS)
            except concurrent.futures.TimeoutError:
                log.warning("ssh loop is late in ending hosts", extra={"hosts": len(hosts)})
        for operation, error in waiting:
            operation.settle(None, error)
        return dict(answers)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.call_later(LOOK_SECONDS, self._look)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    def _look(self) -> None:
        self._loop.call_later(LOOK_SECONDS, self._look)
        for host in list(self._hosts.values()):
            for progress in [operation.progress for operation in host.operations]:
                where = progress.look()
                if where is None or progress.told or time.monotonic() - where.since_monotonic < LOOK_SECONDS:
                    continue
                progress.told = True
                self.tell("stage", host.name, stage=where.stage, since=where.since_iso)

    async def _close(self) -> None:
        hosts = list(self._hosts.values())
        await asyncio.gather(*(host.end(lambda: Unreachable("ended", "the unit is over"), 0) for host in hosts))
        for _ in range(3):  # asyncssh closes its transports over a few turns
            await asyncio.sleep(0)
        self._loop.stop()


async def _write(transfer: Transfer, piece: bytes, at: Host, call: Operation) -> None:
    await transfer.write(piece)


_current: Hosts | None = None


def use(hosts: Hosts | None) -> None:
    """Which Hosts the connection plugins of this process use; once, before the first task."""
    global _current
    _current = hosts


def current() -> Hosts:
    if _current is None:
        raise Unreachable("internal", "no ssh connections are set up in this process")
    return _current
