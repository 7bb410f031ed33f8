"""Keeps the processes of a service alive: starts them, restarts those that die or hang, stops them in time."""

from __future__ import annotations

import logging
import selectors
import signal
import time
import uuid
from collections.abc import Callable, Sequence

from contract import notify, processes, reload, signals
from contract.child import Child as Child  # callers need it with Supervisor
from contract.child import KeptChild
from contract.errors import ConfigError

HANG_SECONDS = 30.0
STOP_SPARE_SECONDS = 30.0  # of a stop, for the supervisor itself, after all that it waits for

log = logging.getLogger(__name__)


class Supervisor:
    """Single-threaded; run() returns when every child has ended.

    A child that says nothing for hang_seconds is killed and restarted, also during a stop (then without the restart).
    """

    def __init__(
        self,
        service: str,
        children: Sequence[Child],
        read_again: Callable[[], Sequence[Child]],
        *,
        hang_seconds: float = HANG_SECONDS,
    ) -> None:
        """read_again: at SIGHUP, the children as the configuration wants them now; raises ConfigError."""
        self._read_again = read_again
        self._service = service
        self._children = [KeptChild(child, hang_seconds) for child in children]
        self._hang_seconds = hang_seconds
        self._notifier = notify.Notifier.from_environment()
        self._selector = selectors.DefaultSelector()
        self._exit_code: int | None = None  # set when a stop has begun
        self._said_ready = False
        self._told_status = ""
        self._reload_problem = ""
        self._next_watchdog = time.monotonic()
        self._run = uuid.uuid4().hex  # so that who counts the restarts knows a count that begins anew
        self._restarts = 0

    def run(self) -> int:
        """Keep the children until SIGTERM or SIGINT; returns the exit code of the service.

        0 after a stop; ConfigError.EXIT_CODE when a child ended with it, because no restart would help. A further
        SIGTERM or SIGINT is passed on to the children again. SIGHUP reads the configuration again.
        """
        processes.set_title(f"{self._service}: supervisor")
        wanted = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
        with signals.caught(*wanted) as caught, self._selector:
            self._selector.register(caught, selectors.EVENT_READ)
            while self._exit_code is None or any(kept.is_running for kept in self._children):
                self._start_those_due()
                self._tell_service_manager()
                self._wait_and_hear()
                for number in caught.take():
                    self._obey(number)
                self._reap()
                self._stop_the_last()
                self._kill_those_due()
        log.info("stopped", extra={"exit_code": self._exit_code})
        return self._exit_code

    def _start_those_due(self) -> None:
        now = time.monotonic()
        for kept in self._children:
            if kept.start_at is not None and kept.start_at <= now and (lifeline := kept.start()) is not None:
                self._selector.register(lifeline, selectors.EVENT_READ, (kept, lifeline))
                kept.tell_restarts(self._run, self._restarts)

    def _wait_and_hear(self) -> None:
        """Wait for a signal, for a child's word, or for the next moment at which something is due."""
        deadlines = [deadline for kept in self._children for deadline in kept.deadlines]
        if self._notifier.watchdog_seconds is not None:
            deadlines.append(self._next_watchdog)
        now = time.monotonic()
        wake_at = max(now, min(deadlines, default=now + self._hang_seconds))
        # A wait that a signal interrupted and whose time is over returns nothing, whatever there is to hear: so what
        # is there is asked once more.
        events = self._selector.select(wake_at - now) or self._selector.select(0)
        if time.monotonic() > wake_at + self._hang_seconds / 3:
            # We were stopped ourselves, perhaps with the whole machine: nobody's silence counts.
            for kept in self._children:
                kept.listen_anew()
        for key, _ in events:
            if key.data is None:  # signals, read by the loop
                continue
            kept, lifeline = key.data
            if not kept.hear(lifeline):
                self._selector.unregister(lifeline)
                lifeline.close()

    def _obey(self, number: signal.Signals) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            log.info("stopping", extra={"signal": number.name})
            self._stop(0)
        elif number == signal.SIGHUP and self._exit_code is None:
            self._reload()

    def _reload(self) -> None:
        """Those that stay read it again themselves; one that is not wanted any more, or as another one, ends."""
        if self._said_ready:
            self._notifier.send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            wanted = {child.name: child for child in self._read_again()}
        except ConfigError as exc:
            reload.complain(exc)
            self._reload_problem = f"not reloaded: {exc.problems[0]}"
        else:
            self._reload_problem = ""
            for kept in self._children:
                child = wanted.pop(kept.child.name, None)
                if child == kept.child and not kept.is_leaving:
                    kept.have_read_again()
                else:
                    kept.leave_to(child)
            self._children += [KeptChild(child, self._hang_seconds) for child in wanted.values()]
        if self._said_ready:
            self._notifier.send("READY=1")

    def _stop(self, exit_code: int) -> None:
        """Pass the stop on to the children; the first call decides the exit code and when patience ends."""
        if self._exit_code is None:
            self._exit_code = exit_code
            self._notifier.send("STOPPING=1")
            # The configuration may ask for a longer drain than the unit was written for.
            seconds = sum(self._stop_seconds(ends_last) for ends_last in (False, True)) + STOP_SPARE_SECONDS
            self._notifier.send(f"EXTEND_TIMEOUT_USEC={seconds * 1_000_000:.0f}")
            for kept in self._children:
                kept.start_at = None
                if not kept.child.ends_last:
                    kept.kill_at = time.monotonic() + kept.child.stop_seconds
        for kept in self._children:
            if kept.kill_at is not None:
                kept.send(signal.SIGTERM)

    def _stop_seconds(self, ends_last: bool) -> float:
        return max((kept.child.stop_seconds for kept in self._children if kept.child.ends_last == ends_last), default=0)

    def _stop_the_last(self) -> None:
        if self._exit_code is None or any(kept.is_running and not kept.child.ends_last for kept in self._children):
            return
        for kept in self._children:
            if kept.is_running and kept.kill_at is None:
                kept.kill_at = time.monotonic() + kept.child.stop_seconds
                kept.send(signal.SIGTERM)

    def _reap(self) -> None:
        for kept in tuple(self._children):
            code = kept.reap()
            if self._exit_code is not None:
                continue
            if kept.is_leaving and not kept.is_running:
                self._children.remove(kept)
                if kept.successor is not None:
                    self._children.append(KeptChild(kept.successor, self._hang_seconds))
            elif code is None:
                continue
            elif code == ConfigError.EXIT_CODE:
                self._notifier.send(f"STATUS={kept.status}")
                log.error("stopping: a child cannot use the configuration", extra={"child": kept.child.name})
                self._stop(ConfigError.EXIT_CODE)
            else:
                kept.start_again()
                self._restarts += 1
                for each in self._children:
                    each.tell_restarts(self._run, self._restarts)

    def _kill_those_due(self) -> None:
        now = time.monotonic()
        for kept in self._children:
            if kept.kill_at is not None and kept.kill_at <= now:
                kept.kill(f"still there {kept.child.stop_seconds:g} s after it was told to stop")
            if not kept.is_heard:
                kept.kill(f"not heard from for {self._hang_seconds:g} s")

    def _tell_service_manager(self) -> None:
        if not self._said_ready and all(kept.is_ready for kept in self._children):
            self._said_ready = True
            self._notifier.send("READY=1")
            log.info("ready")
        problem = [self._reload_problem] if self._reload_problem else []
        status = "; ".join([*problem, *(kept.status for kept in self._children)])
        if status != self._told_status:
            self._told_status = status
            self._notifier.send(f"STATUS={status}")
        interval_seconds, now = self._notifier.watchdog_seconds, time.monotonic()
        if interval_seconds is not None and now >= self._next_watchdog:
            self._next_watchdog = now + interval_seconds
            if all(kept.is_heard for kept in self._children):
                self._notifier.send("WATCHDOG=1")
