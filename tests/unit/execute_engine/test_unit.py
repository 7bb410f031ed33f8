from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from contract.states import HostStatus
from execute_engine.events import HostDone
from execute_engine.unit import MAX_NAME, NOT_LAUNCHED, NOT_STARTED, HostRow, NewHostKey, RunnerLog, Unit, unstorable
from tests.unit.execute_engine.jobs import job

AT = "2026-01-02T03:04:05"
STORED = "2026-01-02 03:04:05.000000"
END = datetime(2026, 1, 2, 3, 5)


def unit(hosts: int = 2, **values: Any) -> Unit:
    made = job(hosts, **values)
    return Unit(made, {host: number for number, host in enumerate(made.hosts, 101)})


def done(host: str = "h1", status: str = "success", **values: Any) -> dict[str, Any]:
    return HostDone(host, status, **values).to_event()


def only_row(outcomes: list[Any]) -> HostRow:
    (row,) = outcomes
    assert isinstance(row, HostRow)
    return row


def warning(outcomes: list[Any]) -> str:
    (found,) = outcomes
    assert isinstance(found, RunnerLog)
    assert found.level == "warning"
    return found.text


def test_a_result_becomes_the_row_of_its_host() -> None:
    row = only_row(unit(attempt=3).handle(done("h2", rc=0, changed=True, started_at=AT, detail={"cmd": "id"}), 0.0))
    assert (row.id, row.unit_id, row.attempt, row.status, row.engine) == (102, 7, 3, "success", "engine-1")
    assert (row.rc, row.changed, row.started_at, row.detail) == (0, 1, STORED, '{"cmd":"id"}')


def test_a_host_brings_one_result_and_no_second() -> None:
    tested = unit()
    tested.handle(done("h1"), 0.0)
    assert tested.hosts_left == 1
    assert "no open host" in warning(tested.handle(done("h1", "failed"), 0.0))


NONSENSE: dict[str, dict[str, Any]] = {
    "nothing": {},
    "unknown event": {"event": "no such event", "host": "h1"},
    "open status": {"event": "host_done", "host": "h1", "status": "running"},
    "no status": {"event": "host_done", "host": "h1"},
    "unknown field": {"event": "host_done", "host": "h1", "status": "success", "no_such_field": 1},
    "unknown host": {"event": "host_started", "host": "somebody else", "at": AT},
    "list of hosts": {"event": "host_started", "host": ["h1"], "at": AT},
    "key without a type": {"event": "host_key", "host": "h1", "key": "without-a-blank"},
    "endless key": {"event": "host_key", "host": "h1", "key": "t " + "k" * 5000},
    "task without a name": {"event": "task_started", "host": "h1"},
}


@pytest.mark.parametrize("what", NONSENSE)
def test_what_makes_no_sense_is_a_warning_and_changes_nothing(what: str) -> None:
    tested = unit()
    warning(tested.handle(NONSENSE[what], 0.0))
    assert tested.hosts_left == 2


def test_values_that_no_column_takes_are_made_to_fit() -> None:
    event = done(
        rc=2**40, stdout="a\0b\udc80", stuck_task="n" * 300, stage="dancing", stopped_on_host="perhaps", since="x"
    )
    row = only_row(unit().handle(event, 0.0))
    assert row.rc is None
    assert row.stdout == "a\\x00b\\udc80"
    assert row.stuck_task == "n" * MAX_NAME
    assert (row.stage, row.stopped_on_host, row.since) == (None, None, None)


def test_a_time_with_a_zone_is_stored_as_utc() -> None:
    row = only_row(unit().handle(done(finished_at="2026-01-02T05:04:05+02:00"), 0.0))
    assert row.finished_at == STORED


def test_a_host_that_runs_for_over_two_seconds_is_shown_once_until_it_does_something_else() -> None:
    tested = unit()
    tested.handle({"event": "host_started", "host": "h1", "at": AT}, 10.0)
    tested.handle({"event": "task_started", "host": "h1", "task": "first", "at": AT}, 10.1)
    assert tested.running_rows(11.9) == []
    (row,) = tested.running_rows(12.0)
    assert (row.id, row.status, row.stuck_task, row.since, row.started_at) == (101, "running", "first", STORED, STORED)
    assert tested.running_rows(13.0) == []
    tested.handle({"event": "stage", "host": "h1", "stage": "output", "since": AT}, 13.0)
    assert tested.running_rows(13.9) == []  # at most once in two seconds
    (row,) = tested.running_rows(14.0)
    assert (row.stuck_task, row.stage) == ("first", "output")
    assert tested.running_rows(60.0) == []


