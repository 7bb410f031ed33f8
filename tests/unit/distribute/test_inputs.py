"""Requests as models: what is valid and what it becomes, and that every problem is told at once with its field."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask import Flask, request
from pydantic import BaseModel

from distribute.errors import BadRequest, UnsupportedMediaType
from distribute.inputs import MAX_DEPTH, ModelAdapter
from distribute.schemas import (
    MAX_TEXT_CHARACTERS,
    AdhocSubmission,
    HostQuery,
    PlaybookSubmission,
    Request,
    ResultQuery,
    TaskQuery,
)

ADHOC = {"task_name": "t", "ips": "db-1", "module": "shell"}
PLAYBOOK = {"task_name": "t", "ips": "db-1", "playbook_name": "p.yml", "playbook_content": "- hosts: all"}
NOT_JSON = "The body is not JSON; nothing was done."

app = Flask(__name__)


def read_body(model: type[Request], body: object, content_type: str = "application/json") -> Any:
    """The valid model of a body: text or bytes as they are, everything else as JSON."""
    data = body if isinstance(body, str | bytes) else json.dumps(body)
    with app.test_request_context(method="POST", data=data, content_type=content_type):
        return ModelAdapter(model).validate_input(request, "json")


def read_query(model: type[Request], text: str) -> Any:
    with app.test_request_context(f"/?{text}"):
        return ModelAdapter(model).validate_input(request, "query")


def refused(model: type[Request], body: object) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        read_body(model, body)
    return caught.value


def problems(model: type[Request], body: object) -> dict[str, str]:
    return dict(refused(model, body).problems)


def query_problems(model: type[Request], text: str) -> dict[str, str]:
    with pytest.raises(BadRequest) as caught:
        read_query(model, text)
    return dict(caught.value.problems)


def fields(model: BaseModel) -> dict[str, Any]:
    return model.model_dump(exclude={"ips", "playbook_content"})


def test_the_defaults_are_those_of_the_documentation() -> None:
    assert fields(read_body(AdhocSubmission, ADHOC)) == {
        "task_id": None, "task_name": "t", "type": "adhoc", "module": "shell", "args": "", "timeout": 100,
        "become": True, "check": False, "template": False, "parallel": None, "unit_hosts": None,
        "host_timeout": None, "on_timeout": "stop", "on_engine_loss": "report", "secret_args": False, "project_ref": {},
    }  # fmt: skip
    assert fields(read_body(PlaybookSubmission, PLAYBOOK)) == {
        "task_id": None, "task_name": "t", "type": "playbook", "playbook_name": "p.yml", "timeout": 600,
        "become": False, "check": False, "parallel": None, "unit_hosts": None,
        "host_timeout": None, "on_timeout": "stop", "on_engine_loss": "report", "secret_args": False, "project_ref": {},
        "task_timeout": None,
    }  # fmt: skip


def test_null_is_the_same_as_not_given() -> None:
    nulls = dict.fromkeys(("task_id", "type", "args", "timeout", "become", "parallel"))
    assert read_body(AdhocSubmission, {**ADHOC, **nulls}) == read_body(AdhocSubmission, ADHOC)


def test_a_field_of_no_request_is_refused_though_it_is_null() -> None:
    (problem,) = problems(AdhocSubmission, {**ADHOC, "ip": None}).items()
    assert problem[0] == "ip"
    assert problem[1].startswith("is not a field of this request")
    assert problems(AdhocSubmission, {**ADHOC, "module": None}) == {"module": "is required"}


def test_args_are_text_or_an_object_of_any_json() -> None:
    args = {"src": "größe", "mode": 420, "list": [1, {"a": None}], "f": 1.5, "on": True}
    assert read_body(AdhocSubmission, {**ADHOC, "args": args}).args == args
    assert read_body(AdhocSubmission, {**ADHOC, "args": " a=1 "}).args == " a=1 "


def test_every_problem_is_told_at_once() -> None:
    body = {
        "task_id": "a b", "task_name": "", "ips": ["ok", "1.2.3.999", 7], "module": "debug", "args": [1],
        "type": "playbook", "timeout": 0, "become": "yes", "check": 1, "parallel": -1, "unit_hosts": 1001, "ip": "x",
    }  # fmt: skip
    error = refused(AdhocSubmission, body)
    assert dict(error.problems) == {
        "task_id": "expected 1 to 160 letters, digits and . _ : -",
        "task_name": "expected at least 1 character, found none",
        "ips[1]": "expected an IPv4 or IPv6 address or a DNS name, found '1.2.3.999'",
        "ips[2]": "expected a string",
        "module": "debug does its work on the engine, not on the hosts: use it in a playbook",
        "args": "expected a string or an object",
        "type": "expected 'adhoc', found a string",
        "timeout": "expected at least 1, found 0",
        "become": "expected true or false, found a string",
        "check": "expected true or false, found a number",
        "parallel": "expected at least 0, found -1",
        "unit_hosts": "expected at most 1000, found 1001",
        "ip": "is not a field of this request; its fields are task_id, task_name, ips, check, parallel, unit_hosts,"
        " host_timeout, on_timeout, secret_args, project_ref, on_engine_loss,"
        " type, module, args, timeout, become, template",
    }
    assert error.message == "The request has 13 problems; nothing was done."
    assert error.data == [{"field": field, "problem": problem} for field, problem in error.problems]


def test_missing_fields_are_told() -> None:
    required = dict.fromkeys(("task_name", "ips", "playbook_name", "playbook_content"), "is required")
    assert problems(PlaybookSubmission, {}) == required
    assert refused(AdhocSubmission, {"task_name": "t", "ips": "a"}).message == (
        "The request has 1 problem; nothing was done."
    )


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("timeout", "5", "expected a whole number, found a string"),
        ("timeout", 5.5, "expected a whole number, found a number"),
        ("timeout", True, "expected a whole number, found true"),
        ("timeout", 86_401, "expected at most 86400, found 86401"),
        ("timeout", 10**30, f"expected at most 86400, found {10**30}"),
        ("parallel", 200_001, "expected at most 200000, found 200001"),
        ("unit_hosts", 0, "expected at least 1, found 0"),
        ("task_name", 7, "expected a string, found a number"),
        ("task_name", "x" * 256, "expected at most 255 characters, found 256"),
        ("task_name", "a\0b", "expected text without NUL characters"),
        ("task_name", "a\ud800b", "expected Unicode text, found half a surrogate pair"),
        ("task_id", "", "expected 1 to 160 letters, digits and . _ : -"),
        ("task_id", "x" * 161, "expected 1 to 160 letters, digits and . _ : -"),
        ("task_id", "a\n", "expected 1 to 160 letters, digits and . _ : -"),
        ("task_id", "größe", "expected 1 to 160 letters, digits and . _ : -"),
        ("task_id", {}, "expected a string, found an object"),
        ("ips", "", "expected at least one host, found none"),
        ("ips", 7, "expected a comma-separated string or a list of hosts"),
        ("module", ["shell"], "expected a string, found a list"),
        ("args", "a\0", "expected text without NUL characters"),
        ("args", {"a": {"b\0": 1}}, "expected text without NUL characters"),
        ("args", {"a": ["x\ud800"]}, "expected Unicode text, found half a surrogate pair at character 2"),
        ("args", "x" * (MAX_TEXT_CHARACTERS + 1), "expected at most 1048576 characters"),
        ("args", {"a": "x" * MAX_TEXT_CHARACTERS}, "expected at most 1048576 characters"),
        ("args", False, "expected a string or an object"),
    ],
)
def test_a_wrong_value_is_told_what_was_expected_and_found(field: str, value: object, problem: str) -> None:
    assert problems(AdhocSubmission, {**ADHOC, field: value}) == {field: problem}


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (7, "expected a string"),
        ("x" * (MAX_TEXT_CHARACTERS + 1), "expected at most 1048576 characters, found 1048577"),
        ("- hosts: all\0", "expected text without NUL characters"),
        ("- hosts: all\n  tasks: ]", "line 2, column 10: expected YAML, found an error: while parsing a block node"),
        ("- tasks: []", "line 1, column 3: expected a play with hosts, or import_playbook, found neither"),
    ],
)
def test_a_wrong_playbook_is_told_its_place(value: object, problem: str) -> None:
    ((field, found),) = problems(PlaybookSubmission, {**PLAYBOOK, "playbook_content": value}).items()
    assert field == "playbook_content"
    assert found.startswith(problem)


def test_no_value_that_could_be_a_secret_is_repeated() -> None:
    secret = "s3cret-s3cret"
    for name in ("timeout", "become", "type", "template", "args", "module", "task_id"):
        value = [secret] if name in ("args", "module", "task_id") else secret
        (problem,) = problems(AdhocSubmission, {**ADHOC, name: value}).values()
        assert secret not in problem


@pytest.mark.parametrize("body", ["[]", '"x"', "7", "null", "true"])
def test_a_body_that_is_no_object_is_told(body: str) -> None:
    found = {"[]": "a list", '"x"': "a string", "7": "a number", "null": "null", "true": "true"}[body]
    assert problems(AdhocSubmission, body) == {"body": f"expected an object, found {found}"}


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("", "line 1, column 1: Expecting value"),
        ("{\n'a': 1}", "line 2, column 1: Expecting property name enclosed in double quotes"),
        ('{"a": 1} x', "line 1, column 10: Extra data"),
        ('{"a": NaN}', "expected a JSON value, found NaN"),
        ('{"a": -Infinity}', "expected a JSON value, found -Infinity"),
        ('{"a": 1e999}', "expected a number of double precision, found 1e999"),
        ('{"a": ' + "1" * 5000 + "}", "Exceeds the limit (4300 digits) for integer string conversion"),
        (b'{"a": "\xff"}', "'utf-8' codec can't decode byte 0xff in position 7"),
        ("[" * 1_000_000, f"expected at most {MAX_DEPTH} levels"),
        ('{"a":' * 1_000_000, f"expected at most {MAX_DEPTH} levels"),
    ],
)
def test_a_body_that_is_not_json_is_one_problem(body: str | bytes, problem: str) -> None:
    error = refused(AdhocSubmission, body)
    assert error.message == NOT_JSON
    ((field, found),) = error.problems
    assert field == "body"
    assert found.startswith(problem)


@pytest.mark.parametrize(("left", "right"), [("[", "]"), ('{"a":', "}")])
def test_a_body_is_at_most_100_levels_deep(left: str, right: str) -> None:
    def args(levels: int) -> str:
        return f'{{"task_name":"t","ips":"a","module":"copy","args":{{"x":{left * levels}1{right * levels}}}}}'

    assert read_body(AdhocSubmission, args(MAX_DEPTH - 2)).module == "copy"  # the body and its args are two
    assert problems(AdhocSubmission, args(MAX_DEPTH - 1)) == {"body": "expected at most 100 levels"}
    assert problems(AdhocSubmission, args(500)) == {"body": "expected at most 100 levels"}


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_a_body_of_another_type_is_not_read(content_type: str) -> None:
    with pytest.raises(UnsupportedMediaType) as caught:
        read_body(AdhocSubmission, ADHOC, content_type)
    assert caught.value.message == (
        f"Expected Content-Type: application/json, found {content_type or 'none'}; nothing was done."
    )


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "application/problem+json"])
def test_every_kind_of_json_is_read(content_type: str) -> None:
    assert read_body(AdhocSubmission, ADHOC, content_type).task_name == "t"


def test_a_query_names_a_task_a_host_or_hosts() -> None:
    assert read_query(ResultQuery, "task_id=Deploy:1").task_id == "Deploy:1"
    assert read_query(ResultQuery, "ip=%20DB-1%20&limit=7").model_dump() == {
        "task_id": None, "ip": "db-1", "ips": None, "limit": 7, "cursor": None,
    }  # fmt: skip
    assert read_query(ResultQuery, "ips=a,%20B,,a").ips.names == ("a", "b")
    assert read_query(ResultQuery, "ips=a&ips=b").ips.names == ("a", "b")
    assert read_body(ResultQuery, {"ips": ["a", "b"], "limit": 7}).limit == 7


@pytest.mark.parametrize(
    ("text", "found"),
    [("", "none"), ("limit=5", "none"), ("task_id=a&ip=b", "task_id and ip"), ("ips=a&ip=b", "ip and ips")],
)
def test_a_query_names_exactly_one_of_them(text: str, found: str) -> None:
    problem = f"expected exactly one of task_id, ip and ips, found {found}"
    assert query_problems(ResultQuery, text) == {"task_id": problem}


def test_a_query_is_told_every_problem_at_once() -> None:
    assert query_problems(ResultQuery, "ip=1.2.3.999&task_id=x%20y&limit=1001&x=1") == {
        "task_id": "expected 1 to 160 letters, digits and . _ : -",
        "ip": "expected an IPv4 or IPv6 address or a DNS name, found '1.2.3.999'",
        "limit": "expected at most 1000, found 1001",
        "x": "is not a field of this request; its fields are task_id, ip, ips, limit, cursor",
    }
    assert query_problems(TaskQuery, "state=done&type=x&limit=many&state_=1") == {
        "state": "expected 'queued', 'running', 'finished' or 'cancelled', found a string",
        "type": "expected 'adhoc' or 'playbook', found a string",
        "limit": "expected a whole number, found a string",
        "state_": "is not a field of this request; its fields are state, type, limit, cursor",
    }
    assert query_problems(HostQuery, "status=running&status=held&limit=0") == {
        "status": "expected 'queued', 'running', 'success', 'failed', 'unreachable', 'timeout', 'held', 'not_started',"
        " 'cancelled' or 'lost', found a list",
        "limit": "expected at least 1, found 0",
    }


def test_only_a_query_string_gives_numbers_as_text() -> None:
    assert read_query(TaskQuery, "limit=5").limit == 5
    assert problems(ResultQuery, {"ip": "a", "limit": "5"}) == {"limit": "expected a whole number, found a string"}
