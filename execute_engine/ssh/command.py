"""One command on a connection: its output, the become prompt before it, and how it is ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import asyncssh
from ansible.errors import AnsibleConnectionFailure, AnsibleError

from execute_engine.output_limit import Budget, Meter
from execute_engine.ssh.failures import Unreachable, lost_during
from execute_engine.ssh.group_kill import kill_groups
from execute_engine.ssh.progress import Progress

GROUPS_GONE_SECONDS = 0.2


@dataclass(frozen=True)
class BecomePrompt:
    """What a become plugin expects before its command starts, as plain data and functions of one piece of output.

    timeout_seconds: silence for so long while escalating is a failure, as in Ansible's ssh plugin.
    """

    name: str
    waits_for_prompt: bool  # before the success mark; without it the success mark comes first
    password: str | None = field(repr=False)
    is_prompt: Callable[[bytes], bool]
    is_success: Callable[[bytes], bool]
    is_incorrect: Callable[[bytes], bool]
    is_missing: Callable[[bytes], bool]
    timeout_seconds: float


class Command(asyncssh.SSHClientSession[bytes]):
    """The session of one command. Everything happens in the event loop.

    `over` is done when the host has closed the channel, and fails when the connection is lost or the command must be
    given up (become refused, too much output); in the second case the channel is still open.
    """

    channel: asyncssh.SSHClientChannel[bytes]

    def __init__(
        self, address: str, progress: Progress, budget: Budget, data: bytes | None, prompt: BecomePrompt | None
    ) -> None:
        self._address = address
        self._progress = progress
        self._meter = Meter(address, budget)
        self._data = data
        self._escalation = Escalation(prompt) if prompt is not None else None
        self._became: BecomePrompt | None = None  # out of reach of the login user's signals
        self._silence: asyncio.TimerHandle | None = None
        self._output: tuple[list[bytes], list[bytes]] = ([], [])
        self._status: int | None = None
        self._signal: str | None = None
        self.opened = False  # from here on the host may start it
        self.started = False  # the host has said that it did
        self.closed = asyncio.Event()
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, connection: asyncssh.SSHClientConnection, command: str, tty: bool) -> tuple[int, bytes, bytes]:
        """Raises Unreachable where the outcome is unknown, AnsibleError where the command was given up."""
        try:
            await connection.create_session(
                lambda: self,
                command,
                encoding=None,
                request_pty="force" if tty else False,
                term_type=os.environ.get("TERM", ""),
            )
            await self.over
        finally:
            self._meter.close()
            self._stop_watch()
            if not self.over.cancel() and not self.over.cancelled():
                self.over.exception()  # looked at, even where the wait for it was cancelled
        if self._signal is not None:
            raise Unreachable("signal", f"the command at {self._address} was ended by signal {self._signal}")
        if self._status is None:
            raise Unreachable("lost", f"{self._address} ended the command without an exit status: outcome unknown")
        return self._status, b"".join(self._output[0]), b"".join(self._output[1])

    async def end(self, connection: asyncssh.SSHClientConnection, seconds: float) -> str:
        """TERM, then KILL. yes: the host reported the end; no: it did not heed; unknown: it did not answer."""
        if not self.started:
            return "unknown" if self.opened and not self.closed.is_set() else "yes"
        deadline = time.monotonic() + seconds
        connection.set_keepalive(0.45 * seconds, 1)  # tells within `seconds` whether the host still answers
        if not self.closed.is_set():
            password = self._became.password if self._became is not None else None
            await kill_groups(connection, self._became is not None, password, seconds / 2)
            await self._closed_within(GROUPS_GONE_SECONDS)
        for signal, share in (("TERM", 2), ("KILL", 1)):
            if not self.closed.is_set():
                self.channel.send_signal(signal)
                await self._closed_within((deadline - time.monotonic()) / share)
        if not self.closed.is_set():
            return "no"
        return "yes" if self._status is not None or self._signal is not None else "unknown"

    async def _closed_within(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.closed.wait()

    def give_up(self, error: AnsibleError) -> None:
        if not self.over.done():
            self.over.set_exception(error)

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        self.channel = chan
        self.opened = True

    def session_started(self) -> None:
        self.started = True
        if self._escalation is None:
            self._send_data()
        else:
            self._watch_silence()

    def data_received(self, data: bytes, datatype: int | None) -> None:
        stream = 1 if datatype == asyncssh.EXTENDED_DATA_STDERR else 0
        if self._escalation is not None:
            data = self._escalate(self._escalation, stream, data)
        if not data or self.over.done():
            return
        self._progress.output()
        self._output[stream].append(data)
        if too_much := self._meter.add(len(data)):
            self.give_up(too_much)

    def exit_status_received(self, status: int) -> None:
        self._status = status

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        self._signal = signal

    def eof_received(self) -> bool:
        return True  # a command may close its output and go on reading

    def connection_lost(self, exc: Exception | None) -> None:
        if self._escalation is not None:
            for stream in (0, 1):
                self._output[stream].append(self._escalation.rest(stream))
        self.closed.set()
        if self.over.done():
            return
        if exc is None:
            self.over.set_result(None)
        else:
            failure = lost_during("a command", self._address, exc)
            failure.__cause__ = exc
            self.over.set_exception(failure)

    def _send_data(self) -> None:
        """Without data the input stays open and silent until the command ends, as Ansible's ssh plugin leaves it."""
        if self._data:
            self.channel.write(self._data)
            self.channel.write_eof()

    def _escalate(self, escalation: Escalation, stream: int, data: bytes) -> bytes:
        self._watch_silence()
        try:
            answer, kept = escalation.feed(stream, data)
        except AnsibleError as error:
            self.give_up(error)
            return b""
        if answer:
            self.channel.write(answer)
        if escalation.done:
            self._escalation = None
            if escalation.prompt.name == "sudo":
                self._became = escalation.prompt
            self._stop_watch()
            other = 1 - stream
            self._output[other].append(escalation.rest(other))
            kept += escalation.rest(stream)
            self._send_data()
        return kept

    def _watch_silence(self) -> None:
        self._stop_watch()
        if self._escalation is not None:
            loop = asyncio.get_running_loop()
            self._silence = loop.call_later(self._escalation.prompt.timeout_seconds, self._silent)

    def _stop_watch(self) -> None:
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None

    def _silent(self) -> None:
        assert self._escalation is not None
        seconds = int(self._escalation.prompt.timeout_seconds)
        so_far = b"".join(self._output[0]).decode(errors="replace")
        self.give_up(
            AnsibleConnectionFailure(f"Timeout ({seconds}s) waiting for privilege escalation prompt: {so_far}")
        )


