"""How a host's tasks become its one result, and what is said of a host whose unit is ended before it is through."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import pytest

from execute_engine.events import HostDone
from execute_engine.outcome import (
    FAILED,
    IGNORED,
    OK,
    RESCUED,
    SKIPPED,
    UNREACHABLE,
    Outcomes,
    Stuck,
    TaskEnd,
)

AT = "2026-01-02T03:04:05.000000"


def made(*hosts: str, playbook: bool = True) -> Outcomes:
    numbers = itertools.count(1)
    return Outcomes(hosts or ("h1",), playbook, lambda: f"time {next(numbers)}")


def run(outcomes: Outcomes, status: str = OK, host: str = "h1", key: str = "k1", name: str = "", **more: Any) -> None:
    """One task on one host, begun and ended; more are fields of TaskEnd."""
    outcomes.task_begun(host, key, name or key)
    outcomes.task_ended(host, key, name or key, TaskEnd(status, **more))


def finished(outcomes: Outcomes, host: str = "h1", stopped_with_others: bool = False) -> HostDone:
    done = outcomes.finish(host, stopped_with_others)
    assert done is not None
    return done


def only_cut(outcomes: Outcomes, reason: str = "deadline", stuck: dict[str, Stuck] | None = None) -> HostDone:
    (done,) = outcomes.cut_off(outcomes.open_hosts(), reason, "engine-1", stuck or {})
    return done


def test_an_adhoc_result_has_what_the_module_gave() -> None:
    outcomes = made(playbook=False)
    outcomes.connected("h1", AT)
    run(outcomes, rc=0, changed=True, stdout="out", stderr="err", msg="words", detail={"cmd": "id"})
    assert finished(outcomes) == HostDone(
        host="h1",
        status="success",
        rc=0,
        changed=True,
        stdout="out",
        stderr="err",
        msg="words",
        started_at=AT,
        finished_at="time 2",
        detail={"cmd": "id"},
    )


def test_a_playbook_result_has_counts_and_every_task_and_no_output_of_a_fine_one() -> None:
    outcomes = made()
    outcomes.plan("h1", {"a", "b", "c", "d", "e", "f"})
    run(outcomes, OK, key="a", changed=True, stdout="not stored")
    run(outcomes, SKIPPED, key="b")
    run(outcomes, IGNORED, key="c")
    run(outcomes, RESCUED, key="d")
    done = finished(outcomes)
    assert (done.status, done.changed, done.stdout, done.rc) == ("success", True, None, None)
    assert (done.tasks_ok, done.tasks_total) == (3, 6)
    assert done.detail["counts"] == {
        "ok": 2,
        "failed": 0,
        "changed": 1,
        "skipped": 1,
        "unreachable": 0,
        "rescued": 1,
        "ignored": 1,
        "total": 6,
    }
    rows = [(row["name"], row["status"], row["changed"]) for row in done.detail["tasks"]]
    assert rows == [("a", OK, True), ("b", SKIPPED, False), ("c", IGNORED, False), ("d", RESCUED, False)]
    assert all(row["seconds"] >= 0 for row in done.detail["tasks"])
    assert "failed_task" not in done.detail


@pytest.mark.parametrize(("status", "reported"), [(FAILED, "failed"), (UNREACHABLE, "unreachable")])
def test_the_failure_decides_and_what_follows_it_does_not_hide_it(status: str, reported: str) -> None:
    outcomes = made()
    run(outcomes, OK, key="a")
    run(outcomes, status, key="b", name="the bad one", rc=3, stderr="why")
    run(outcomes, OK, key="c", name="always", stdout="after")
    done = finished(outcomes)
    assert (done.status, done.rc, done.stderr, done.stdout) == (reported, 3, "why", None)
    assert done.detail["failed_task"] == "the bad one"


@pytest.mark.parametrize("status", [OK, IGNORED, RESCUED, SKIPPED])
def test_a_failure_that_the_playbook_expects_is_no_failure(status: str) -> None:
    outcomes = made()
    run(outcomes, status)
    assert finished(outcomes).status == "success"
    assert not outcomes.failed("h1")


def test_handlers_and_included_tasks_count_once_they_ran() -> None:
    outcomes = made()
    outcomes.plan("h1", {"a"})
    run(outcomes, key="a")
    run(outcomes, key="handler")
    run(outcomes, FAILED, key="included")
    done = finished(outcomes)
    assert (done.tasks_ok, done.tasks_total) == (2, 3)


def test_fact_gathering_that_nobody_wrote_is_shown_and_not_counted() -> None:
    outcomes = made()
    outcomes.plan("h1", {"a"})
    outcomes.task_begun("h1", "setup", "Gathering Facts")
    outcomes.task_ended("h1", "setup", "Gathering Facts", TaskEnd(OK), counts=False)
    run(outcomes, key="a")
    done = finished(outcomes)
    assert (done.tasks_ok, done.tasks_total, len(done.detail["tasks"])) == (1, 1, 2)


@pytest.mark.parametrize("planned", [True, False])
def test_an_include_whose_file_was_missing_failed_and_was_not_fine_before(planned: bool) -> None:
    outcomes = made()
    if planned:
        outcomes.plan("h1", {"include"})
    run(outcomes, OK, key="include")
    outcomes.task_ended("h1", "include", "include", TaskEnd(FAILED, msg="no such file"))
    done = finished(outcomes)
    assert (done.status, done.msg, done.tasks_ok, done.tasks_total) == ("failed", "no such file", 0, 1)
    assert [row["status"] for row in done.detail["tasks"]] == [FAILED]


def test_what_one_host_did_for_all_counts_for_the_others_that_have_the_task() -> None:
    outcomes = made("h1", "h2", "h3")
    for host in ("h1", "h2"):
        outcomes.plan(host, {"once"})
    run(outcomes, key="once")
    outcomes.done_once_for_all("once", ["h1", "h2", "h3", "unknown"])
    results = [finished(outcomes, host) for host in ("h1", "h2", "h3")]
    assert [(done.tasks_ok, done.tasks_total) for done in results] == [(1, 1), (1, 1), (0, 0)]


def test_a_host_that_nothing_was_for_says_why() -> None:
    outcomes = made("h1", "h2")
    outcomes.plan("h2", {"a"})
    first, second = finished(outcomes, "h1"), finished(outcomes, "h2")
    assert (first.status, second.status) == ("not_started", "not_started")
    assert "no play of the playbook is for it" in str(first.blame)
    assert "failures on other hosts" in str(second.blame)
    assert (first.changed, first.started_at, first.finished_at) == (None, None, None)


def test_a_host_stopped_with_others_has_failed() -> None:
    outcomes = made()
    run(outcomes)
    done = finished(outcomes, stopped_with_others=True)
    assert done.status == "failed"
    assert "other hosts of its unit failed" in str(done.msg)
    assert done.detail["failed_task"] is None


def test_its_own_failure_comes_before_that_of_others() -> None:
    outcomes = made()
    run(outcomes, FAILED, msg="mine")
    assert finished(outcomes, stopped_with_others=True).msg == "mine"


def test_a_host_is_handed_out_once_and_an_unknown_one_never() -> None:
    outcomes = made("h1", "h2")
    run(outcomes)
    assert outcomes.open_hosts() == ["h1", "h2"]
    finished(outcomes)
    assert outcomes.open_hosts() == ["h2"]
    assert outcomes.finish("h1") is None
    assert outcomes.finish("somebody else") is None
    assert [done.host for done in outcomes.cut_off(["h1", "h2"], "deadline", "e", {})] == ["h2"]
    assert outcomes.finish("h2") is None
    assert outcomes.cut_off(["h1", "h2"], "deadline", "e", {}) == []


def test_what_comes_after_the_result_changes_nothing_and_unknown_hosts_are_ignored() -> None:
    outcomes = made()
    run(outcomes)
    done = finished(outcomes)
    run(outcomes, FAILED)
    run(outcomes, FAILED, host="somebody else")
    assert len(done.detail["tasks"]) == 1
    assert not outcomes.failed("h1")
    assert not outcomes.busy("somebody else")


def test_the_first_connection_attempt_is_the_start_and_without_one_the_first_task_is() -> None:
    outcomes = made("h1", "h2")
    outcomes.connected("h1", AT)
    outcomes.connected("h1", "later")
    run(outcomes)
    run(outcomes, host="h2")
    assert finished(outcomes, "h1").started_at == AT
    assert str(finished(outcomes, "h2").started_at).startswith("time ")


def test_busy_and_running_are_between_begin_and_end() -> None:
    outcomes = made("h1", "h2")
    outcomes.task_begun("h1", "a", "a")
    assert outcomes.busy("h1")
    assert outcomes.running_hosts() == ["h1"]
    outcomes.task_ended("h1", "a", "a", TaskEnd(OK))
    assert not outcomes.busy("h1")
    assert outcomes.running_hosts() == []


def test_at_the_deadline_a_running_host_says_task_time_and_stage() -> None:
    outcomes = made()
    outcomes.connected("h1", AT)
    outcomes.task_begun("h1", "a", "the slow one")
    done = only_cut(outcomes, stuck={"h1": Stuck("greeting", AT, 9.6)})
    assert (done.status, done.stuck_task, done.stage, done.since) == ("timeout", "the slow one", "greeting", AT)
    assert done.blame == "running 'the slow one' for 0 s on engine engine-1, connected, but no ssh greeting for 10 s"
    assert (done.rc, done.stdout, done.changed) == (None, None, None)


def test_at_the_deadline_a_host_that_never_got_its_turn_was_not_started() -> None:
    outcomes = made()
    outcomes.task_begun("h1", "a", "a")  # its worker waits for a login slot
    done = only_cut(outcomes)
    assert (done.status, done.stuck_task, done.started_at) == ("not_started", None, None)
    assert done.blame == "nothing of it had been started on engine engine-1: it was waiting for h1"


def test_at_the_deadline_a_waiting_host_names_those_it_waits_for() -> None:
    hosts = [f"h{number}" for number in range(1, 9)]
    outcomes = made(*hosts)
    outcomes.plan("h1", {"a", "b", "c"})
    for host in hosts:
        outcomes.connected(host, AT)
    run(outcomes, key="a")
    run(outcomes, key="b")
    for host in hosts[1:]:
        outcomes.task_begun(host, "a", "a")
    first, *others = outcomes.cut_off(hosts, "deadline", "engine-1", {})
    assert (first.status, first.stuck_task, first.tasks_ok, first.tasks_total) == ("held", None, 2, 3)
    assert first.blame == "had finished 2 of 3 tasks and was waiting for h2, h3, h4, h5, h6 and 2 more"
    assert {done.status for done in others} == {"timeout"}


def test_a_stop_says_who_wanted_it_and_what_the_host_was_doing() -> None:
    outcomes = made("h1", "h2")
    outcomes.connected("h1", AT)
    outcomes.task_begun("h1", "a", "a")
    first, second = outcomes.cut_off(["h1", "h2"], "stop: cancelled by somebody", "engine-1", {})
    assert (first.status, second.status) == ("cancelled", "cancelled")
    assert str(first.blame).startswith("cancelled by somebody: running 'a' for ")
    assert second.blame == (
        "cancelled by somebody: nothing of it had been started on engine engine-1: it was waiting for h1"
    )


def test_at_the_deadline_a_host_that_had_failed_keeps_its_failure() -> None:
    outcomes = made()
    run(outcomes, FAILED, msg="mine", rc=1)
    done = only_cut(outcomes)
    assert (done.status, done.msg, done.rc, done.blame) == ("failed", "mine", 1, None)


def test_at_the_deadline_a_host_in_its_rescue_is_stuck_and_not_failed() -> None:
    outcomes = made()
    run(outcomes, FAILED, msg="mine")
    outcomes.task_begun("h1", "b", "always")
    done = only_cut(outcomes)
    assert (done.status, done.stuck_task) == ("timeout", "always")


def test_a_long_task_list_and_a_large_result_fit_their_column() -> None:
    outcomes = made()
    for number in range(5000):
        run(outcomes, key=str(number), name=f"task {number} {'x' * 100}")
    done = finished(outcomes)
    kept = len(done.detail["tasks"])
    assert 0 < kept < 5000
    assert done.detail["tasks_left_out"] == 5000 - kept
    assert done.detail["counts"]["ok"] == 5000


def test_whoever_comes_first_of_two_threads_gets_the_host() -> None:
    hosts = [f"h{number}" for number in range(500)]
    outcomes = made(*hosts)
    got: list[list[str]] = [[], []]
    start = threading.Barrier(2)

    def finish_all() -> None:
        start.wait()
        got[0] += [done.host for host in hosts if (done := outcomes.finish(host))]

    def cut_all() -> None:
        start.wait()
        for at in range(0, 500, 10):
            some = reversed(hosts[-10 - at : 500 - at])
            got[1] += [done.host for done in outcomes.cut_off(some, "deadline", "e", {})]

    threads = [threading.Thread(target=finish_all), threading.Thread(target=cut_all)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(got[0] + got[1]) == sorted(hosts)
