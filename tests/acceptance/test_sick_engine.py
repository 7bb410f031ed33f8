"""What is sick on the engine itself: each ends its unit, with a true reason for every host, and the engine goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from tests.daemons import Services
from tests.runners import immortal
from tests.runners.consumer import RUNNER
from tests.servers.fleet import Fleet
from tests.servers.process import wait_for

pytestmark = pytest.mark.parametrize("backend", ["embedded"], indirect=True)
TEMPLATE = """\
- hosts: all
  gather_facts: false
  tasks:
    - {name: fine, raw: echo hi}
    - {name: sick, raw: "%s"}
"""
PLAYS_ON = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"  # in Python code
HOLDS_ALL = "{{ ('a' * 64 ~ 'b') is match('(a+)+$') }}"  # in one call of C code, which lets no other thread run
EATS = "{{ range(99999) | map('string') | map('center', 99999) | list | length }}"


def test_a_runner_that_crashes(services: Services, fleet: Fleet) -> None:
    services.start()
    task_id = _running(services, fleet, timeout=300)
    _signal(services, "runner", signal.SIGSEGV)
    _ends(services, task_id, "lost", r"killed by SIGSEGV", "this host was at 'shell', stage running,")
    _well(services, fleet)


def test_a_template_that_eats_memory(services: Services, fleet: Fleet) -> None:
    services.start(Exec_Engine={"RUNNER_MEMORY": 500})
    task_id = services.submit_playbook(fleet.hosts(count=3), TEMPLATE % EATS, timeout=300)
    _ends(services, task_id, "lost", "held more than 500 MB", "this host was at 'sick'")
    _well(services, fleet)


def test_a_template_that_never_ends(services: Services, fleet: Fleet) -> None:
    services.start()
    task_id = services.submit_playbook(fleet.hosts(count=3), TEMPLATE % PLAYS_ON, timeout=10)
    _ends(services, task_id, "timeout", "running 'sick'")
    _well(services, fleet)


def test_a_template_that_lets_nothing_else_of_its_runner_run(services: Services, fleet: Fleet) -> None:
    services.start()
    task_id = services.submit_playbook(fleet.hosts(count=3), TEMPLATE % HOLDS_ALL, timeout=10)
    _ends(services, task_id, "timeout", "the unit's 10 s were over, and its runner was stuck and reported nothing")
    assert any("this host was at 'sick'" in item["blame"] for item in services.hosts(task_id))
    _well(services, fleet)


def test_a_guard_that_is_stopped(services: Services, fleet: Fleet) -> None:
    services.start()
    task_id = _running(services, fleet, timeout=5)
    _signal(services, "guard", signal.SIGSTOP)
    _ends(
        services,
        task_id,
        "timeout",
        "the unit's 5 s were over",
        "guard was stuck",
        "this host was at 'shell', stage running,",
    )
    _well(services, fleet)


def test_a_consumer_that_is_stopped(services: Services, fleet: Fleet) -> None:
    """The dispatcher notices first; then its supervisor kills it, and its guards end what ran."""
    services.start()
    task_id = _running(services, fleet, timeout=300)
    _signal(services, "consumer", signal.SIGSTOP)
    _ends(services, task_id, "lost", "gave no sign of life")
    _well(services, fleet)


def test_a_process_that_no_signal_ends_is_reported_and_keeps_its_slot(services: Services, fleet: Fleet) -> None:
    config = services.backend.config_file(Exec_Engine={"SLOTS": 3})
    services.start_distribute(config)
    engine = services.start_engine(
        config, {RUNNER: immortal.__name__, "TMPDIR": "/tmp"}, module="tests.runners.consumer"
    )
    flag = services.backend.directory / "engine-1" / "state" / "immortal"
    flag.touch()
    hosts = [*fleet.hosts(count=2), *fleet.hosts("hang")]
    task_id = services.submit_adhoc(hosts, "echo hi", timeout=5, become=False)

    task = services.wait_task(task_id, seconds=60)
    assert {status: count for status, count in task["counts"].items() if count} == {"success": 2, "timeout": 1}
    (pid,) = services.processes(immortal.TITLE)
    wait_for("the slot to be shown as taken", lambda: services.engine()["free_slots"] == 2)
    wait_for("the process to be named", lambda: f"processes {pid}" in str(services.engine()["missing"]))
    log = engine.log()
    assert "processes of a unit cannot be killed" in log
    assert str(pid) in log

    flag.unlink()
    wait_for("the process to end", lambda: not services.processes(immortal.TITLE))
    wait_for("the slot to be free", lambda: services.engine()["free_slots"] == 3)
    assert services.engine()["missing"] is None
    _well(services, fleet)


def _running(services: Services, fleet: Fleet, timeout: int) -> str:
    """A task whose three hosts are at work and show it."""
    task_id = services.submit_adhoc(fleet.hosts(count=3), "sleep 600", timeout=timeout, become=False)
    wait_for("the hosts to run", lambda: len(services.hosts(task_id, status="running")) == 3)
    return task_id


def _signal(services: Services, which: str, number: signal.Signals) -> None:
    (pid,) = services.processes(f"execute-engine: {which}")
    os.kill(pid, number)


def _ends(services: Services, task_id: str, status: str, *words: str) -> None:
    services.wait_task(task_id, seconds=120)
    for item in services.hosts(task_id):
        assert item["status"] == status, item["msg"]
        assert [word for word in words if word not in item["blame"]] == [], item["blame"]


def _well(services: Services, fleet: Fleet) -> None:
    """Nothing of the sick unit is left, and the engine runs the next one."""
    task_id = services.submit_adhoc(fleet.hosts(count=3), "echo hi", become=False)
    assert services.wait_task(task_id)["counts"]["success"] == 3
    units: Callable[[], object] = lambda: [  # noqa: E731
        line for which in ("guard", "runner") for line in services.processes(f"execute-engine: {which}").values()
    ]
    wait_for("the units' processes to end", lambda: not units(), 20)
