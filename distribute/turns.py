"""Which waiting units go out next. No I/O, no clock: all scheduling between tasks is decided here."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from contract.message import UnitMessage
from distribute.store.dispatch import Glance, WaitingTask, WaitingUnit


@dataclass(frozen=True)
class Choice:
    """The units to publish, in this order, as their messages."""

    messages: tuple[UnitMessage, ...]
    last_key: int  # of the task after which the next turn begins
    waits_for_room: bool  # it ended at a unit that is larger than the room, or than the free slots


def in_turn(keys: Sequence[int], after: int) -> list[int]:
    """These ascending keys, beginning with the one after `after` and around to the first."""
    return [key for key in keys if key > after] + [key for key in keys if key <= after]


def portions(keys: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (keys[start : start + size] for start in range(0, len(keys), size))


def choose(
    glance: Glance,
    tasks: Sequence[WaitingTask],
    units: Mapping[int, Sequence[WaitingUnit]],
    default_parallel: int,
    last_key: int,
) -> Choice:
    """Take the tasks' units by turns, one unit a turn, as long as the window has room.

    A unit that is larger than the room ends the choice: the next one begins with its task, so that small units do not
    keep a large one waiting for ever. A task at its limit of hosts is passed over, and so is one that needs project
    files when the engines that see them have enough. A window and a task with nothing out always take one unit,
    however large it is. Units that find slots now go out alone: the engines get messages of one moment in any order,
    and a large unit would take the slots before the small one whose turn it was.
    """
    chosen: list[UnitMessage] = []
    hosts_out = {task.key: task.hosts_out for task in tasks}
    turns = deque((task, deque(units[task.key])) for task in tasks)
    all_find_slots = True
    while turns:
        task, waiting = turns.popleft()
        if not waiting or not _may_have(waiting[0], hosts_out[task.key], task.parallel or default_parallel):
            continue
        if task.needs_files and not glance.takes_files:
            continue
        if waiting[0].host_count > glance.room and not glance.is_bare(task.needs_files):
            return Choice(tuple(chosen), last_key, waits_for_room=True)
        finds_slots = glance.finds_slots(waiting[0].host_count, task.needs_files)
        if chosen and finds_slots != all_find_slots:
            return Choice(tuple(chosen), last_key, waits_for_room=True)
        all_find_slots = finds_slots
        unit = waiting.popleft()
        chosen.append(UnitMessage(unit.id, task.id, task.type, unit.attempt, unit.host_count))
        glance = glance.after(unit.host_count, task.needs_files)
        hosts_out[task.key] += unit.host_count
        last_key = task.key
        turns.append((task, waiting))
    return Choice(tuple(chosen), last_key, waits_for_room=False)


def _may_have(unit: WaitingUnit, hosts_out: int, parallel: int) -> bool:
    return not parallel or not hosts_out or hosts_out + unit.host_count <= parallel
