"""The main job as a client sees it: real daemons, real ssh, results host by host."""

from __future__ import annotations

import collections
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from contract.tables import host_result, task, unit
from tests.daemons import Services
from tests.servers.fleet import Fleet
from tests.servers.process import wait_for

PLAYBOOK = """
- hosts: target_hosts
  gather_facts: false
  tasks:
    - {name: say, command: "echo {{ inventory_hostname }}", register: said}
    - {name: loop, shell: "echo {{ item }}", loop: [a, b, c]}
    - {name: change, command: "true", notify: told}
    - {name: never, command: "false", when: false}
    - {name: check, assert: {that: said.stdout == inventory_hostname}}
  handlers:
    - {name: told, command: "echo told"}
"""


def rows_by_host(services: Services, task_id: str) -> collections.Counter[str]:
    query = sa.select(host_result.c.host).join(task, task.c.key == host_result.c.task_key).where(task.c.id == task_id)
    return services.database.read(lambda connection: collections.Counter(connection.scalars(query)))


def engines_of(services: Services, task_id: str) -> set[str]:
    query = sa.select(host_result.c.engine).join(task, task.c.key == host_result.c.task_key).where(task.c.id == task_id)
    return services.database.read(lambda connection: set(connection.scalars(query)))


@pytest.mark.parametrize("backend", ["cluster"], indirect=True)
def test_two_distributes_and_two_engines_share_a_task_of_300_hosts_and_a_playbook_of_90(
    services: Services, fleet: Fleet
) -> None:
    services.start(engines=2, distributes=2, Exec_Engine={"SLOTS": 60})
    many, few = fleet.hosts("healthy", 300), fleet.hosts("healthy", 90)

    adhoc = services.submit_adhoc(many, "echo $((6 * 7))", timeout=300)
    playbook = services.submit_playbook(few, PLAYBOOK, timeout=300)

    assert services.wait_task(adhoc, seconds=420)["counts"]["success"] == 300
    assert services.wait_task(playbook, seconds=420)["counts"]["success"] == 90
    assert rows_by_host(services, adhoc) == collections.Counter(many)
    assert rows_by_host(services, playbook) == collections.Counter(few)
    assert engines_of(services, adhoc) == {"engine-1", "engine-2"}
    query = sa.select(unit.c.state, sa.func.count()).group_by(unit.c.state)
    states = services.database.read(
        lambda c: {state: count for state, count in c.execute(query)}  # noqa: C416 - mypy knows no Row as a pair
    )
    assert states == {"finished": 13}
    items = services.hosts(playbook)
    assert {(item["tasks_ok"], item["tasks_total"]) for item in items} == {(6, 6)}


@pytest.mark.parametrize("backend", ["embedded", "cluster", "sqlite and kafka", "mariadb alone"], indirect=True)
def test_the_first_programs_requests_answer_field_by_field(services: Services, fleet: Fleet) -> None:
    services.start()
    (host,) = fleet.hosts("healthy", 1)
    (other,) = fleet.hosts("no_auth", 1)
    submitted = services.api(
        "/adhoc/",
        {
            "task_id": "Deploy:1", "task_name": "say hi", "ips": f"{host}, {other},", "module": "shell",
            "args": "echo hi", "type": "adhoc",
        },
    )  # fmt: skip
    assert submitted["code"] == 200
    assert submitted["data"]["task_id"] == "Deploy:1"
    services.wait_task("Deploy:1")

    answer = services.api("/adhoc/?task_id=Deploy:1")

    assert answer["length"] == 2
    items = {item["ip"]: item for item in answer["data"]}
    good, bad = items[host], items[other]
    expected = {
        "result": "success", "status": "success", "task_id": "Deploy:1", "task_name": "say hi", "module": "shell",
        "args": "echo hi", "stdout": "hi", "stderr": "", "rc": 0, "cmd": "echo hi", "changed": True,
    }  # fmt: skip
    assert {name: good[name] for name in expected} == expected
    assert good["created_date"].endswith("Z")
    assert good["finished_date"].endswith("Z")
    assert (bad["result"], bad["status"]) == ("fail", "unreachable")
    assert bad["msg"]
    assert [item["task_id"] for item in services.api(f"/adhoc/?ip={host}")["data"]] == ["Deploy:1"]
    assert services.api(f"/adhoc/?ips={host},{other}")["length"] == 2

    playbook = services.submit_playbook([host], PLAYBOOK.replace('command: "true"', 'command: "false"'))
    services.wait_task(playbook)
    (item,) = services.api(f"/playbook/?task_id={playbook}")["data"]
    assert (item["ip"], item["success_rate"], item["result"]) == (host, "40%", "fail")
    assert item["datetime"].endswith("Z")
    assert services.api(f"/playbook/?ips={host}")["data"] == [item]


