"""Whose units go out next: tasks take turns, within the window and each task's own limit."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from contract.message import UnitMessage
from distribute import turns
from distribute.store.dispatch import Glance, WaitingTask, WaitingUnit
from distribute.turns import Choice


def task(key: int, parallel: int = 0, hosts_out: int = 0, needs_files: bool = False) -> WaitingTask:
    return WaitingTask(key, f"task-{key}", "adhoc", parallel, hosts_out, needs_files)


def units(task_key: int, sizes: Sequence[int]) -> list[WaitingUnit]:
    """Their ids are 100 * task_key + 1, + 2, ..."""
    return [WaitingUnit(100 * task_key + number, task_key, 1, size) for number, size in enumerate(sizes, 1)]


def choose(
    tasks: Sequence[WaitingTask],
    waiting: dict[int, Sequence[int]],
    slots: int = 1000,
    published: int = 0,
    default_parallel: int = 0,
    last_key: int = 0,
    file_slots: int = 0,
    published_files: int = 0,
    free_slots: int | None = None,
    free_file_slots: int | None = None,
) -> Choice:
    """waiting: the sizes of each task's waiting units. published: hosts; of them published_files need files.

    All slots are free unless free_slots and free_file_slots say otherwise.
    """
    glance = Glance(
        slots,
        slots if free_slots is None else free_slots,
        published,
        True,
        False,
        file_slots=file_slots,
        free_file_slots=file_slots if free_file_slots is None else free_file_slots,
        published_file_hosts=published_files,
    )
    by_task = {key: units(key, sizes) for key, sizes in waiting.items()}
    return turns.choose(glance, tasks, by_task, default_parallel, last_key)


def ids(choice: Choice) -> list[int]:
    return [message.unit_id for message in choice.messages]


def test_a_choice_is_the_units_messages() -> None:
    glance = Glance(slots=100, free_slots=100, published_hosts=0, has_waiting=True, has_finished=False)
    chosen = turns.choose(
        glance, [WaitingTask(4, "Deploy", "playbook", 0, 0)], {4: [WaitingUnit(9, 4, 2, 30)]}, 0, last_key=0
    )
    assert chosen == Choice((UnitMessage(9, "Deploy", "playbook", 2, 30),), last_key=4, waits_for_room=False)


def test_a_task_of_3_hosts_does_not_stand_behind_one_of_100_000() -> None:
    chosen = choose([task(1), task(2)], {1: [30] * 3334, 2: [3]}, slots=120)
    assert ids(chosen) == [101, 201, 102, 103]
    assert chosen.waits_for_room


def test_tasks_take_turns_a_unit_each_and_the_oldest_unit_first() -> None:
    chosen = choose([task(1), task(2), task(3)], {1: [10, 10, 10], 2: [10], 3: [10, 10]})
    assert ids(chosen) == [101, 201, 301, 102, 302, 103]
    assert chosen.last_key == 1


def test_the_next_turn_begins_behind_the_last_one() -> None:
    assert turns.in_turn([1, 4, 7, 9], after=4) == [7, 9, 1, 4]
    assert turns.in_turn([1, 4, 7, 9], after=5) == [7, 9, 1, 4]
    assert turns.in_turn([1, 4], after=4) == [1, 4]
    assert turns.in_turn([1, 4], after=0) == [1, 4]
    assert turns.in_turn([], after=3) == []


def test_over_many_turns_every_task_gets_the_same() -> None:
    waiting = {key: [30] * 100 for key in (1, 2, 3)}
    got = dict.fromkeys(waiting, 0)
    last_key = 0
    for _ in range(60):  # a window of one unit each time
        keys = turns.in_turn(sorted(waiting), last_key)
        chosen = choose([task(key) for key in keys], waiting, slots=30, last_key=last_key)
        (message,) = chosen.messages
        last_key = chosen.last_key
        got[last_key] += 1
        assert message.task_id == f"task-{last_key}"
    assert set(got.values()) == {20}


def test_the_window_holds_as_many_hosts_as_the_live_engines_have_slots() -> None:
    chosen = choose([task(1)], {1: [30] * 10}, slots=100, published=10)
    assert ids(chosen) == [101, 102, 103]
    assert chosen.waits_for_room


def test_of_busy_engines_half_of_the_slots_are_published_ahead() -> None:
    waiting = {1: [30] * 10}
    assert ids(choose([task(1)], waiting, slots=120, free_slots=0)) == [101, 102]
    assert ids(choose([task(1)], waiting, slots=120, free_slots=30, published=30)) == [101, 102]
    assert ids(choose([task(1)], waiting, slots=120, free_slots=90, published=90)) == [101]
    assert ids(choose([task(1)], waiting, slots=120, free_slots=0, published=60)) == []


def test_a_small_unit_whose_turn_it_is_goes_out_before_a_large_one_for_which_no_slots_are_free() -> None:
    waiting: dict[int, Sequence[int]] = {1: [30] * 10, 2: [3]}
    chosen = choose([task(2), task(1)], waiting, slots=60, free_slots=30)
    assert (ids(chosen), chosen.last_key, chosen.waits_for_room) == ([201], 2, True)
    assert ids(choose([task(1)], waiting, slots=60, free_slots=27)) == [101]


def test_a_unit_larger_than_the_room_is_waited_for_and_not_overtaken() -> None:
    chosen = choose([task(2), task(1)], {1: [1, 1], 2: [30]}, slots=40, published=20, last_key=1)
    assert ids(chosen) == []
    assert chosen.waits_for_room
    assert chosen.last_key == 1  # so that the next choice begins with it again
    chosen = choose([task(1), task(2), task(3)], {1: [5], 2: [30], 3: [1]}, slots=30, published=1)
    assert (ids(chosen), chosen.last_key, chosen.waits_for_room) == ([101], 1, True)


@pytest.mark.parametrize("slots", [0, 10])
def test_an_empty_window_takes_one_unit_however_large_even_without_an_engine(slots: int) -> None:
    chosen = choose([task(1), task(2)], {1: [30, 30], 2: [30]}, slots=slots)
    assert ids(chosen) == [101]
    assert chosen.waits_for_room


def test_without_room_nothing_goes_out() -> None:
    assert ids(choose([task(1)], {1: [1]}, slots=30, published=30)) == []


def test_a_task_at_its_limit_is_passed_over_and_does_not_hold_the_others() -> None:
    chosen = choose([task(1, parallel=60, hosts_out=30), task(2)], {1: [30, 30, 30], 2: [30, 30]})
    assert ids(chosen) == [101, 201, 202]
    assert not chosen.waits_for_room


def test_a_task_with_nothing_out_gets_one_unit_though_it_is_larger_than_its_limit() -> None:
    assert ids(choose([task(1, parallel=5)], {1: [30, 30]})) == [101]
    assert ids(choose([task(1, parallel=5, hosts_out=30)], {1: [30, 30]})) == []


def test_hosts_up_to_the_limit_and_not_one_more_are_out() -> None:
    assert ids(choose([task(1, parallel=100)], {1: [30, 30, 30, 10, 1]})) == [101, 102, 103, 104]


def test_the_limit_of_the_configuration_counts_where_the_task_has_none() -> None:
    waiting = {1: [30] * 5, 2: [30] * 5}
    assert ids(choose([task(1), task(2, parallel=90)], waiting, default_parallel=60)) == [101, 201, 102, 202, 203]


def test_tasks_without_waiting_units_are_passed_over() -> None:
    """Between two looks at the database somebody else may have taken them."""
    chosen = choose([task(1), task(2)], {1: [], 2: [30]})
    assert ids(chosen) == [201]
    nothing = choose([task(1)], {1: []}, last_key=7)
    assert nothing == Choice((), last_key=7, waits_for_room=False)


def test_portions_leave_no_key_out() -> None:
    assert list(turns.portions([1, 2, 3, 4, 5], 2)) == [[1, 2], [3, 4], [5]]
    assert list(turns.portions([], 2)) == []


def test_while_no_engine_sees_files_those_who_need_them_wait_and_all_others_go_on() -> None:
    tasks = [task(1, needs_files=True), task(2), task(3, needs_files=True)]
    chosen = choose(tasks, {1: [30, 30], 2: [30, 30], 3: [500]}, slots=60)
    assert (ids(chosen), chosen.waits_for_room) == ([201, 202], False)


def test_while_all_engines_see_files_there_is_no_difference() -> None:
    waiting = {1: [30] * 3334, 2: [3]}
    chosen = choose([task(1, needs_files=True), task(2)], waiting, slots=120, file_slots=120)
    assert ids(chosen) == [101, 201, 102, 103]
    assert chosen.waits_for_room


def test_files_go_out_for_the_engines_that_see_them_and_others_for_all() -> None:
    chosen = choose([task(1, needs_files=True), task(2)], {1: [30] * 9, 2: [30] * 9}, slots=120, file_slots=60)
    assert ids(chosen) == [101, 201, 102, 202]
    alone = choose([task(1, needs_files=True)], {1: [30] * 9}, slots=300, file_slots=60)
    assert (ids(alone), alone.waits_for_room) == ([101, 102], False)


@pytest.mark.parametrize("out", [30, 45, 90])
def test_units_that_only_busy_engines_could_take_leave_the_slots_of_the_others_free(out: int) -> None:
    """An engine of 30 slots sees files and is busy; one of 30 does not."""
    chosen = choose(
        [task(1, needs_files=True), task(2)],
        {1: [30], 2: [30]},
        slots=60,
        published=out,
        file_slots=30,
        published_files=out,
    )
    assert ids(chosen) == [201]


@pytest.mark.parametrize(("slots", "file_slots"), [(210, 180), (300, 270), (1000, 900), (400, 200)])
def test_while_all_engines_that_see_files_are_busy_the_others_get_what_they_can_take(
    slots: int, file_slots: int
) -> None:
    """Units that need files are never claimed here, the others at once."""
    waiting = {1: [30] * 50, 2: [30] * 50}
    free, out, last_key = slots - file_slots, 0, 0
    for _ in range(110):
        tasks = [task(key, needs_files=key == 1) for key in turns.in_turn([1, 2], last_key)]
        facts = {"slots": slots, "free_slots": free, "file_slots": file_slots, "free_file_slots": 0}
        chosen = choose(tasks, waiting, published=out, published_files=out, last_key=last_key, **facts)
        last_key = chosen.last_key
        files = sum(message.task_id == "task-1" for message in chosen.messages)
        out += 30 * files
        waiting = {1: waiting[1][files:], 2: waiting[2][len(chosen.messages) - files :]}
    assert (out < file_slots, waiting[2]) == (True, [])


def test_units_that_nobody_can_take_any_more_take_no_room() -> None:
    """They were published before the engines lost the share, and are about to be taken back."""
    chosen = choose([task(1)], {1: [30, 30]}, slots=60, published=60, published_files=60)
    assert ids(chosen) == [101, 102]


def test_a_unit_that_needs_files_and_is_larger_than_the_room_goes_when_nothing_is_out() -> None:
    tasks, waiting = [task(1, needs_files=True)], {1: [500]}
    assert ids(choose(tasks, waiting, slots=60, file_slots=30)) == [101]
    waits = choose(tasks, waiting, slots=60, file_slots=30, published=30)
    assert (ids(waits), waits.waits_for_room) == ([], True)


def test_a_large_unit_is_not_kept_waiting_by_files() -> None:
    chosen = choose([task(1)], {1: [500]}, slots=60, file_slots=60, published=60, published_files=60)
    assert ids(chosen) == [101]