def test_a_quick_host_is_written_once() -> None:
    tested = unit()
    tested.handle({"event": "host_started", "host": "h1", "at": AT}, 10.0)
    row = only_row(tested.handle(done("h1"), 11.0))
    assert row.started_at == STORED
    assert tested.running_rows(20.0) == []


def test_it_is_over_when_its_processes_are_gone_and_its_events_are_read() -> None:
    first, second = unit(), unit()
    first.ended("finished", 0)
    second.read_to_end()
    assert not first.over
    assert not second.over
    first.read_to_end()
    second.ended("finished", 0)
    assert first.over
    assert second.over


@pytest.mark.parametrize(
    ("cause", "runner_exit", "status", "words"),
    [
        ("deadline", -9, "timeout", "the unit's 100 s were over, and its runner was stuck and reported nothing"),
        ("guard_stuck", None, "cancelled", "the engine was stopped"),  # it was stuck when it should have stopped
        ("memory", -9, "lost", "a process of the unit held more than 2000 MB (RUNNER_MEMORY) and was killed"),
        ("stopped", -9, "cancelled", "the engine was stopped"),
        ("runner_died", -9, "lost", "killed by SIGKILL"),
        ("runner_died", -250, "lost", "killed by signal 250"),
        ("runner_died", 3, "lost", "exit code 3"),
        ("finished", 0, "lost", "exit code 0 without a result"),
        ("guard_died", None, "lost", "guard process died"),
        ("launcher_died", None, "lost", "launcher process died"),
    ],
)
def test_hosts_without_a_result_say_how_the_unit_ended(
    cause: str, runner_exit: int | None, status: str, words: str
) -> None:
    tested = unit()
    tested.stop("the engine was stopped")
    tested.handle(done("h1"), 0.0)
    tested.handle({"event": "host_started", "host": "h2", "at": AT}, 0.0)
    tested.ended(cause, runner_exit)
    (row,), again = tested.conclude(END)
    assert not again
    assert (row.id, row.status, row.stopped_on_host) == (102, status, "unknown")
    assert row.msg is not None
    assert words in row.msg
    assert row.blame == row.msg
    assert row.finished_at == "2026-01-02 03:05:00.000000"
    assert tested.hosts_left == 0


def test_what_a_host_was_doing_stays_in_its_last_row() -> None:
    tested = unit(1)
    tested.handle({"event": "task_started", "host": "h1", "task": "the slow one", "at": AT}, 0.0)
    tested.ended("deadline", None)
    (row,), _ = tested.conclude(END)
    assert (row.stuck_task, row.since) == ("the slow one", STORED)


def begun_and_not(attempt: int = 1, on_engine_loss: str = "report") -> Unit:
    """Three hosts: h1 was at its one task, h2 printed when last heard of, of h3 nothing was heard."""
    tested = unit(3, module="ping", attempt=attempt, on_engine_loss=on_engine_loss)
    tested.handle({"event": "host_started", "host": "h1", "at": AT}, 0.0)
    tested.handle({"event": "host_started", "host": "h2", "at": AT}, 0.0)
    tested.handle({"event": "task_started", "host": "h2", "task": "copy it", "at": AT}, 0.0)
    tested.handle({"event": "stage", "host": "h2", "stage": "output", "since": AT}, 0.0)
    return tested


SEGFAULT = "the unit's runner was killed by SIGSEGV without a result for this host"


def test_of_a_runner_that_dies_what_was_begun_is_lost_and_the_rest_goes_back() -> None:
    tested = begun_and_not()
    tested.ended("runner_died", -11)
    rows, again = tested.conclude(END)
    assert [(row.id, row.status, row.blame) for row in rows] == [
        (101, "lost", f"{SEGFAULT}; this host was at 'ping' when last heard of"),
        (102, "lost", f"{SEGFAULT}; this host was at 'copy it', stage output, when last heard of"),
    ]
    assert again == [103]
    assert tested.hosts_left == 0


@pytest.mark.parametrize("cause", ["runner_died", "guard_died", "launcher_died", "memory", "lease", NOT_LAUNCHED])
def test_what_may_run_again_goes_back_whole(cause: str) -> None:
    tested = begun_and_not(on_engine_loss="rerun")
    tested.ended(cause, None)
    assert tested.conclude(END) == ([], [101, 102, 103])