def test_the_same_task_posted_twice_at_once_runs_once(
    services: Services, fleet: Fleet, tmp_path_factory: pytest.TempPathFactory
) -> None:
    services.start()
    starts = tmp_path_factory.mktemp("starts") / "starts"
    hosts = fleet.hosts("healthy", 3)

    with ThreadPoolExecutor() as pool:
        ids = list(pool.map(lambda _: services.submit_adhoc(hosts, f"echo x >> {starts}", task_id="once"), range(4)))

    assert set(ids) == {"once"}
    assert services.wait_task("once")["counts"]["success"] == 3
    assert starts.read_text().count("x") == 3
    assert (
        services.api(
            "/adhoc/",
            {"task_id": "once", "task_name": "t", "type": "adhoc", "module": "shell", "args": "true", "ips": hosts},
        )["code"]
        == 409
    )


def test_sick_hosts_are_named_and_do_not_hold_the_others(services: Services, fleet: Fleet) -> None:
    services.start()
    sick = {kind: fleet.hosts(kind, 1)[0] for kind in ("hang", "refused", "no_auth", "drop")}
    well = fleet.hosts("healthy", 8)

    # Without become: else it is sudo that is waited for, and Ansible gives that up after 12 s.
    task_id = services.submit_adhoc([*well, *sick.values()], "echo hi", timeout=15, become=False)
    counts = services.wait_task(task_id)["counts"]

    items = {item["ip"]: item for item in services.hosts(task_id)}
    assert {items[host]["status"] for host in well} == {"success"}
    assert {kind: items[host]["status"] for kind, host in sick.items()} == {
        "hang": "timeout", "refused": "unreachable", "no_auth": "unreachable", "drop": "unreachable",
    }  # fmt: skip
    assert items[sick["hang"]]["stage"] == "running"
    assert "shell" in items[sick["hang"]]["blame"]
    assert "engine-1" in items[sick["hang"]]["blame"]
    assert counts["timeout"] == 1


@pytest.mark.parametrize("backend", ["embedded"], indirect=True)
def test_four_engines_share_the_embedded_database(services: Services, fleet: Fleet) -> None:
    services.start(engines=4, Exec_Engine={"SLOTS": 5, "NUMBER": 5})
    hosts = fleet.hosts("healthy", 60)

    task_id = services.submit_adhoc(hosts, "sleep 1; echo hi", become=False)

    assert services.wait_task(task_id)["counts"]["success"] == 60
    assert rows_by_host(services, task_id) == collections.Counter(hosts)
    assert engines_of(services, task_id) == {"engine-1", "engine-2", "engine-3", "engine-4"}


@pytest.mark.parametrize("backend", ["embedded"], indirect=True)
def test_a_unit_that_is_larger_than_its_engine_runs_when_nothing_else_does(services: Services, fleet: Fleet) -> None:
    services.start(Exec_Engine={"SLOTS": 3})

    small = services.submit_adhoc(fleet.hosts("healthy", 2), "sleep 3", become=False)
    wait_for("the small unit to run", lambda: services.task(small)["counts"]["running"] == 2)
    large = services.submit_adhoc(fleet.hosts("healthy", 8), "sleep 1", become=False)

    assert services.wait_task(large)["counts"]["success"] == 8
    assert services.task(small)["counts"]["success"] == 2
    times = sa.select(unit.c.begun_at, unit.c.finished_at).order_by(unit.c.id)
    (_, first_end), (second_begin, _) = services.database.read(lambda connection: connection.execute(times).all())
    assert first_end <= second_begin
