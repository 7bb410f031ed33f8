"""How much an engine runs at once: slots for hosts, runners for units."""

from __future__ import annotations

import os
from dataclasses import dataclass

import psutil

from contract.config import EngineSettings

# Measured: a host costs its runner 13 ms of one core to start a module on, and then waits for the host. A hundred a
# core keep the cores busy when a module takes 1.3 s on its host, which most do.
HOSTS_PER_CORE = 100
HOST_BYTES = 4_000_000  # connection, thread and results of one host
RUNNER_BYTES = 40_000_000  # a forked runner's own pages
LEAST_SLOTS = 30
LEAST_RUNNERS = 64
FORMULA = (
    f"SLOTS = the smaller of {HOSTS_PER_CORE} a core and half of the available memory / {HOST_BYTES // 10**6} MB, "
    f"at least {LEAST_SLOTS}; RUNNERS = available memory / {RUNNER_BYTES // 10**6} MB, at least {LEAST_RUNNERS}; "
    "both unless configured"
)


@dataclass(frozen=True)
class Room:
    """What an engine could take at one moment."""

    free_slots: int
    alone: bool  # nothing runs here: a unit of any size fits
    runner_free: bool

    @property
    def any(self) -> bool:
        return self.runner_free and (self.free_slots > 0 or self.alone)

    def fits(self, hosts: int) -> bool:
        return self.runner_free and (hosts <= self.free_slots or self.alone)

    def free_after(self, hosts: int) -> int:
        return max(0, self.free_slots - hosts)


class Slots:
    """Who holds which slots. A host's slot is free when its result came, a unit's runner when the unit is over."""

    def __init__(self, slots: int, runners: int) -> None:
        """The two may be changed at any time: with fewer, what runs goes on and nothing new fits for a while."""
        self.slots = slots
        self.runners = runners
        self._held: dict[int, int] = {}  # hosts without a result, by unit
        self._blocked_hosts = self._blocked_units = 0

    @property
    def units(self) -> int:
        return len(self._held)

    @property
    def hosts(self) -> int:
        return sum(self._held.values())

    @property
    def free(self) -> int:
        """Never below 0, though a unit that is larger than the engine holds more slots than there are."""
        return max(0, self.slots - self.hosts - self._blocked_hosts)

    def room(self) -> Room:
        return Room(self.free, alone=not self._held, runner_free=self.units + self._blocked_units < self.runners)

    def block(self, hosts: int, units: int) -> None:
        """So many slots and runners are taken by what ended units have left; they are nobody's, and hinder no unit."""
        self._blocked_hosts, self._blocked_units = hosts, units

    def take(self, unit_id: int, hosts: int) -> None:
        self._held[unit_id] = hosts

    def keep(self, unit_id: int, hosts: int) -> None:
        """So many hosts of the unit are still without a result."""
        if unit_id in self._held:
            self._held[unit_id] = hosts

    def release(self, unit_id: int) -> None:
        self._held.pop(unit_id, None)


def from_settings(settings: EngineSettings) -> Slots:
    """None is held."""
    return Slots(*limits(settings))


def limits(settings: EngineSettings) -> tuple[int, int]:
    """[Exec_Engine] SLOTS and RUNNERS, or what FORMULA makes of this machine's cores and available memory."""
    cores = len(os.sched_getaffinity(0))
    memory_bytes = psutil.virtual_memory().available
    slots = settings.slots or max(LEAST_SLOTS, min(HOSTS_PER_CORE * cores, memory_bytes // 2 // HOST_BYTES))
    runners = settings.runners or max(LEAST_RUNNERS, memory_bytes // RUNNER_BYTES)
    return slots, runners
