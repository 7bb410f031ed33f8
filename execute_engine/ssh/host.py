"""One host: the connection that all its commands share, what runs on it now, and how it is ended."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import asyncssh
from ansible.errors import AnsibleError

from execute_engine.ssh.command import BecomePrompt, Command
from execute_engine.ssh.failures import Unreachable, lost_during
from execute_engine.ssh.login import Client
from execute_engine.ssh.progress import Progress, Where
from execute_engine.ssh.transfer import Transfer

if TYPE_CHECKING:
    from execute_engine.ssh.hosts import Hosts

END_SECONDS = 2.0
Work = Callable[["Host", "Operation"], Coroutine[Any, Any, Any]]


class Operation:
    """One call of a worker thread, which waits for `answer`."""

    def __init__(self) -> None:
        self.answer: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self.progress = Progress()
        self.task: asyncio.Task[Any] | None = None
        self.command: Command | None = None
        self.verdict: BaseException | None = None  # what the thread is told, however the work goes on

    def settle(self, result: Any, error: BaseException | None) -> None:
        """From any thread; the first one counts."""
        with contextlib.suppress(concurrent.futures.InvalidStateError):
            if error is not None:
                self.answer.set_exception(error)
            else:
                self.answer.set_result(result)


class Host:
    """`ended` and `operations` may be read in any thread, everything else belongs to the event loop."""

    def __init__(self, name: str, hosts: Hosts) -> None:
        self.name = name
        self.address = hosts.logins.address(name)
        self.ended: str | None = None  # the reason; from then on nothing is started here
        self.operations: tuple[Operation, ...] = ()
        self._hosts = hosts
        self._seen = False
        self._client: Client | None = None
        self._one_login = asyncio.Lock()

    def where(self) -> Where | None:
        found = (operation.progress.look() for operation in self.operations)
        return next((where for where in found if where is not None), None)

    def begin(self, operation: Operation, work: Work) -> None:
        if self.ended is not None:
            operation.settle(None, Unreachable("ended", self.ended))
            return
        self.operations += (operation,)
        operation.task = asyncio.get_running_loop().create_task(work(self, operation))
        operation.task.add_done_callback(lambda task: self._finish(operation, task))

    def _finish(self, operation: Operation, task: asyncio.Task[Any]) -> None:
        self.operations = tuple(other for other in self.operations if other is not operation)
        error = Unreachable("ended", "the connection was closed") if task.cancelled() else task.exception()
        if self.ended is not None:
            error = Unreachable("ended", self.ended)
        error = operation.verdict or error
        operation.settle(None if error is not None else task.result(), error)

    async def run(
        self, operation: Operation, command: str, data: bytes | None, tty: bool, prompt: BecomePrompt | None
    ) -> tuple[int, bytes, bytes]:
        reused = self._client is not None and not self._client.lost
        while True:
            client = await self._connected(operation)
            operation.progress.enter("running")
            session = Command(self.address, operation.progress, self._hosts.budget, data, prompt)
            operation.command = session
            try:
                return await session.run(client.connection, command, tty)
            except Unreachable:
                raise
            except AnsibleError:
                await self._give_up(client, session)
                raise
            except (OSError, asyncssh.Error) as error:
                await asyncio.sleep(0)  # asyncssh tells a loss to the channels one turn before it tells the client
                if reused and client.lost and not session.opened:  # it died while idle, and nothing was started on it
                    reused = False
                    continue
                raise self._not_started(client, session, error) from error

    async def open_file(self, operation: Operation, source: str, target: str, permissions: int | None) -> Transfer:
        client = await self._connected(operation)
        operation.progress.enter("running")
        return await Transfer.open(client.connection, self.address, source, target, permissions)

    async def end(self, verdict: Callable[[], BaseException], seconds: float) -> str:
        """Ends what runs here, drops the connection; the waiting threads get verdict(). yes | no | unknown."""
        operations = self.operations
        for operation in operations:
            operation.verdict = verdict()
        client, self._client = self._client, None  # a thread that goes on meanwhile logs in anew
        commands = [operation.command for operation in operations if operation.command is not None]
        answers = ["yes"]
        if client is not None:
            answers += await asyncio.gather(*(command.end(client.connection, seconds) for command in commands))
        for operation in operations:
            if operation.task is not None:
                operation.task.cancel()
        if client is not None:
            client.abort()
        return next(answer for answer in ("no", "unknown", "yes") if answer in answers)

    def drop(self) -> None:
        """The next command logs in anew."""
        if self._client is not None:
            self._client.abort()
            self._client = None

    async def _connected(self, operation: Operation) -> Client:
        async with self._one_login:
            if self._client is not None and not self._client.lost:
                return self._client
            async with self._hosts.login_slots:
                if not self._seen:
                    self._seen = True
                    self._hosts.tell("host_started", self.name)
                    await self._hosts.told()
                client = await self._hosts.logins.log_in(self.name, operation.progress)
            self._client = client
            if client.new_key:
                self._hosts.tell("host_key", self.name, key=client.new_key)
            return client

    async def _give_up(self, client: Client, session: Command) -> None:
        """What waits for a password, hangs or floods is ended, not only left."""
        await session.end(client.connection, END_SECONDS)
        self.drop()

    def _not_started(self, client: Client, session: Command, error: Exception) -> Unreachable:
        if client.lost and session.opened:
            return lost_during("the start of a command", self.address, error)
        if client.lost:
            return Unreachable("lost", f"{self.address} closed the connection before a command was started")
        text = getattr(error, "reason", None) or str(error)
        return Unreachable("session", f"{self.address} refuses to start a command: {text}")
