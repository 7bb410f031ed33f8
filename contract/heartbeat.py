"""What the heartbeats of both services share: proof of progress, counts that are owed, and the way to Zabbix."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from contract import reload
from contract.config import Config, ZabbixSettings
from contract.errors import ZabbixError
from contract.supervised import Lifeline
from contract.zabbix import Trapper

BEAT_SECONDS = 15.0  # for one beat with all addresses
QUIET_SECONDS = 60.0  # what is wrong is logged, and refused values are looked for, once in so long
PROVISION = "python -m execute_engine.zabbix provision"

log = logging.getLogger(__name__)


def changed(lifeline: Lifeline, config: Config, service: str) -> Config | None:
    """The configuration after a reload that changed what is sent, where to or when; else None. Never blocks."""
    if not lifeline.must_reload():
        return None
    fresh = reload.follow(config, service)
    is_the_same = (fresh.zabbix, fresh.intervals.zabbix) == (config.zabbix, config.intervals.zabbix)
    return None if is_the_same else fresh


class Watch:
    """Whether something moves. Moments are monotonic, and of this process: no clock of another one is trusted."""

    def __init__(self, patience_seconds: float) -> None:
        self._patience_seconds = patience_seconds
        self._last: object = None
        self._since: float | None = None  # it moved last, or the watch began
        self._has_moved = False

    def look(self, shown: object, moment: float) -> None:
        """shown is another value than before when it has moved; None when there is nothing to be seen."""
        if self._since is None:
            self._since = moment
        if shown is None:
            return
        if self._last is not None and shown != self._last:
            self._since, self._has_moved = moment, True
        self._last = shown

    def moves(self, moment: float) -> bool | None:
        """It was seen to move within the patience. None: it was not watched for long enough to know.

        What was there when the watch began proves nothing.
        """
        if self._since is not None and moment - self._since > self._patience_seconds:
            return False
        return True if self._has_moved else None


class Debt:
    """What was counted and Zabbix has not taken: a beat that fails loses nothing, nor does a restart of either side.

    The file keeps it over a restart of the heartbeat, as it was at the last paid() or keep().
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._run = ""
        self._seen: dict[str, int] = {}
        self._owed: dict[str, int] = {}
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):  # none yet, or none of ours
            kept = json.loads(file.read_text())
            run, seen, owed = str(kept["run"]), _counts(kept["seen"]), _counts(kept["owed"])
            self._run, self._seen, self._owed = run, seen, owed

    def look(self, run: str, totals: Mapping[str, int]) -> None:
        """totals: what was counted since the run began, which names it."""
        if run != self._run:
            self._run, self._seen = run, {}
        for key, total in totals.items():
            self._owed[key] = self._owed.get(key, 0) + max(0, total - self._seen.get(key, 0))
            self._seen[key] = max(total, self._seen.get(key, 0))

    def values(self) -> dict[str, int]:
        return dict(self._owed)

    def paid(self, values: Mapping[str, object]) -> None:
        """The server took these, which values() has given."""
        for key, value in values.items():
            if key in self._owed and isinstance(value, int):
                self._owed[key] -= value
        self.keep()

    def keep(self) -> None:
        """For who comes after this process."""
        fresh = self._file.with_suffix(".new")
        with suppress(OSError):  # then it is known until this process ends
            fresh.write_text(json.dumps({"run": self._run, "seen": self._seen, "owed": self._owed}))
            fresh.replace(self._file)


def _counts(kept: Mapping[str, object]) -> dict[str, int]:
    return {key: value for key, value in kept.items() if isinstance(value, int)}


@dataclass(frozen=True)
class Delivery:
    """What came of one beat: the values that the server took, and one sentence of what went wrong."""

    taken: dict[str, object]
    problem: str = ""