class Escalation:
    """Waits for the become plugin's prompt and success mark, line by line, and keeps both out of the output."""

    def __init__(self, prompt: BecomePrompt) -> None:
        self.prompt = prompt
        self.done = False
        self._waits_for_prompt = prompt.waits_for_prompt
        self._seen: set[str] = set()
        self._rest = [b"", b""]

    def feed(self, stream: int, data: bytes) -> tuple[bytes, bytes]:
        """What to write to the command, and the output that is none of become's.

        Raises AnsibleError for a wrong or a missing password, worded as Ansible's ssh plugin has it.
        """
        kept = self._examine(self._rest[stream] + data)
        self._rest[stream] = kept.pop() if kept and not kept[-1].endswith(b"\n") else b""
        answer = b""
        if self._waits_for_prompt and self._seen & {"prompt", "success"}:
            self._waits_for_prompt = False
            if "prompt" in self._seen:
                self._seen.discard("prompt")
                answer = (self.prompt.password or "").encode("utf-8", "surrogateescape") + b"\n"
        if not self._waits_for_prompt:
            self._judge()
        return answer, b"".join(kept)

    def _judge(self) -> None:
        if "success" in self._seen:
            self.done = True
        elif "incorrect" in self._seen:
            raise AnsibleError(f"Incorrect {self.prompt.name} password")
        elif "missing" in self._seen:
            raise AnsibleError(f"Missing {self.prompt.name} password")
        elif "prompt" in self._seen:  # asked again
            raise AnsibleError(f"Incorrect {self.prompt.name} password")

    def rest(self, stream: int) -> bytes:
        """The unfinished last line, once."""
        rest, self._rest[stream] = self._rest[stream], b""
        return rest

    def _examine(self, chunk: bytes) -> list[bytes]:
        """The lines of the chunk that are neither prompt nor success mark."""
        kept = []
        for line in chunk.splitlines(True):
            if self.prompt.password and self.prompt.is_prompt(line):
                self._seen.add("prompt")
            elif line.endswith(b"\n") and self.prompt.is_success(line):  # whole, or its end became output
                self._seen.add("success")
            else:
                kept.append(line)
                if self.prompt.is_incorrect(line):
                    self._seen.add("incorrect")
                elif self.prompt.is_missing(line):
                    self._seen.add("missing")
        return kept
