"""Submitting by REST: what is answered and what stands in the database then, on SQLite and on MariaDB."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from contract.database import Database
from contract.errors import DatabaseError
from contract.states import HostStatus, TaskState, UnitState
from contract.tables import host_result, task, unit
from distribute import submissions
from distribute.schemas import AdhocSubmissionOut, PlaybookSubmissionOut
from distribute.store.queries import find_task
from distribute.store.submission import NewTask, submit
from tests.integration.rest import Rest, adhoc, counts, hosts_by_unit, playbook, rows, set_host, set_task, task_row


@pytest.fixture
def rest(database: Database) -> Rest:
    return Rest(database)


def test_an_adhoc_task_is_answered_with_its_summary(rest: Rest) -> None:
    answer = rest.post("/adhoc/", adhoc(" 10.0.0.1, Web-1,,10.0.0.1 ,", task_id="Deploy:1", task_name="größe 😀"))
    data = answer["data"]
    created = data.pop("created_date")
    assert answer["msg"] == "accepted"
    assert data == {
        "task_id": "Deploy:1", "task_name": "größe 😀", "type": "adhoc", "module": "shell", "state": "queued",
        "hosts": 2, "units": 1, "duplicates": 1, "timeout": 100, "warnings": [],
    }  # fmt: skip
    assert created == f"{task_row(rest.database, 'Deploy:1').created_at.isoformat(timespec='microseconds')}Z"
    assert {*data, "created_date"} == AdhocSubmissionOut.model_fields.keys()


def test_an_adhoc_task_is_stored_with_everything_that_an_engine_needs(rest: Rest) -> None:
    rest.submit(
        "b,a", task_id="t", module="copy", args={"src": "größe", "mode": 420}, timeout=17, become=False, check=True,
        template=True, parallel=40, unit_hosts=50,
        host_timeout=40, on_timeout="leave", on_engine_loss="rerun",
    )  # fmt: skip
    row = task_row(rest.database, "t")
    assert (row.name, row.type, row.module, row.timeout_seconds) == ("test", "adhoc", "copy", 17)
    assert (row.state, row.host_count, row.unit_count) == (TaskState.QUEUED, 2, 1)
    assert row.args == '{"src": "gr\\u00f6\\u00dfe", "mode": 420}'
    assert row.options == {
        "become": False, "check": True, "template": True, "parallel": 40, "unit_hosts": 50, "args_are_json": True,
        "strategies": [], "host_timeout": 40, "on_timeout": "leave", "on_engine_loss": "rerun", "secret_args": False,
        "task_timeout": None,
    }  # fmt: skip
    assert (row.started_at, row.finished_at, row.playbook_content) == (None, None, None)


def test_text_args_are_stored_as_they_are(rest: Rest) -> None:
    args = "echo 'größe 😀' \\ \"%s\" :x {{ y }}\n\t\r "
    rest.submit("a", task_id="t", args=args)
    row = task_row(rest.database, "t")
    assert (row.args, row.options["args_are_json"], row.options["become"]) == (args, False, True)
    assert rest.get("/adhoc/", task_id="t")["data"][0]["args"] == args


def test_a_playbook_is_answered_with_the_strategies_of_its_plays(rest: Rest) -> None:
    content = "- {name: größe 😀, hosts: all, tasks: []}\n- {hosts: all, serial: 1, tasks: []}\n"
    data = rest.submit_playbook(["a", "b", "c"], task_id="p", playbook_content=content, unit_hosts=2)
    assert data.keys() == PlaybookSubmissionOut.model_fields.keys()
    assert data["warnings"] == [
        "line 1: play 'größe 😀' runs with strategy free, because nothing in it makes one host depend on another",
        "line 2: play 'all' runs with strategy linear, because of serial in line 2",
        "line 2: serial means each of the 2 units, not the whole task",
        "line 2: play 'all' is linear: without host_timeout a host that hangs in one task keeps the others from the "
        "next",
        "between its 2 plays all hosts of a unit wait for each other: without host_timeout a host that hangs in one "
        "keeps the others from the next",
    ]
    limited = rest.submit_playbook(["a", "b", "c"], playbook_content=content, unit_hosts=2, host_timeout=9)
    assert limited["warnings"] == data["warnings"][:3]
    assert (data["playbook_name"], data["timeout"], data["units"]) == ("p.yml", 600, 2)
    row = task_row(rest.database, "p")
    assert (row.playbook_content, row.playbook_name, row.module, row.args) == (content, "p.yml", None, None)
    assert row.options["strategies"] == ["free", "linear"]
    assert row.options["become"] is None
    assert row.warnings == data["warnings"]
    assert rest.get("/tasks/p/")["data"]["warnings"] == data["warnings"]


@pytest.mark.parametrize(("become", "stored"), [({}, None), ({"become": False}, None), ({"become": True}, True)])
def test_become_of_a_playbook_adds_to_what_its_plays_say_or_says_nothing(
    rest: Rest, become: dict[str, bool], stored: bool | None
) -> None:
    rest.submit_playbook("a", task_id="p", **become)
    assert task_row(rest.database, "p").options["become"] is stored


def test_hosts_are_cut_into_units_in_their_order_each_with_exactly_one_row(rest: Rest) -> None:
    hosts = [f"10.0.{number // 250}.{number % 250}" for number in range(65)]
    data = rest.submit([*hosts, *hosts[:5]], task_id="t")
    assert (data["hosts"], data["units"], data["duplicates"]) == (65, 3, 5)
    assert hosts_by_unit(rest.database, "t") == {1: hosts[:30], 2: hosts[30:60], 3: hosts[60:]}
    found = rows(rest.database, sa.select(unit.c.number, unit.c.host_count, unit.c.state, unit.c.attempt))
    assert found == [(1, 30, UnitState.WAITING, 1), (2, 30, UnitState.WAITING, 1), (3, 5, UnitState.WAITING, 1)]
    results = rows(rest.database, sa.select(host_result.c.status, host_result.c.attempt, host_result.c.rc).distinct())
    assert results == [(HostStatus.QUEUED, 1, None)]


def test_hosts_of_more_than_one_statement_are_stored_once_and_in_their_units(rest: Rest) -> None:
    hosts = [f"host-{number}" for number in range(20_003)]
    rest.submit(hosts, task_id="t", unit_hosts=999)
    found = hosts_by_unit(rest.database, "t")
    assert [host for number in sorted(found) for host in found[number]] == hosts
    assert [len(found[number]) for number in range(1, 22)] == [999] * 20 + [23]
    assert counts(rest.database) == (1, 21, 20_003)


def test_the_configuration_says_how_many_hosts_run_at_once_where_the_request_does_not(database: Database) -> None:
    rest = Rest(database, parallel=70)
    for task_id, fields in {"a": {}, "b": {"parallel": 0}, "c": {"parallel": 5}}.items():
        rest.submit("x", task_id=task_id, **fields)
    assert [task_row(database, task_id).options["parallel"] for task_id in "abc"] == [70, 0, 5]


@pytest.mark.parametrize("given", [{}, {"task_id": None}])
def test_a_task_id_is_made_when_none_is_given(rest: Rest, given: dict[str, None]) -> None:
    first, second = rest.submit("a", **given), rest.submit("a", **given)
    assert first["task_id"] != second["task_id"]
    assert rest.get(f"/tasks/{first['task_id']}/")["data"]["task_id"] == first["task_id"]
    assert counts(rest.database) == (2, 2, 2)


def test_ids_are_compared_by_case(rest: Rest) -> None:
    rest.submit("a", task_id="Deploy-1")
    rest.submit("b", task_id="deploy-1")
    assert [item["ip"] for item in rest.get("/adhoc/", task_id="Deploy-1")["data"]] == ["a"]
    assert [item["ip"] for item in rest.get("/adhoc/", task_id="deploy-1")["data"]] == ["b"]
    rest.get("/tasks/DEPLOY-1/", 404)


def test_an_id_of_every_character_and_the_greatest_length_is_found_again(rest: Rest) -> None:
    for task_id in ("azAZ09._:-", "x" * 160, "..", "0"):
        assert rest.submit("a", task_id=task_id)["task_id"] == task_id
        assert rest.get("/adhoc/", task_id=task_id)["length"] == 1


# --- the same request again


def test_the_same_request_is_answered_alike_and_runs_once(rest: Rest) -> None:
    body = adhoc("b,a,b", task_id="t")
    first = rest.post("/adhoc/", body)
    set_task(rest.database, "t", state=TaskState.RUNNING)
    set_host(rest.database, "t", "a", status=HostStatus.SUCCESS)
    assert rest.post("/adhoc/", body) == first
    assert counts(rest.database) == (1, 1, 2)


@pytest.mark.parametrize(
    "fields",
    [{"ips": ["a", "b"]}, {"ips": " B,a, "}, {"timeout": 100}, {"become": True, "type": "adhoc"}, {"parallel": None}],
)
def test_the_spelling_of_hosts_and_given_defaults_make_no_other_request(rest: Rest, fields: dict[str, Any]) -> None:
    first = rest.submit("b,a", task_id="t")
    assert rest.submit(**{"ips": "b,a", "task_id": "t", **fields}) == first


OTHER = [
    {"ips": "a"}, {"ips": "a,b,c"}, {"task_name": "other"}, {"module": "command"}, {"args": "echo ho"},
    {"args": {"cmd": "echo hi"}}, {"timeout": 101}, {"become": False}, {"check": True}, {"template": True},
    {"parallel": 0}, {"unit_hosts": 30},
]  # fmt: skip


@pytest.mark.parametrize("fields", OTHER, ids=str)
def test_the_same_id_with_another_request_is_refused_and_changes_nothing(rest: Rest, fields: dict[str, Any]) -> None:
    first = rest.submit("a,b", task_id="t")
    answer = rest.post("/adhoc/", {**adhoc("a,b", task_id="t"), **fields}, 409)
    assert answer["data"] is None
    assert answer["msg"] == "The task_id t belongs to another request; nothing was done. Choose another task_id."
    assert rest.submit("a,b", task_id="t") == first
    assert counts(rest.database) == (1, 1, 2)


def test_the_id_of_an_adhoc_task_is_no_playbooks_too(rest: Rest) -> None:
    rest.submit("a", task_id="t")
    rest.post("/playbook/", playbook("a", task_id="t"), 409)
    rest.submit_playbook("a", task_id="p")
    rest.post("/playbook/", playbook("a", task_id="p", playbook_content="- hosts: target_hosts"), 409)
    assert counts(rest.database) == (2, 2, 2)


def test_the_same_request_from_many_sides_at_once_is_one_task(rest: Rest) -> None:
    barrier = threading.Barrier(6)

    def post(number: int) -> tuple[int, Any]:
        barrier.wait(60)
        response = rest.call("POST", "/adhoc/", json=adhoc("a,b", task_id="t", args=f"echo {number % 2}"))
        return response.status_code, response.json

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(post, range(6)))
    winner = task_row(rest.database, "t").args
    assert [status for status, _ in answers] == [200 if f"echo {n % 2}" == winner else 409 for n in range(6)]
    accepted = [answer for status, answer in answers if status == 200]
    assert all(answer == accepted[0] for answer in accepted)
    assert counts(rest.database) == (1, 1, 2)


@pytest.mark.parametrize("database_settings", ["mariadb"], indirect=True)  # SQLite's writers never overlap
def test_of_two_who_both_saw_no_such_task_the_second_finds_the_first_ones(
    rest: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    barrier, thread = threading.Barrier(2), threading.local()

    def find(connection: sa.Connection, task_id: str) -> sa.Row[Any] | None:
        found = find_task(connection, task_id)
        if not hasattr(thread, "has_looked"):
            thread.has_looked = True
            assert found is None
            barrier.wait(60)
        return found

    monkeypatch.setattr("distribute.store.submission.find_task", find)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: rest.submit("a,b", task_id="t"), range(2))
    assert first == second
    assert counts(rest.database) == (1, 1, 2)


# --- what fails leaves nothing


def test_a_submission_that_the_database_refuses_half_way_leaves_nothing(
    rest: Rest, caplog: pytest.LogCaptureFixture
) -> None:
    trigger = "CREATE TRIGGER picky BEFORE INSERT ON host_result FOR EACH ROW " + (
        "WHEN NEW.host = 'poison' BEGIN SELECT RAISE(ABORT, 'refused by a trigger'); END"
        if rest.database.is_sqlite
        else "IF NEW.host = 'poison' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'refused by a trigger'; END IF"
    )
    rest.database.write(lambda connection: connection.exec_driver_sql(trigger))
    answer = rest.post("/adhoc/", adhoc("a,poison,b", task_id="t"), 500)
    assert answer["msg"] == "Something went wrong here; the log of distribute says what."
    assert "refused by a trigger" in caplog.text
    assert counts(rest.database) == (0, 0, 0)
    rest.submit("a,b", task_id="t")  # the id is still free
    assert counts(rest.database) == (1, 1, 2)


def test_a_host_that_is_there_twice_is_refused_by_the_tables_and_leaves_nothing(rest: Rest) -> None:
    """The requests drop duplicates; should one come through, half a task must not be taken for another's."""
    new = NewTask("t", "n", "adhoc", 1, {}, [], "hash", ("a", "b", "a"), 30, "somebody")
    with pytest.raises(DatabaseError):
        rest.database.write(lambda connection: submit(connection, new))
    assert counts(rest.database) == (0, 0, 0)


def test_a_process_that_dies_before_the_commit_leaves_nothing(rest: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(connection: sa.Connection, new: NewTask) -> None:
        submit(connection, new)
        raise SystemExit

    monkeypatch.setattr(submissions, "submit", dies)
    with pytest.raises(SystemExit):
        rest.call("POST", "/adhoc/", json=adhoc("a", task_id="t"))
    assert counts(rest.database) == (0, 0, 0)


def test_a_bad_request_leaves_nothing(rest: Rest) -> None:
    rest.post("/adhoc/", adhoc(["a", "1.2.3.999"], task_id="t"), 400)
    rest.post("/playbook/", playbook("a", task_id="t", playbook_content="x"), 400)
    assert counts(rest.database) == (0, 0, 0)
    assert rows(rest.database, sa.select(task)) == []
