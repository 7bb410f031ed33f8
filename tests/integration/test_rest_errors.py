"""Every failure of the REST API with its exact answer: status, envelope, problems, headers."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from contract.config import DatabaseSettings
from contract.database import Database
from distribute.inputs import BASE_PATH, MAX_BODY_BYTES
from distribute.store import queries
from tests.integration.rest import Envelope, Rest, adhoc, away, counts, opened, playbook

NO_HOST = "expected an IPv4 or IPv6 address or a DNS name, found "
TOO_LARGE = {"code": 413, "data": None, "msg": "The body is larger than 16 MiB; nothing was done.", "length": 0}
GONE = {"code": 404, "data": None, "msg": "There is no such path; see /docs.", "length": 0}
BROKEN = {
    "code": 500, "data": None, "msg": "Something went wrong here; the log of distribute says what.", "length": 0,
}  # fmt: skip
AWAY = {
    "code": 503, "data": None, "msg": "The database does not answer; nothing was done. Try again.", "length": 0,
}  # fmt: skip

GETS = ["/adhoc/?ip=a", "/playbook/?ips=a", "/tasks/", "/tasks/t/", "/tasks/t/hosts/", "/engines/"]
POSTS: dict[str, dict[str, Any]] = {
    "/adhoc/": adhoc("a"),
    "/playbook/": playbook("a"),
    "/adhoc/query/": {"ip": "a"},
    "/playbook/query/": {"ips": "a"},
}


@pytest.fixture
def rest(database: Database) -> Rest:
    return Rest(database)


@pytest.fixture
def no_database(tmp_path: Path) -> Iterator[Rest]:
    """For what is refused before anybody asks the database."""
    database = Database(DatabaseSettings(sqlite_file=tmp_path))  # a folder
    yield Rest(database)
    database.close()


def refused(*problems: tuple[str, str], msg: str = "") -> Envelope:
    """The whole answer to a bad request."""
    number = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    return {
        "code": 400,
        "data": [{"field": field, "problem": problem} for field, problem in problems],
        "msg": msg or f"The request has {number}; nothing was done.",
        "length": len(problems),
    }


# --- 400


def test_an_adhoc_submission_is_told_every_problem_at_once(rest: Rest) -> None:
    body = adhoc(["a", "1.2.3.999", 7], task_id="a b", module="add_host", timeout="9", becom=True)
    assert rest.post("/adhoc/", body, 400) == refused(
        ("task_id", "expected 1 to 160 letters, digits and . _ : -"),
        ("ips[1]", f"{NO_HOST}'1.2.3.999'"),
        ("ips[2]", "expected a string"),
        ("module", "add_host does its work on the engine, not on the hosts: use it in a playbook"),
        ("timeout", "expected a whole number, found a string"),
        (
            "becom",
            "is not a field of this request; its fields are task_id, task_name, ips, check, parallel, unit_hosts,"
            " host_timeout, on_timeout, secret_args, project_ref, on_engine_loss,"
            " type, module, args, timeout, become, template",
        ),
    )
    assert counts(rest.database) == (0, 0, 0)


def test_a_playbook_submission_is_told_every_problem_at_once(rest: Rest) -> None:
    content = "- hosts: all\n- tasks: []\n- x\n"
    body = {"type": "adhoc", "playbook_content": content, "unit_hosts": 0, "template": True}
    assert rest.post("/playbook/", body, 400) == refused(
        ("task_name", "is required"),
        ("ips", "is required"),
        ("unit_hosts", "expected at least 1, found 0"),
        ("type", "expected 'playbook', found a string"),
        ("playbook_name", "is required"),
        ("playbook_content", "line 2, column 3: expected a play with hosts, or import_playbook, found neither"),
        ("playbook_content", "line 3, column 3: expected a play, found a single value"),
        (
            "template",
            "is not a field of this request; its fields are task_id, task_name, ips, check, parallel, unit_hosts,"
            " host_timeout, on_timeout, secret_args, project_ref, on_engine_loss, type, playbook_name,"
            " playbook_content, timeout, task_timeout, become",
        ),
    )
    assert counts(rest.database) == (0, 0, 0)


@pytest.mark.parametrize("path", ["/adhoc/", "/playbook/"])
def test_a_query_is_told_every_problem_at_once(rest: Rest, path: str) -> None:
    expected = refused(
        ("task_id", "expected exactly one of task_id, ip and ips, found ip and ips"),
        ("ip", f"{NO_HOST}'1.2.3.999'"),
        ("ips[1]", f"{NO_HOST}'x y'"),
        ("limit", "expected at most 1000, found 1001"),
        ("host", "is not a field of this request; its fields are task_id, ip, ips, limit, cursor"),
    )
    query = {"ip": "1.2.3.999", "ips": "a,x y", "limit": 1001, "host": "a"}
    assert rest.get(path, 400, **query) == expected
    assert rest.post(f"{path}query/", query, 400) == expected


def test_a_query_without_a_subject_is_refused(rest: Rest) -> None:
    expected = refused(("task_id", "expected exactly one of task_id, ip and ips, found none"))
    assert rest.get("/adhoc/", 400) == rest.post("/playbook/query/", {}, 400) == expected


@pytest.mark.parametrize(
    ("path", "problems"),
    [
        ("/tasks/?state=x", [("state", "expected 'queued', 'running', 'finished' or 'cancelled', found a string")]),
        (
            "/tasks/?limit=0&type=x",
            [("type", "expected 'adhoc' or 'playbook', found a string"), ("limit", "expected at least 1, found 0")],
        ),
        ("/tasks/t/hosts/?limit=1001", [("limit", "expected at most 1000, found 1001")]),
        ("/tasks/t/hosts/?stat=1", [("stat", "is not a field of this request; its fields are status, limit, cursor")]),
    ],
)
def test_a_query_of_tasks_is_told_its_problems(rest: Rest, path: str, problems: list[tuple[str, str]]) -> None:
    assert opened(rest.call("GET", path), 400) == refused(*problems)


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("", "line 1, column 1: Expecting value"),
        ("{", "line 1, column 2: Expecting property name enclosed in double quotes"),
        ('{"a":' * 1_000_000, "expected at most 100 levels"),
        ("[" * 1_000_000, "expected at most 100 levels"),
        ('{"a": NaN}', "expected a JSON value, found NaN"),
        ('{"a": 1e999}', "expected a number of double precision, found 1e999"),
    ],
    ids=["empty", "half", "deep objects", "deep lists", "NaN", "1e999"],
)
def test_a_body_that_cannot_be_parsed_is_400(rest: Rest, path: str, body: str, problem: str) -> None:
    response = rest.call("POST", path, data=body, content_type="application/json")
    assert opened(response, 400) == refused(("body", problem), msg="The body is not JSON; nothing was done.")


@pytest.mark.parametrize("path", POSTS)
def test_a_body_that_is_no_object_is_400(rest: Rest, path: str) -> None:
    assert rest.post(path, [], 400) == refused(("body", "expected an object, found a list"))
    deep = "[" * 101 + "1" + "]" * 101
    response = rest.call("POST", path, data=deep, content_type="application/json")
    assert opened(response, 400) == refused(("body", "expected at most 100 levels"))


# --- 404


@pytest.mark.parametrize("path", ["/tasks/x/", "/tasks/x", "/tasks/x/hosts/", "/tasks/x/hosts?status=running"])
def test_an_unknown_task_is_404(rest: Rest, path: str) -> None:
    rest.submit("a", task_id="X")
    expected = {"code": 404, "data": None, "msg": "There is no task x.", "length": 0}
    assert opened(rest.call("GET", path), 404) == expected


def test_what_can_be_no_task_id_is_404_too(rest: Rest) -> None:
    assert opened(rest.call("GET", "/tasks/a b/"), 404)["msg"] == "There is no task a b."
    assert opened(rest.call("GET", f"/tasks/{'x' * 5000}/"), 404)["msg"] == f"There is no task {'x' * 160}."


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize(
    "path", ["/", "", "/nothing/", "/adhoc/x/", "/tasks/t/hosts/x", "//adhoc/", "nothing", "api/v1/adhoc/"]
)
def test_an_unknown_path_is_404_without_the_database(no_database: Rest, method: str, path: str) -> None:
    assert opened(no_database.call(method, path), 404) == GONE


# --- 405


@pytest.mark.parametrize("slash", ["/", ""])
@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/adhoc", {"GET", "HEAD", "POST"}),
        ("/playbook", {"GET", "HEAD", "POST"}),
        ("/adhoc/query", {"POST"}),
        ("/playbook/query", {"POST"}),
        ("/tasks", {"GET", "HEAD"}),
        ("/tasks/t", {"GET", "HEAD"}),
        ("/tasks/t/hosts", {"GET", "HEAD"}),
        ("/engines", {"GET", "HEAD"}),
        ("healthz", {"GET", "HEAD"}),
        ("readyz", {"GET", "HEAD"}),
    ],
)
def test_a_method_that_a_path_does_not_know_is_405_without_the_database(
    no_database: Rest, path: str, allowed: set[str], slash: str
) -> None:
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} - allowed:
        response = no_database.call(method, f"{path}{slash}")
        msg = f"This path does not know the method {method}; see /docs."
        assert opened(response, 405) == {"code": 405, "data": None, "msg": msg, "length": 0}
        assert set(response.headers["Allow"].split(", ")) == allowed


# --- the last slash


@pytest.mark.parametrize("path", GETS)
def test_a_path_is_answered_alike_without_its_last_slash(rest: Rest, path: str) -> None:
    rest.submit("a", task_id="t")
    before, _, query = path.partition("?")
    without = opened(rest.call("GET", f"{before.removesuffix('/')}?{query}"))
    with_ = opened(rest.call("GET", path))
    for answer in (with_, without):
        if path == "/tasks/t/":
            assert answer["data"].pop("hosts_per_second") == 0
    assert without == with_


def test_a_submission_is_taken_without_the_last_slash(rest: Rest) -> None:
    for path, body in {"/adhoc": adhoc("a", task_id="a"), "/playbook": playbook("a", task_id="p")}.items():
        assert rest.post(path, body) == rest.post(f"{path}/", body)
    for path in ("/adhoc/query", "/playbook/query"):
        assert rest.post(path, {"ip": "a"})["length"] == 1


# --- 413, 415


@pytest.mark.parametrize("path", POSTS)
def test_a_body_over_16_mib_is_413(rest: Rest, path: str) -> None:
    assert MAX_BODY_BYTES == 16 * 1024 * 1024
    response = rest.call("POST", path, data=b" " * (MAX_BODY_BYTES + 1), content_type="application/json")
    assert opened(response, 413) == TOO_LARGE


def test_a_body_of_16_mib_is_read(rest: Rest) -> None:
    body = b'{"ip": "a"}'
    response = rest.call(
        "POST", "/adhoc/query/", data=body + b" " * (MAX_BODY_BYTES - len(body)), content_type="application/json"
    )
    assert opened(response)["data"] == []


@pytest.mark.parametrize(("size", "status"), [(MAX_BODY_BYTES, 200), (MAX_BODY_BYTES + 1, 413)])
def test_a_body_that_does_not_say_its_size_is_cut_off_at_the_same_one(rest: Rest, size: int, status: int) -> None:
    """Chunked, as a client sends what it does not know the end of."""
    body = b'{"ip": "a"}'
    response = rest.call(
        "POST", "/adhoc/query/", input_stream=io.BytesIO(body + b" " * (size - len(body))), headers={
            "Transfer-Encoding": "chunked", "Content-Type": "application/json",
        }, environ_overrides={"wsgi.input_terminated": True},
    )  # fmt: skip
    assert opened(response, status)["data"] == ([] if status == 200 else None)


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(("content_type", "found"), [(None, "none"), ("text/plain; charset=utf-8", "text/plain")])
def test_a_body_that_is_not_called_json_is_415(rest: Rest, path: str, content_type: str | None, found: str) -> None:
    response = rest.call("POST", path, data=b"{}", content_type=content_type)
    msg = f"Expected Content-Type: application/json, found {found}; nothing was done."
    assert opened(response, 415) == {"code": 415, "data": None, "msg": msg, "length": 0}


# --- 500


def test_an_error_that_nobody_expected_is_told_to_the_log_alone(
    rest: Rest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(_connection: sa.Connection) -> None:
        raise RuntimeError("what only the log may say")

    monkeypatch.setattr(queries, "engines", fails)
    assert opened(rest.call("GET", "/engines/"), 500) == BROKEN
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.message == "a request failed"
    assert (record.__dict__["path"], record.__dict__["method"]) == (f"{BASE_PATH}/engines/", "GET")
    assert "what only the log may say" in caplog.text
    assert rest.get("/tasks/")["length"] == 0  # the next one is well


def test_a_statement_that_the_database_refuses_is_500(rest: Rest) -> None:
    rest.get("/engines/")
    rest.database.write(lambda connection: connection.execute(sa.text("DROP TABLE engine")))
    assert opened(rest.call("GET", "/engines/"), 500) == BROKEN


# --- 503


def test_a_database_that_is_away_is_503_and_is_well_again_when_it_is_back(
    rest: Rest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for already_used in (False, True):
        with away(rest.database, tmp_path):
            responses = [rest.call("GET", path) for path in GETS]
            responses += [rest.call("POST", path, json=body) for path, body in POSTS.items()]
        for response in responses:
            assert opened(response, 503) == AWAY
            assert response.headers["Retry-After"] == "5"
        assert (counts(rest.database)[0] > 0) == already_used
        rest.submit("a")
    assert "the database does not answer" in caplog.text


def set_version(database: Database, version: str | None) -> None:
    """None: a database without a schema."""
    change = (
        "DELETE FROM alembic_version" if version is None else f"UPDATE alembic_version SET version_num = '{version}'"
    )
    database.write(lambda connection: connection.execute(sa.text(change)))


def test_a_schema_that_is_older_is_503_until_it_is_up_to_date(rest: Rest) -> None:
    (version,) = rest.database.read(lambda c: c.execute(sa.text("SELECT version_num FROM alembic_version")).scalars())
    set_version(rest.database, None)
    msg = "The database schema is being brought up to date; nothing was done. Try again."
    for path, body in POSTS.items():
        response = rest.call("POST", path, json=body)
        assert opened(response, 503) == {"code": 503, "data": None, "msg": msg, "length": 0}
        assert response.headers["Retry-After"] == "5"
    rest.database.write(lambda c: c.execute(sa.text("INSERT INTO alembic_version VALUES (:v)"), {"v": version}))
    rest.submit("a", task_id="t")


def test_a_schema_that_is_newer_is_503_and_says_what_to_do(rest: Rest) -> None:
    set_version(rest.database, "9999")
    for path in GETS:
        response = rest.call("GET", path)
        answer = opened(response, 503)
        assert answer["data"] is None
        assert answer["msg"].startswith("The database cannot be used: expected the database schema ")
        assert "found 9999, which a newer execute-engine has made: run that version here too" in answer["msg"]
        assert response.headers["Retry-After"] == "60"


def test_the_schema_is_looked_at_until_it_is_right_once(rest: Rest) -> None:
    rest.get("/tasks/")
    set_version(rest.database, "9999")  # a newer distribute was started beside us: ours goes on
    assert rest.get("/tasks/")["data"] == []
    opened(Rest(rest.database).call("GET", "/tasks/"), 503)


def test_a_password_of_the_database_is_in_no_answer(rest: Rest, tmp_path: Path) -> None:
    with away(rest.database, tmp_path):
        text = b"".join(rest.call("GET", path).get_data() for path in (*GETS, "readyz"))
    assert rest.database.is_sqlite or rest.config.database.password.encode() not in text
