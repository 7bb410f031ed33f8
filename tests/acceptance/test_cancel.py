"""Cancel, hold and rerun as a client uses them: real daemons, real ssh."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.daemons import Services
from tests.servers.fleet import Fleet
from tests.servers.process import wait_for


def test_a_cancelled_task_ends_within_seconds_and_its_hosts_say_what_they_did(
    services: Services, fleet: Fleet, tmp_path: Path
) -> None:
    services.start(Exec_Engine={"SLOTS": 3, "NUMBER": 3})
    quick, slow = fleet.hosts("healthy", 1), fleet.hosts("healthy", 8)[1:]
    command = (
        f"test $(hostname -I | wc -w) -ge 0; case {quick[0]} in {{{{ inventory_hostname }}}}) ;; *) sleep 6543;; esac"
    )
    task_id = services.submit_adhoc([*quick, *slow], command, timeout=300, become=False, template=True)
    wait_for("one host to be ready and two to run", lambda: _counts(services, task_id, success=1, running=2))

    began = time.monotonic()
    answer = services.api(f"/tasks/{task_id}/cancel/", method="POST")
    assert answer["code"] == 200, answer
    task = services.wait_task(task_id, seconds=60)
    seconds = time.monotonic() - began

    assert task["state"] == "cancelled"
    assert _counts(services, task_id, success=1, cancelled=7)
    by_host = {item["ip"]: item for item in services.hosts(task_id)}
    assert by_host[quick[0]]["status"] == "success"
    for host in slow[:2]:
        assert by_host[host]["blame"].startswith("the task was cancelled: running 'shell' for ")
        assert by_host[host]["stopped_on_host"] == "yes"
    for host in slow[2:]:
        assert by_host[host]["blame"] == "The task was cancelled before this host was begun."
        assert by_host[host]["result"] == "fail"
    assert not [line for line in fleet.processes().values() if "sleep 6543" in line]
    assert seconds < 30, "a cancel takes seconds, not the task's timeout"

    again = services.api(f"/tasks/{task_id}/cancel/", method="POST")
    assert (again["code"], again["data"]["state"]) == (200, "cancelled")
    assert services.api("/tasks/no-such-task/cancel/", method="POST")["code"] == 404


def test_while_dispatching_is_held_tasks_wait_and_say_why(services: Services, fleet: Fleet) -> None:
    services.start(Exec_Engine={"SLOTS": 2, "NUMBER": 2})
    running = services.submit_adhoc(fleet.hosts("healthy", 2), "sleep 4; echo done", become=False)
    wait_for("the first task to run", lambda: _counts(services, running, running=2))
    published = services.submit_adhoc(fleet.hosts("healthy", 2), become=False)

    held = services.api("/hold/", method="POST")
    assert (held["code"], held["data"]["held"]) == (200, True)
    assert services.api("/hold/", method="POST")["data"] == held["data"]
    assert services.wait_task(running)["counts"]["success"] == 2
    waiting = services.submit_adhoc(fleet.hosts("healthy", 1), become=False)
    services.distribute.stop()
    services.start_distribute(services.distribute.config)
    wait_for("the published unit to wait again", lambda: _units(services, published, waiting=1))

    for task_id in (published, waiting):
        task = services.task(task_id)
        assert task["counts"]["queued"] == task["hosts"]
        assert task["waits_for"].startswith("all dispatching is held since ")
    assert services.task(running)["waits_for"] is None

    assert services.api("/release/", method="POST")["data"] == {"held": False, "held_by": None, "since": None}
    assert services.wait_task(published)["counts"]["success"] == 2
    assert services.wait_task(waiting)["counts"]["success"] == 1


@pytest.mark.parametrize("backend", ["embedded"], indirect=True)
def test_a_rerun_is_a_new_task_for_the_hosts_without_a_good_result(services: Services, fleet: Fleet) -> None:
    services.start(Exec_Engine={"NUMBER": 2})
    well, sick = fleet.hosts("healthy", 3), fleet.hosts("no_auth", 2)
    first = services.submit_adhoc([sick[0], *well, sick[1]], "echo hi", become=False)
    early = services.api(f"/tasks/{first}/rerun/", {})
    services.wait_task(first)

    again = services.api(f"/tasks/{first}/rerun/", method="POST")
    assert again["code"] == 200, again
    task = services.wait_task(again["data"]["task_id"])
    chosen = services.api(f"/tasks/{first}/rerun/", {"task_id": "again", "statuses": ["success"]})
    twice = services.api(f"/tasks/{first}/rerun/", {"task_id": "again", "statuses": ["success"]})

    assert early["code"] in (200, 409)
    assert (task["rerun_of"], task["hosts"], task["counts"]["unreachable"]) == (first, 2, 2)
    assert [item["ip"] for item in services.hosts(task["task_id"])] == sick
    assert (chosen["code"], chosen) == (200, twice)
    assert services.wait_task("again")["counts"]["success"] == 3
    assert services.api("/tasks/again/rerun/", {})["code"] == 409
    wrong = services.api(f"/tasks/{first}/rerun/", {"statuses": ["queued"], "colour": 1})
    assert (wrong["code"], len(wrong["data"])) == (400, 2)


def test_a_playbook_is_run_again_as_it_was(services: Services, fleet: Fleet, tmp_path: Path) -> None:
    services.start()
    flag = tmp_path / "flag"  # seen by root only
    content = f"- hosts: all\n  gather_facts: false\n  tasks:\n    - command: test -e {flag}\n"
    first = services.submit_playbook(fleet.hosts("healthy", 2), content, become=True)
    assert services.wait_task(first)["counts"]["failed"] == 2
    flag.touch()

    again = services.api(f"/tasks/{first}/rerun/", {})

    assert services.wait_task(again["data"]["task_id"])["counts"]["success"] == 2


def _counts(services: Services, task_id: str, **wanted: int) -> bool:
    counts = services.task(task_id)["counts"]
    return all(counts[status] == number for status, number in wanted.items())


def _units(services: Services, task_id: str, **wanted: int) -> bool:
    states = services.task(task_id)["units_by_state"]
    return all(states[state] == number for state, number in wanted.items())
