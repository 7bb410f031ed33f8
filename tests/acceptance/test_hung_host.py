"""One host of a unit hangs in the third of ten tasks: what the other 29 come to."""

from __future__ import annotations

import pytest

from tests.daemons import Services
from tests.servers.fleet import Fleet

TASKS = 10


def _playbook(bad: str, more: str) -> str:
    tasks = "".join(f"    - {{name: task {number}, raw: echo {number}}}\n" for number in range(4, TASKS + 1))
    hang = f"{{{{ 'sleep 600' if inventory_hostname == '{bad}' else 'true' }}}}"
    return f"""\
- hosts: all
  gather_facts: false
{more}  tasks:
    - {{name: task 1, raw: echo 1}}
    - {{name: task 2, raw: echo 2}}
    - {{name: the third, raw: "{hang}"}}
{tasks}"""


@pytest.mark.parametrize("backend", ["embedded"], indirect=True)
def test_under_linear_it_holds_the_others_and_under_free_it_does_not(services: Services, fleet: Fleet) -> None:
    services.start()
    hosts = fleet.hosts(count=30)
    bad = hosts[11]

    free = services.submit_playbook(hosts, _playbook(bad, ""), timeout=20)
    linear = services.submit_playbook(hosts, _playbook(bad, "  strategy: linear\n"), timeout=20)

    assert services.wait_task(free)["counts"] | {"success": 29, "timeout": 1} == services.task(free)["counts"]
    for item in services.hosts(free):
        done = (item["status"], item["tasks_ok"], item["tasks_total"])
        assert done == (("timeout", 2, 10) if item["ip"] == bad else ("success", 10, 10)), item
    assert services.wait_task(linear)["counts"] | {"held": 29, "timeout": 1} == services.task(linear)["counts"]
    for item in services.hosts(linear):
        if item["ip"] == bad:
            assert item["status"] == "timeout"
            assert item["blame"].startswith("running 'the third' for ")
            assert "; 0 of the unit's 30 hosts had finished by then" in item["blame"]
        else:
            assert item["status"] == "held"
            assert item["blame"] == f"had finished 3 of 10 tasks and was waiting for {bad}"
        assert item["tasks_ok"] in (2, 3)


def test_the_answer_warns_of_linear_where_one_host_holds_the_others(services: Services, fleet: Fleet) -> None:
    services.start_distribute(services.backend.config_file())
    (bad,) = fleet.hosts()
    body = {"task_name": "t", "type": "playbook", "ips": [bad], "playbook_name": "t.yml"}
    answers = [
        services.api("/playbook/", {**body, "playbook_content": _playbook(bad, more)})
        for more in ("", "  strategy: linear\n")
    ]
    free, linear = ([str(warning) for warning in answer["data"]["warnings"]] for answer in answers)
    assert not any("linear" in warning for warning in free)
    assert any("linear" in warning for warning in linear)
