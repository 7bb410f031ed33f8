"""The runner of one unit: a process forked from the launcher, with Ansible loaded, that runs one job and reports.

preload() runs once in the launcher, main() in each fork. The modules below it:

    preloading  what is loaded before the fork          plays      one job as Ansible's objects
    workers     Ansible's workers as threads            callback   what Ansible says, as events
    outcome     how a host's tasks become its result    output     texts cut and masked
    report      events to the consumer                  ending     the guard's order to end
    ssh, openssh  the connections                       scratch    the runner's private directory
    payloads    modules, built before the fork          shortcuts  done once, not for every host
    fence       what keeps a client's text off the engine
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from contract import logs
from contract.failpoint import fail_point
from execute_engine import preloading, scratch
from execute_engine.ending import HOST_END_SECONDS, Ending, HostEnding, Limits
from execute_engine.errors import EngineError, RunnerError
from execute_engine.events import Decoder
from execute_engine.job import Job
from execute_engine.outcome import Outcomes
from execute_engine.output import Cleaner, lines_of
from execute_engine.report import Report, utc_now

if TYPE_CHECKING:  # they import Ansible, which preload() must set the surroundings for
    from execute_engine.plays import Plays
    from execute_engine.workers import Thread

log = logging.getLogger(__name__)

_READ_BYTES = 1 << 20
_threads_unusable: list[str] = []


def preload() -> list[str]:
    """Load Ansible and every plugin a run needs; returns their names. Raises RunnerError when something is missing.

    Where this ansible-core is not the one that thread workers know, the log says so and runs use processes.
    """
    names = preloading.load()
    from execute_engine import workers

    _threads_unusable[:] = workers.check()
    for problem in _threads_unusable:
        log.warning("Threads as Ansible's workers cannot be used", extra={"because": problem})
    return names


def main(events: socket.socket, orders_fd: int) -> NoReturn:
    """Reads the job, runs it, reports, and ends the process: 0 when every host was reported, else 1.

    events: one frame in (the job), events out. orders_fd: the guard's pipe. Called once, in a process of its own with
    one thread, after preload().
    """
    code, secret = 1, True
    try:
        job = Job.from_json(_first_frame(events))
        secret = job.no_log
        fail_point("runner-job")
        code = _Run(job, events, orders_fd).to_its_end()
    except BaseException as error:
        if secret:
            log.error("A runner failed, with %s", type(error).__name__)
        else:
            log.exception("A runner failed")
    finally:
        _leave(code)


class _Run:
    """One job, from its first event to its last."""

    def __init__(self, job: Job, events: socket.socket, orders_fd: int) -> None:
        secrets = _secrets(job)
        logs.configure("execute-engine", f"runner {job.unit_id}", secrets)
        self._cleaner = Cleaner(secrets)
        self._report = Report(events, self._cleaner)
        self._job = job = self._possible(job)
        self._outcomes = Outcomes(job.hosts, job.type == "playbook", utc_now)
        self._orders_fd = orders_fd
        self._connections: Any = None
        self._ending: Ending | None = None
        self._host_ending: HostEnding | None = None
        self._plays: Plays | None = None
        self._said: set[str] = set()  # levels

    def to_its_end(self) -> int:
        """Returns the exit code; an order to end leaves the process before."""
        from ansible.errors import AnsibleError

        from execute_engine import workers

        if self._job.no_log:
            workers.show(self._say_something)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Ansible's debugger shows tasks there
        else:
            workers.show(self._report.log)
        try:
            self._run(scratch.make())
        except EngineError as error:
            return self._fail(str(error))
        except (AnsibleError, OSError) as error:
            says = workers.says_without_text if self._job.no_log else workers.says
            return self._fail(says(error))
        except SystemExit:
            return self._fail("a task failed whose play asks for Ansible's debugger, and nobody is here to answer it")
        self._give_way_to_ending()
        self._wait_for_reports()
        self._connections.close()
        return 0 if self._report.flush(self._job.timeout_seconds) else 1

    def _run(self, directory: Path) -> None:
        from execute_engine import workers
        from execute_engine.callback import Events
        from execute_engine.plays import Plays

        variables = self._connect(directory)
        job = self._job
        hosts = self._host_ending = HostEnding(
            self._outcomes, self._report, self._connections, job.engine_id, leaves=job.on_timeout == "leave"
        )
        self._ending = Ending(self._orders_fd, self._outcomes, self._report, hosts, self._stop_workers, _leave)
        self._ending.start()
        Limits(self._outcomes, hosts, job.host_timeout_seconds, job.task_timeout_seconds).start()
        callback = Events(self._outcomes, self._report, self._cleaner, job.type == "playbook", job.no_log, self._begun)
        if self._job.workers == "threads":
            workers.install(self._interrupt)
        if not _threads_unusable:
            workers.watch(callback.nothing_left)
        self._plays = Plays(self._job, directory, variables)
        self._outcomes.hangs_at = self._plays.hangs_at
        self._plays.run(callback)
        callback.recap()

    def _connect(self, directory: Path) -> dict[str, Any]:
        """Start the connections; returns what Ansible must know of them."""
        if self._job.connection == "openssh":
            from execute_engine import openssh

            clients = self._connections = openssh.Hosts(self._job, directory, self._tell, self._report.flush)
            clients.start()
            return clients.variables()
        from execute_engine import ssh

        self._connections = ssh.Hosts(self._job.ssh, self._job.host_keys, self._tell, self._report.written)
        self._connections.start()
        ssh.use(self._connections)
        return {}

    def _tell(self, event: dict[str, Any]) -> None:
        """An event of a connection; never blocks."""
        if event["event"] == "host_started":
            self._outcomes.connected(event["host"], event["at"])
        self._report.send(event)

    def _say_something(self, level: str, _text: str) -> None:
        """Of what Ansible says about secret text."""
        if level not in self._said:
            self._said.add(level)
            self._report.log(level, "Ansible says something that is not shown, because the text of its task is secret")

    def _begun(self, host: str) -> None:
        """What a worker process does with the host's connection, this process does not see."""
        if self._job.workers == "processes":
            self._connections.begin(host)

    def _interrupt(self, worker: Thread, exception: BaseException) -> None:
        self._connections.interrupt(worker.connection_host, exception)

    def _stop_workers(self) -> None:
        """Worker processes, and the clients in their process groups; threads end with this process."""
        manager = self._plays.manager if self._plays else None
        for worker in manager.get_workers() if manager else ():
            if worker is not None and worker.pid and worker.is_alive():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(worker.pid, signal.SIGKILL)

    def _possible(self, job: Job) -> Job:
        """The job as it can be run here: worker processes cannot share asyncssh's connections."""
        if job.workers == "threads" and _threads_unusable:
            self._report.log("warning", f"worker processes instead of threads: {'; '.join(_threads_unusable)}")
            job = replace(job, workers="processes")
        if job.workers == "processes" and job.connection == "asyncssh":
            job = replace(job, connection="openssh")
        return job

    def _fail(self, reason: str) -> int:
        """Nothing more can run: hosts that run something are ended, and those without a result fail with the reason."""
        self._give_way_to_ending()
        if running := self._outcomes.running_hosts():
            self._stop_workers()
            self._connections.end(running, "the playbook ended with an error", HOST_END_SECONDS)
        self._wait_for_reports()
        self._report.send({"event": "unit_failed", "reason": reason})
        self._report.flush(self._job.timeout_seconds)
        return 1

    def _wait_for_reports(self) -> None:
        """Of hosts that a limit has taken out just now."""
        if self._host_ending is not None:
            self._host_ending.wait(2 * HOST_END_SECONDS)

    def _give_way_to_ending(self) -> None:
        if self._ending is not None:
            self._ending.wait_if_begun()


def _first_frame(events: socket.socket) -> dict[str, Any]:
    decoder = Decoder()
    while data := events.recv(_READ_BYTES):
        for frame in decoder.feed(data):
            return frame
    raise RunnerError("the consumer closed the socket before it had sent the job")


def _secrets(job: Job) -> list[str]:
    return [job.ssh.password, job.ssh.sudo_password, *lines_of(job.vault_password_file)]


def _leave(code: int) -> NoReturn:
    """No thread, no exit handler and no buffer of the launcher's is waited for."""
    scratch.remove(os.getpid())
    os._exit(code)
