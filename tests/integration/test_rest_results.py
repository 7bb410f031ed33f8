"""Results by REST, field by field: of a task, of a host, of hosts; in pages, and streamed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from contract.database import Database
from contract.errors import DatabaseAway
from distribute.schemas import AdhocPage, PlaybookPage
from tests.integration.rest import PLAYBOOK, Rest, away, opened, set_host, set_task, told

CREATED = datetime(2026, 1, 31, 12, 0, 0, 5)
STARTED = datetime(2026, 1, 31, 12, 0, 1)
FINISHED = datetime(2026, 1, 31, 12, 0, 2, 123456)
TEXT = "größe 😀 \\ \" ' % :x \n\t\r"


@pytest.fixture
def rest(database: Database) -> Rest:
    return Rest(database)


def ips(items: list[dict[str, Any]]) -> list[str]:
    return [item["ip"] for item in items]


# --- fields


def test_the_results_of_an_adhoc_task_field_by_field(rest: Rest) -> None:
    rest.submit("good,bad,none", task_id="Deploy:1", task_name="say hi", module="copy", args={"a": [1, None, "ü"]})
    set_task(rest.database, "Deploy:1", created_at=CREATED)
    set_host(
        rest.database, "Deploy:1", "good", status="success", rc=0, changed=True, stdout=TEXT, stderr="", msg=None,
        started_at=STARTED, finished_at=FINISHED, detail={"cmd": ["echo", "hi"], "dest": "/tmp/x", "tasks": []},
    )  # fmt: skip
    set_host(
        rest.database, "Deploy:1", "bad", status="timeout", rc=None, changed=False, stdout=None, stderr="slow", msg="m",
        blame="culprit: copy, for 100 s", finished_at=FINISHED,
    )  # fmt: skip
    common = {
        "task_id": "Deploy:1", "task_name": "say hi", "module": "copy", "args": {"a": [1, None, "ü"]},
        "created_date": "2026-01-31T12:00:00.000005Z",
    }  # fmt: skip
    answer = rest.get("/adhoc/", task_id="Deploy:1")
    assert answer["data"] == [
        {
            **common, "ip": "good", "result": "success", "status": "success", "stdout": TEXT, "stderr": "", "msg": None,
            "rc": 0, "cmd": ["echo", "hi"], "dest": "/tmp/x", "changed": True, "blame": None,
            "finished_date": "2026-01-31T12:00:02.123456Z",
        },
        {
            **common, "ip": "bad", "result": "fail", "status": "timeout", "stdout": None, "stderr": "slow", "msg": "m",
            "rc": None, "cmd": None, "dest": None, "changed": False, "blame": "culprit: copy, for 100 s",
            "finished_date": "2026-01-31T12:00:02.123456Z",
        },
        {
            **common, "ip": "none", "result": None, "status": "queued", "stdout": None, "stderr": None, "msg": None,
            "rc": None, "cmd": None, "dest": None, "changed": None, "blame": None, "finished_date": None,
        },
    ]  # fmt: skip
    AdhocPage.model_validate_json(json.dumps(answer), strict=True, extra="forbid")


@pytest.mark.parametrize(
    ("status", "result"),
    [("queued", None), ("running", None), ("success", "success"), ("failed", "fail"), ("unreachable", "fail"),
     ("timeout", "fail"), ("held", "fail"), ("not_started", "fail"), ("cancelled", "fail"), ("lost", "fail")],
)  # fmt: skip
def test_result_is_null_until_the_status_is_final(rest: Rest, status: str, result: str | None) -> None:
    rest.submit("h", task_id="a")
    rest.submit_playbook("h", task_id="p")
    for path, task_id in (("/adhoc/", "a"), ("/playbook/", "p")):
        set_host(rest.database, task_id, "h", status=status)
        (item,) = rest.get(path, task_id=task_id)["data"]
        assert (item["status"], item["result"]) == (status, result)


def test_the_results_of_a_playbook_field_by_field(rest: Rest) -> None:
    rest.submit_playbook("stuck,none", task_id="p")
    set_task(rest.database, "p", created_at=CREATED)
    set_host(
        rest.database, "p", "stuck", status="timeout", tasks_ok=3, tasks_total=4, stuck_task="install", rc=1, msg="m",
        stdout="x", blame="culprit: install", started_at=STARTED, finished_at=FINISHED, detail={"tasks": []},
    )  # fmt: skip
    answer = rest.get("/playbook/", task_id="p")
    assert answer["data"] == [
        {
            "ip": "stuck", "success_rate": "75%", "result": "fail", "datetime": "2026-01-31T12:00:02.123456Z",
            "status": "timeout", "tasks_ok": 3, "tasks_total": 4, "stuck_task": "install", "blame": "culprit: install",
            "task_id": "p",
        },
        {
            "ip": "none", "success_rate": None, "result": None, "datetime": "2026-01-31T12:00:00.000005Z",
            "status": "queued", "tasks_ok": None, "tasks_total": None, "stuck_task": None, "blame": None,
            "task_id": "p",
        },
    ]  # fmt: skip
    PlaybookPage.model_validate_json(json.dumps(answer), strict=True, extra="forbid")


@pytest.mark.parametrize(
    ("status", "ok", "total", "rate"),
    [
        ("success", 4, 4, "100%"),
        ("failed", 2, 3, "66%"),  # rounded down
        ("failed", 199, 200, "99%"),
        ("running", 1, 2, "50%"),
        ("lost", None, 3, "0%"),
        ("success", 0, 0, "100%"),  # no task was for this host
        ("unreachable", 0, 0, "0%"),
        ("not_started", None, None, "0%"),
        ("running", None, None, None),
    ],
)
def test_the_success_rate_is_tasks_ok_of_tasks_total(
    rest: Rest, status: str, ok: int | None, total: int | None, rate: str | None
) -> None:
    rest.submit_playbook("h", task_id="p")
    set_host(rest.database, "p", "h", status=status, tasks_ok=ok, tasks_total=total)
    assert rest.get("/playbook/", task_id="p")["data"][0]["success_rate"] == rate


def test_the_datetime_of_a_playbook_is_its_end_or_what_came_last(rest: Rest) -> None:
    rest.submit_playbook("h", task_id="p")
    set_task(rest.database, "p", created_at=CREATED)
    moments = []
    for values in ({}, {"started_at": STARTED}, {"finished_at": FINISHED}):
        if values:
            set_host(rest.database, "p", "h", **values)
        moments.append(rest.get("/playbook/", task_id="p")["data"][0]["datetime"])
    assert moments == ["2026-01-31T12:00:00.000005Z", "2026-01-31T12:00:01.000000Z", "2026-01-31T12:00:02.123456Z"]


# --- whose results


@pytest.fixture
def filled(rest: Rest) -> Rest:
    """Three ad hoc tasks and two playbooks."""
    rest.submit("b,a,c", task_id="1")
    rest.submit_playbook("a,d", task_id="2")
    rest.submit("a,::1", task_id="3")
    rest.submit("c,Web-1.", task_id="4")
    rest.submit_playbook("a", task_id="5")
    return rest


def test_by_task_id_every_host_in_the_order_of_the_request(filled: Rest) -> None:
    assert ips(filled.get("/adhoc/", task_id="1")["data"]) == ["b", "a", "c"]
    assert ips(filled.get("/playbook/", task_id="2")["data"]) == ["a", "d"]


@pytest.mark.parametrize("spelling", ["a", "A", " a ", "a."])
def test_by_ip_the_results_of_that_host_newest_first(filled: Rest, spelling: str) -> None:
    answer = filled.get("/adhoc/", ip=spelling)
    assert [(item["ip"], item["task_id"]) for item in answer["data"]] == [("a", "3"), ("a", "1")]
    answer = filled.get("/playbook/", ip=spelling)
    assert [(item["ip"], item["task_id"]) for item in answer["data"]] == [("a", "5"), ("a", "2")]


@pytest.mark.parametrize("asked", ["c,WEB-1,x,a,0::1,,c", ["c", "web-1", "x", " a", "::1", "", "c"]])
def test_by_ips_the_newest_result_of_each_in_the_order_of_the_query(filled: Rest, asked: str | list[str]) -> None:
    expected = [("c", "4"), ("web-1", "4"), ("a", "3"), ("::1", "3")]
    answer = filled.post("/adhoc/query/", {"ips": asked})
    assert [(item["ip"], item["task_id"]) for item in answer["data"]] == expected
    assert filled.get("/adhoc/", ips=asked) == answer


def test_a_host_without_a_result_is_an_empty_list(filled: Rest) -> None:
    for query in ({"ip": "x"}, {"ips": "x,y"}, {"ip": "d"}):
        assert filled.get("/adhoc/", **query)["data"] == []
    assert filled.get("/playbook/", ips="b,c")["data"] == []


def test_a_query_in_a_body_is_answered_as_the_one_in_the_path(filled: Rest) -> None:
    queries = [{"task_id": "1"}, {"ip": "a"}, {"ips": "a,c"}, {"ips": "a,b,c", "limit": 2}]
    for query in queries:
        assert filled.post("/adhoc/query/", query) == filled.get("/adhoc/", **query)
    for query in [{"task_id": "2"}, {"ip": "a"}, {"ips": "a,d", "limit": 1}]:
        assert filled.post("/playbook/query/", query) == filled.get("/playbook/", **query)


@pytest.mark.parametrize(
    ("path", "task_id", "msg"),
    [
        ("/adhoc/", "x", "There is no ad hoc task x."),
        ("/adhoc/", "2", "There is no ad hoc task 2."),  # a playbook
        ("/playbook/", "x", "There is no playbook task x."),
        ("/playbook/", "1", "There is no playbook task 1."),
    ],
)
def test_a_task_that_is_not_there_or_of_the_other_type_is_not_found(
    filled: Rest, path: str, task_id: str, msg: str
) -> None:
    expected = {"code": 404, "data": None, "msg": msg, "length": 0}
    assert filled.get(path, 404, task_id=task_id) == expected
    assert filled.post(f"{path}query/", {"task_id": task_id}, 404) == expected


# --- pages


def test_the_pages_of_a_task_hold_each_host_once(rest: Rest) -> None:
    hosts = [f"h{number}" for number in range(7)]
    rest.submit(hosts, task_id="t")
    pages = rest.pages("/adhoc/", task_id="t", limit=3)
    assert [ips(page) for page in pages] == [hosts[:3], hosts[3:6], hosts[6:]]
    assert [ips(page) for page in rest.pages("/adhoc/", task_id="t", limit=7)] == [hosts]
    assert [len(page) for page in rest.pages("/adhoc/", task_id="t", limit=1)] == [1] * 7


def test_the_pages_of_a_host_do_not_move_when_a_newer_result_comes(rest: Rest) -> None:
    for number in range(5):
        rest.submit("a", task_id=f"t{number}")
    first = rest.get("/adhoc/", ip="a", limit=2)
    rest.submit("a", task_id="newer")
    second = rest.get("/adhoc/", ip="a", limit=2, cursor=first["cursor"])
    third = rest.get("/adhoc/", ip="a", limit=2, cursor=second["cursor"])
    found = [item["task_id"] for page in (first, second, third) for item in page["data"]]
    assert found == ["t4", "t3", "t2", "t1", "t0"]
    assert third["cursor"] is None


def test_the_pages_of_hosts_go_through_all_of_them_also_those_without_a_result(rest: Rest) -> None:
    rest.submit("a,c,e", task_id="t")
    pages = rest.pages("/adhoc/", ips="a,b,c,x,y,e", limit=2)
    assert [ips(page) for page in pages] == [["a"], ["c"], ["e"]]
    assert [ips(page) for page in rest.pages("/playbook/", ips="a,b,c", limit=2)] == [[], []]


def test_a_cursor_without_a_limit_is_answered_with_all_the_rest(rest: Rest) -> None:
    rest.submit("a,b,c,d", task_id="t")
    cursor = rest.get("/adhoc/", task_id="t", limit=1)["cursor"]
    assert ips(rest.get("/adhoc/", task_id="t", cursor=cursor)["data"]) == ["b", "c", "d"]


def test_a_cursor_of_another_query_or_a_changed_one_is_refused(filled: Rest) -> None:
    cursor = filled.get("/adhoc/", ips="a,b,c", limit=1)["cursor"]
    problem = {"cursor": "expected the cursor of an earlier answer to the same query, found another text"}
    assert filled.get("/adhoc/", ips="A,b,,c", limit=2, cursor=cursor)["length"] == 2  # the same query
    for query in ({"ips": "a,b"}, {"ip": "a"}, {"task_id": "1"}):
        assert told(filled.get("/adhoc/", 400, limit=1, cursor=cursor, **query)) == problem
    assert told(filled.get("/playbook/", 400, ips="a,b,c", limit=1, cursor=cursor)) == problem
    for changed in ("", "x", cursor[:-1], f"{cursor}A", cursor.lower()):
        assert told(filled.get("/adhoc/", 400, ips="a,b,c", cursor=changed)) == problem


# --- long answers


HOSTS = [f"host-{number}" for number in range(650)]  # more than two parts of an answer


def test_long_answers_are_streamed_whole(rest: Rest) -> None:
    rest.submit(HOSTS, task_id="a")
    rest.submit_playbook(HOSTS, task_id="p")
    for path, task_id in (("/adhoc/", "a"), ("/playbook/", "p")):
        for response in (
            rest.call("GET", path, query_string={"task_id": task_id}),
            rest.call("POST", f"{path}query/", json={"ips": HOSTS}),
        ):
            assert response.content_length is None
            assert ips(opened(response)["data"]) == HOSTS


def test_between_the_parts_of_a_long_answer_no_connection_to_the_database_is_held(rest: Rest) -> None:
    """A client may take its time for each of them."""
    rest.submit(HOSTS, task_id="t")
    response = rest.call("GET", "/adhoc/", query_string={"task_id": "t"})
    held = [rest.database.engine.pool.checkedout() for _ in response.iter_encoded()]  # type: ignore[attr-defined]
    assert held == [0] * 5


def test_all_results_of_a_host_are_streamed_newest_first(rest: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distribute.results._STREAMED_ROWS", 2)
    for number in range(5):
        rest.submit("a", task_id=f"t{number}")
    assert [item["task_id"] for item in rest.get("/adhoc/", ip="a")["data"]] == ["t4", "t3", "t2", "t1", "t0"]


def test_an_answer_that_the_database_cuts_off_is_incomplete_and_not_wrong(rest: Rest, tmp_path: Path) -> None:
    rest.submit(HOSTS, task_id="t")
    response = rest.call("GET", "/adhoc/", query_string={"task_id": "t"})  # its first part is read
    chunks: Iterator[bytes] = response.iter_encoded()
    sent = [next(chunks), next(chunks)]
    with away(rest.database, tmp_path), pytest.raises(DatabaseAway):
        sent.extend(chunks)
    assert response.status_code == 200
    assert len(json.loads(b"".join(sent) + b"]}")["data"]) == 300


def test_a_database_that_is_away_before_an_answer_begins_is_503(rest: Rest, tmp_path: Path) -> None:
    rest.submit("a", task_id="t")
    with away(rest.database, tmp_path):
        for query in ({"task_id": "t"}, {"ip": "a"}, {"ips": "a"}):
            opened(rest.call("GET", "/adhoc/", query_string=query), 503)
    assert rest.get("/adhoc/", task_id="t")["length"] == 1


def test_5_000_hosts_are_asked_for_in_one_query(rest: Rest) -> None:
    hosts = [f"10.1.{number // 250}.{number % 250}" for number in range(5000)]
    rest.submit(hosts, task_id="t", unit_hosts=1000)
    assert ips(rest.get("/adhoc/", ips=",".join(hosts))["data"]) == hosts
    assert ips(rest.post("/adhoc/query/", {"ips": hosts})["data"]) == hosts


def test_what_was_submitted_last_is_what_by_ips_shows_whatever_its_state(rest: Rest) -> None:
    rest.submit("a", task_id="old")
    set_host(rest.database, "old", "a", status="success", finished_at=FINISHED)
    rest.submit("a", task_id="new")
    (item,) = rest.get("/adhoc/", ips="a")["data"]
    assert (item["task_id"], item["result"]) == ("new", None)


def test_a_playbooks_text_and_its_secrets_are_in_no_answer(rest: Rest) -> None:
    rest.submit_playbook("a", task_id="p", playbook_content=f"{PLAYBOOK}  vars: {{password: s3cret-s3cret}}\n")
    paths = ("/playbook/?task_id=p", "/playbook/?ip=a", "/tasks/", "/tasks/p/", "/tasks/p/hosts/")
    assert all(b"s3cret" not in rest.call("GET", path).get_data() for path in paths)