@pytest.mark.parametrize("on_engine_loss", ["report", "rerun"])
def test_at_its_third_attempt_nothing_goes_back(on_engine_loss: str) -> None:
    tested = begun_and_not(attempt=3, on_engine_loss=on_engine_loss)
    tested.ended("runner_died", -11)
    rows, again = tested.conclude(END)
    assert again == []
    assert {row.status for row in rows} == {"lost"}
    assert rows[2].blame == f"{SEGFAULT} (This was attempt 3 of 3.); nothing was heard of this host"


@pytest.mark.parametrize("cause", [NOT_LAUNCHED, NOT_STARTED])
def test_a_unit_of_which_no_process_was_started_goes_back_at_any_attempt(cause: str) -> None:
    tested = unit(2, attempt=3)
    tested.stop("no descriptor is left", HostStatus.LOST)
    tested.ended(cause, None)
    assert tested.conclude(END) == ([], [101, 102])
    assert not tested.was_launched


def test_a_guard_that_is_stuck_at_its_deadline_is_a_timeout() -> None:
    tested = unit(1)
    tested.ended("guard_stuck", None)
    (row,), _ = tested.conclude(END)
    assert row.status == "timeout"
    assert "the unit's 100 s were over, and its guard was stuck and had to be killed" in str(row.blame)


@pytest.mark.parametrize("cause", ["deadline", "guard_stuck", "finished"])
def test_a_unit_whose_time_is_over_is_not_tried_again(cause: str) -> None:
    tested = begun_and_not(on_engine_loss="rerun")
    tested.ended(cause, 0)
    rows, again = tested.conclude(END)
    assert (len(rows), again) == (3, [])


def test_a_client_who_cancels_ends_every_host() -> None:
    tested = begun_and_not(on_engine_loss="rerun")
    tested.stop("the task was cancelled")
    assert only_row(tested.handle(done("h1", "cancelled"), 0.0)).status == "cancelled"
    tested.ended("stopped", 0)
    rows, again = tested.conclude(END)
    assert ([row.status for row in rows], again) == (["cancelled", "cancelled"], [])


def test_an_engine_that_ends_loses_what_it_began_and_hands_back_the_rest() -> None:
    tested = begun_and_not()
    tested.stop("the engine was stopped", HostStatus.LOST)
    row = only_row(tested.handle(done("h1", "cancelled", blame="the engine was stopped: running 'ping'"), 0.0))
    assert (row.status, row.blame) == ("lost", "the engine was stopped: running 'ping'")
    assert tested.handle(done("h3", "cancelled"), 0.0) == []
    assert only_row(tested.handle(done("h2", "success"), 0.0)).status == "success"
    tested.ended("stopped", 0)
    assert tested.conclude(END) == ([], [103])


def test_an_engine_that_ends_hands_back_what_may_run_again() -> None:
    tested = begun_and_not(on_engine_loss="rerun")
    tested.stop("the engine was stopped", HostStatus.LOST)
    assert tested.handle(done("h1", "cancelled"), 0.0) == []
    tested.ended("stopped", 0)
    assert tested.conclude(END) == ([], [101, 102, 103])


def test_a_unit_that_cannot_run_fails_every_host_without_a_result() -> None:
    tested = unit(3)
    tested.handle(done("h2"), 0.0)
    rows = tested.handle({"event": "unit_failed", "reason": "no such module"}, 0.0)
    assert [(row.id, row.status, row.msg) for row in rows if isinstance(row, HostRow)] == [
        (101, "failed", "no such module"),
        (103, "failed", "no such module"),
    ]
    assert tested.hosts_left == 0


def test_a_new_host_key_and_a_line_for_the_log_are_passed_on() -> None:
    tested = unit()
    assert tested.handle({"event": "host_key", "host": "h1", "key": "ssh-rsa AAAA"}, 0.0) == [
        NewHostKey("h1", "ssh-rsa", "AAAA")
    ]
    assert tested.handle({"event": "log", "level": "error", "text": "x"}, 0.0) == [RunnerLog("error", "x")]


def test_a_row_that_cannot_be_stored_keeps_its_status_and_loses_its_output() -> None:
    row = only_row(unit().handle(done(status="failed", stdout="x", blame="y"), 0.0))
    emptied = unstorable(row, "too odd")
    assert (emptied.status, emptied.stdout, emptied.detail) == ("failed", None, None)
    assert emptied.msg == emptied.blame == "the result could not be stored: too odd"