class Courier:
    """Carries one beat at a time to Zabbix, in a thread of its own: no call of this class blocks, whatever Zabbix does.

    The server says how many values it refused, and not which. So when it has refused some, the next beat goes value by
    value, once in QUIET_SECONDS; nothing is sent twice for it.
    """

    def __init__(self, settings: ZabbixSettings) -> None:
        self._trapper = Trapper(settings)
        self._host = settings.host
        self._thread: threading.Thread | None = None
        self._delivery: Delivery | None = None
        self._refused: frozenset[str] = frozenset()  # as far as they are known
        self._search_at: float | None = None  # set when values were refused
        self._complain_at = float("-inf")
        self._complained = False
        self.problem = ""

    @property
    def idle(self) -> bool:
        return self._thread is None

    def send(self, gather: Callable[[], Mapping[str, object] | None]) -> None:
        """gather, called in the thread, gives the values by key; None or nothing: there is nothing to send."""
        assert self._thread is None, "one beat at a time"
        self._thread = threading.Thread(target=self._carry, args=(gather,), name="zabbix", daemon=True)
        self._thread.start()

    def delivery(self) -> Delivery | None:
        """What came of the beat, once, when it is over; None while it is on its way, or nothing was sent."""
        if self._thread is None or self._thread.is_alive():
            return None
        self._thread = None
        delivery, self._delivery = self._delivery, None
        if delivery is not None:
            self.problem = delivery.problem
            self._tell()
        return delivery

    def _tell(self) -> None:
        moment = time.monotonic()
        if not self.problem and self._complained:
            self._complained = False
            log.info("Zabbix takes all values again")
        elif self.problem and moment >= self._complain_at:
            self._complain_at, self._complained = moment + QUIET_SECONDS, True
            log.warning("the heartbeat was not taken", extra={"reason": self.problem})

    def _carry(self, gather: Callable[[], Mapping[str, object] | None]) -> None:
        values = dict(gather() or {})
        if not values:
            return
        deadline = time.monotonic() + BEAT_SECONDS
        searches = self._search_at is not None and time.monotonic() >= self._search_at
        self._delivery = self._one_by_one(values, deadline) if searches else self._together(values, deadline)

    def _together(self, values: dict[str, object], deadline: float) -> Delivery:
        try:
            refused = self._trapper.send(values, deadline)
        except ZabbixError as exc:
            return Delivery({}, f"Zabbix does not answer: {exc}")
        if not refused:
            self._refused, self._search_at = frozenset(), None
            return Delivery(values)
        if refused >= len(values):
            return Delivery({}, self._all_refused())
        if self._search_at is None:
            self._search_at = time.monotonic()
        taken = {key: value for key, value in values.items() if key not in self._refused}
        return Delivery(taken, self._some_refused(refused, len(values)))

    def _one_by_one(self, values: dict[str, object], deadline: float) -> Delivery:
        self._search_at = time.monotonic() + QUIET_SECONDS
        taken: dict[str, object] = {}
        refused = []
        for key, value in values.items():
            try:
                if self._trapper.send({key: value}, deadline):
                    refused.append(key)
                else:
                    taken[key] = value
            except ZabbixError as exc:
                return Delivery(taken, f"Zabbix does not answer: {exc}")
        self._refused = frozenset(refused)
        if not refused:
            self._search_at = None
            return Delivery(taken)
        return Delivery(taken, self._some_refused(len(refused), len(values)) if taken else self._all_refused())

    def _all_refused(self) -> str:
        return (
            f"Zabbix refuses every value of host {self._host!r}: it does not know this host or none of its items "
            f"({PROVISION} makes them, and the server sees them a minute later), monitors it by another server or "
            f"proxy, or the items' allowed hosts (trapper_hosts) do not name this machine"
        )

    def _some_refused(self, refused: int, count: int) -> str:
        which = f": {', '.join(sorted(self._refused))}" if self._refused else ""
        return (
            f"Zabbix refuses {refused} of {count} values of host {self._host!r}{which}: it has no trapper items with "
            f"these keys ({PROVISION} makes them), or their allowed hosts (trapper_hosts) do not name this machine"
        )
