"""Tasks, their hosts and the engines by REST, and what stands at the root: health and the contract."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from contract.database import Database
from contract.states import HostStatus, UnitState
from contract.tables import engine
from distribute.schemas import EngineOut, TaskHostOut, TaskOut, TaskRowOut
from tests.integration.rest import Rest, add, away, opened, set_host, set_task, set_unit, task_row, told

CREATED = datetime(2026, 1, 31, 12)
NO_COUNTS = dict.fromkeys(map(str, HostStatus), 0)
NO_UNITS = dict.fromkeys(map(str, UnitState), 0)
WRONG_CURSOR = {"cursor": "expected the cursor of an earlier answer to the same query, found another text"}


@pytest.fixture
def rest(database: Database) -> Rest:
    return Rest(database)


def after(seconds: float) -> datetime:
    return CREATED + timedelta(seconds=seconds)


def task_ids(answer: dict[str, Any]) -> list[str]:
    return [item["task_id"] for item in answer["data"]]


# --- GET /tasks/


def test_a_task_in_the_list_field_by_field(rest: Rest) -> None:
    rest.submit("a,b,c", task_id="t", unit_hosts=2, timeout=7)
    rest.submit_playbook("a", task_id="p")
    set_task(rest.database, "t", created_at=CREATED, started_at=after(1), finished_at=after(2), state="finished")
    playbook, adhoc = rest.get("/tasks/")["data"]
    assert adhoc == {
        "task_id": "t", "task_name": "test", "type": "adhoc", "module": "shell", "playbook_name": None,
        "state": "finished", "hosts": 3, "units": 2, "timeout": 7, "created_date": "2026-01-31T12:00:00.000000Z",
        "started_date": "2026-01-31T12:00:01.000000Z", "finished_date": "2026-01-31T12:00:02.000000Z",
        "rerun_of": None, "submitted_by": "anonymous",
    }  # fmt: skip
    assert (playbook["type"], playbook["module"], playbook["playbook_name"]) == ("playbook", None, "p.yml")
    assert (playbook["state"], playbook["started_date"], playbook["finished_date"]) == ("queued", None, None)
    assert adhoc.keys() == playbook.keys() == TaskRowOut.model_fields.keys()


def test_tasks_are_listed_newest_first_and_filtered(rest: Rest) -> None:
    assert rest.get("/tasks/") == {"code": 200, "data": [], "msg": "ok", "length": 0, "cursor": None}
    for number, state in enumerate(("finished", "running", "queued", "running")):
        rest.submit("a", task_id=f"a{number}")
        rest.submit_playbook("a", task_id=f"p{number}")
        set_task(rest.database, f"a{number}", state=state)
    assert task_ids(rest.get("/tasks/")) == ["p3", "a3", "p2", "a2", "p1", "a1", "p0", "a0"]
    assert task_ids(rest.get("/tasks/", state="running")) == ["a3", "a1"]
    assert task_ids(rest.get("/tasks/", type="playbook")) == ["p3", "p2", "p1", "p0"]
    assert task_ids(rest.get("/tasks/", state="queued", type="adhoc")) == ["a2"]
    assert task_ids(rest.get("/tasks/", state="cancelled")) == []


def test_pages_of_tasks_go_on_where_they_were_whatever_is_submitted_meanwhile(rest: Rest) -> None:
    for number in range(5):
        rest.submit("a", task_id=f"t{number}")
    first = rest.get("/tasks/", limit=2, type="adhoc")
    assert task_ids(first) == ["t4", "t3"]
    rest.submit("a", task_id="newer")
    second = rest.get("/tasks/", limit=2, type="adhoc", cursor=first["cursor"])
    assert task_ids(second) == ["t2", "t1"]
    last = rest.get("/tasks/", limit=1, type="adhoc", cursor=second["cursor"])  # another limit is the same query
    assert (task_ids(last), last["cursor"]) == (["t0"], None)
    assert told(rest.get("/tasks/", 400, cursor=first["cursor"])) == WRONG_CURSOR


def test_a_page_of_tasks_has_100_unless_the_query_says_otherwise(rest: Rest) -> None:
    for number in range(101):
        rest.submit("a", task_id=f"t{number}")
    assert rest.get("/tasks/")["length"] == 100
    assert rest.get("/tasks/", limit=1000)["length"] == 101


# --- GET /tasks/{id}/


def test_a_new_task_has_all_its_hosts_queued(rest: Rest) -> None:
    rest.submit("a,b,c", task_id="t", unit_hosts=2)
    data = rest.get("/tasks/t/")["data"]
    assert data.keys() == TaskOut.model_fields.keys()
    assert data["counts"] == {**NO_COUNTS, "queued": 3}
    assert data["units_by_state"] == {**NO_UNITS, "waiting": 2}
    assert (data["finished"], data["percent"], data["hosts_per_second"], data["seconds_left"]) == (0, 0, 0.0, None)


def test_a_task_counts_what_ended_units_have_counted_and_what_running_ones_show(rest: Rest) -> None:
    hosts = [f"h{number}" for number in range(9)]
    rest.submit(hosts, task_id="t", unit_hosts=2)
    rest.submit("h0", task_id="other")
    set_unit(rest.database, "other", 1, state=UnitState.RUNNING)
    set_unit(rest.database, "t", 1, state=UnitState.FINISHED, success=1, timeout=1)
    set_unit(rest.database, "t", 2, state=UnitState.RUNNING)
    set_host(rest.database, "t", "h2", status=HostStatus.SUCCESS)
    set_host(rest.database, "t", "h3", status=HostStatus.RUNNING)
    set_unit(rest.database, "t", 3, state=UnitState.PUBLISHED)
    data = rest.get("/tasks/t/")["data"]
    assert data["counts"] == {**NO_COUNTS, "success": 2, "timeout": 1, "running": 1, "queued": 5}
    assert data["units_by_state"] == {**NO_UNITS, "finished": 1, "running": 1, "published": 1, "waiting": 2}
    assert (data["finished"], data["percent"]) == (3, 33)


def test_how_fast_a_task_is_and_how_long_it_takes_still(rest: Rest) -> None:
    rest.submit("a,b,c,d", task_id="t", unit_hosts=3)
    set_unit(rest.database, "t", 1, state=UnitState.FINISHED, success=3)
    set_task(rest.database, "t", started_at=CREATED, finished_at=after(6))
    data = rest.get("/tasks/t/")["data"]
    assert (data["hosts_per_second"], data["seconds_left"]) == (0.5, 2.0)
    set_unit(rest.database, "t", 2, state=UnitState.FINISHED, lost=1)
    data = rest.get("/tasks/t/")["data"]
    assert (data["percent"], data["hosts_per_second"], data["seconds_left"]) == (100, 0.667, 0.0)


def test_a_task_that_has_begun_and_finished_no_host_says_no_time(rest: Rest) -> None:
    rest.submit("a", task_id="t")
    set_task(rest.database, "t", state="running", started_at=task_row(rest.database, "t").created_at)
    data = rest.get("/tasks/t/")["data"]
    assert (data["hosts_per_second"], data["seconds_left"]) == (0.0, None)


# --- GET /tasks/{id}/hosts/


def test_a_host_of_a_task_field_by_field(rest: Rest) -> None:
    rest.submit_playbook("a,b,c", task_id="p", unit_hosts=2)
    tasks = [{"name": "install", "status": "ok", "seconds": 1.5}]
    set_task(rest.database, "p", created_at=CREATED)
    set_host(
        rest.database, "p", "c", status="timeout", attempt=2, engine="engine-1", stage="running", since=after(1), rc=7,
        stuck_task="restart", tasks_ok=1, tasks_total=3, stopped_on_host="unknown", started_at=after(2), stdout="out",
        stderr="err", msg="m", changed=True, blame="culprit", finished_at=after(3), detail={"tasks": tasks, "cmd": "x"},
    )  # fmt: skip
    answer = rest.get("/tasks/p/hosts/")
    assert [item["unit"] for item in answer["data"]] == [1, 1, 2]
    assert answer["cursor"] is None
    item = answer["data"][2]
    assert item == {
        "ip": "c", "result": "fail", "status": "timeout", "task_id": "p", "task_name": "test", "module": None,
        "args": None, "stdout": "out", "stderr": "err", "msg": "m", "rc": 7, "cmd": "x", "dest": None, "changed": True,
        "created_date": "2026-01-31T12:00:00.000000Z", "finished_date": "2026-01-31T12:00:03.000000Z",
        "blame": "culprit", "unit": 2, "attempt": 2, "engine": "engine-1", "stage": "running",
        "since": "2026-01-31T12:00:01.000000Z", "stuck_task": "restart", "tasks_ok": 1, "tasks_total": 3,
        "stopped_on_host": "unknown", "late": False, "started_date": "2026-01-31T12:00:02.000000Z", "tasks": tasks,
    }  # fmt: skip
    assert item.keys() == TaskHostOut.model_fields.keys()


def test_hosts_of_a_task_come_in_pages_in_the_order_of_the_request(rest: Rest) -> None:
    hosts = [f"h{number}" for number in range(101)]
    rest.submit(hosts[::-1], task_id="t")
    rest.submit(hosts, task_id="other")
    pages = rest.pages("/tasks/t/hosts/")
    assert [len(page) for page in pages] == [100, 1]
    assert [item["ip"] for page in pages for item in page] == hosts[::-1]
    assert [len(page) for page in rest.pages("/tasks/t/hosts/", limit=1000)] == [101]


def test_the_running_hosts_are_what_a_task_is_stuck_on_the_longest_unchanged_first(rest: Rest) -> None:
    since = {"h0": 9, "h1": 1, "h2": None, "h3": 5, "h4": 5, "h5": None, "h6": 0, "h7": 5}
    rest.submit(list(since), task_id="t", unit_hosts=3)
    for host, seconds in since.items():
        set_host(
            rest.database, "t", host, status="success" if host == "h6" else "running",
            since=None if seconds is None else after(seconds),
        )  # fmt: skip
    expected = ["h2", "h5", "h1", "h3", "h4", "h7", "h0"]
    for limit in (1, 2, 3, 7):
        pages = rest.pages("/tasks/t/hosts/", status="running", limit=limit)
        assert [item["ip"] for page in pages for item in page] == expected
        assert {len(page) for page in pages[:-1]} <= {limit}
    assert [item["ip"] for item in rest.get("/tasks/t/hosts/", status="success")["data"]] == ["h6"]
    assert rest.get("/tasks/t/hosts/", status="held")["data"] == []


def test_a_cursor_of_another_status_or_task_is_refused(rest: Rest) -> None:
    rest.submit("a,b", task_id="t")
    rest.submit("a,b", task_id="T")
    cursor = rest.get("/tasks/t/hosts/", status="queued", limit=1)["cursor"]
    assert rest.get("/tasks/t/hosts/", status="queued", cursor=cursor)["length"] == 1
    for path, query in (("t", {"status": "running"}), ("t", {}), ("T", {"status": "queued"})):
        assert told(rest.get(f"/tasks/{path}/hosts/", 400, cursor=cursor, **query)) == WRONG_CURSOR


# --- GET /engines/


def test_engines_are_listed_each_in_its_newest_incarnation(rest: Rest) -> None:
    assert rest.get("/engines/")["data"] == []
    row = {
        "id": "engine-2", "host_name": "node-2", "version": "0.1.0", "slots": 100, "free_slots": 70, "state": "live",
        "missing": None, "beat_at": after(9),
    }  # fmt: skip
    add(rest.database, engine, {**row, "incarnation": "b" * 32, "started_at": after(1)})
    add(rest.database, engine, {**row, "incarnation": "a" * 32, "started_at": after(2), "missing": "RUNNERS are out"})
    add(rest.database, engine, {**row, "incarnation": "c" * 32, "started_at": CREATED, "state": "dead"})
    add(rest.database, engine, {**row, "incarnation": "d" * 32, "started_at": CREATED, "id": "engine-1"})
    first, second = rest.get("/engines/")["data"]
    assert (first["engine_id"], first["incarnation"]) == ("engine-1", "d" * 32)
    assert second == {
        "engine_id": "engine-2", "incarnation": "a" * 32, "host_name": "node-2", "version": "0.1.0", "state": "live",
        "slots": 100, "free_slots": 70, "missing": "RUNNERS are out", "started_date": "2026-01-31T12:00:02.000000Z",
        "beat_date": "2026-01-31T12:00:09.000000Z",
    }  # fmt: skip
    assert second.keys() == EngineOut.model_fields.keys()


# --- at the root


@pytest.mark.parametrize("path", ["healthz", "healthz/", "readyz", "readyz/"])
def test_health_is_told_outside_of_the_envelope(rest: Rest, path: str) -> None:
    response = rest.call("GET", path)
    expected = {"status": "ok"} if path.startswith("healthz") else {"status": "ready", "missing": []}
    assert (response.status_code, response.json) == (200, expected)


def test_readiness_names_the_database_that_is_away_and_liveness_does_not_need_it(rest: Rest, tmp_path: Path) -> None:
    with away(rest.database, tmp_path):
        response = rest.call("GET", "readyz")
        assert response.status_code == 503
        assert response.json is not None
        assert response.json["status"] == "not ready"
        (missing,) = response.json["missing"]
        assert missing.startswith("database: ")
        assert rest.call("GET", "healthz").status_code == 200
    assert rest.call("GET", "readyz").status_code == 200


@pytest.mark.parametrize(("version", "words"), [(None, "found none: start distribute"), ("9999", "found 9999, which")])
def test_readiness_names_a_schema_of_another_version(rest: Rest, version: str | None, words: str) -> None:
    statement = (
        "DELETE FROM alembic_version" if version is None else f"UPDATE alembic_version SET version_num={version}"
    )
    rest.database.write(lambda connection: connection.execute(sa.text(statement)))
    response = rest.call("GET", "readyz")
    assert response.status_code == 503
    assert response.json is not None
    assert words in response.json["missing"][0]


@pytest.fixture
def contract(sqlite_settings: Any) -> dict[str, Any]:
    database = Database(sqlite_settings)
    response = Rest(database).call("GET", "openapi.json")
    database.close()
    assert response.status_code == 200
    assert isinstance(response.json, dict)
    return response.json


PATHS = {
    "/api/v1/distribute/adhoc/": {"get": {"400", "404"}, "post": {"400", "409", "413", "415"}},
    "/api/v1/distribute/adhoc/query/": {"post": {"400", "404", "413", "415"}},
    "/api/v1/distribute/playbook/": {"get": {"400", "404"}, "post": {"400", "409", "413", "415"}},
    "/api/v1/distribute/playbook/query/": {"post": {"400", "404", "413", "415"}},
    "/api/v1/distribute/tasks/": {"get": {"400"}},
    "/api/v1/distribute/tasks/{task_id}/": {"get": {"404"}},
    "/api/v1/distribute/tasks/{task_id}/hosts/": {"get": {"400", "404"}},
    "/api/v1/distribute/tasks/{task_id}/cancel/": {"post": {"400", "404", "413", "415"}},
    "/api/v1/distribute/tasks/{task_id}/rerun/": {"post": {"400", "404", "409", "413", "415"}},
    "/api/v1/distribute/file/": {
        "get": set[str](),
        "post": {"202", "400", "404", "409", "413", "415", "502", "504", "507"},
    },
    "/api/v1/distribute/file/jobs/{job}/": {"get": {"404"}},
    "/api/v1/distribute/file/{project}/": {"delete": {"404", "409"}},
    "/api/v1/distribute/hold/": {"post": {"400", "413", "415"}},
    "/api/v1/distribute/release/": {"post": {"400", "413", "415"}},
    "/api/v1/distribute/engines/": {"get": set[str]()},
    "/api/v1/distribute/audit/": {"get": {"400"}},
    "/healthz": {"get": set[str]()},
    "/readyz": {"get": set[str]()},
}


@pytest.mark.parametrize("path", PATHS)
def test_the_contract_names_every_operation_with_its_answers(contract: dict[str, Any], path: str) -> None:
    operations = {name: value for name, value in contract["paths"][path].items() if name != "parameters"}
    assert operations.keys() == PATHS[path].keys()
    for method, failures in PATHS[path].items():
        always = {"200"} if path == "/healthz" else {"200", "503"}
        if path.startswith("/api/"):
            always |= {"401", "403", "429"}
            assert operations[method]["security"] == [{"token": []}]
        assert operations[method]["responses"].keys() == failures | always
        for status, response in operations[method]["responses"].items():
            schema = response["content"]["application/json"]["schema"]["$ref"]
            is_failure = status not in ("200", "202") and path != "/readyz"
            assert schema.endswith("/Failure") == is_failure


def test_the_contract_names_nothing_else_and_leads_nowhere_outside(contract: dict[str, Any]) -> None:
    assert contract["paths"].keys() == PATHS.keys()
    references = set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(contract)))
    schemas = {f"#/components/schemas/{name}" for name in contract["components"]["schemas"]}
    assert references
    assert references <= schemas
    submission = contract["components"]["schemas"]["AdhocSubmission"]
    assert submission["required"] == ["task_name", "ips", "module"]
    assert submission["additionalProperties"] is False


def test_the_contract_as_a_page_shows_every_operation_and_needs_no_other_server(rest: Rest) -> None:
    response = rest.call("GET", "docs")
    assert (response.status_code, response.mimetype) == (200, "text/html")
    text = response.get_data(as_text=True)
    assert all(f"<code>{path}</code>" in text for path in PATHS)
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", text)


def test_neither_health_nor_the_contract_is_below_the_base_path(rest: Rest) -> None:
    for path in ("/healthz", "/readyz", "/docs", "/openapi.json"):
        opened(rest.call("GET", path), 404)
