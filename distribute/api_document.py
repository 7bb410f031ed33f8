"""docs/api.md, from the OpenAPI document, with an example of each call that was answered by the application itself:

python -m distribute.api_document > docs/api.md
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from apiflask import APIFlask

from contract import config, migrations
from contract.config import GitlabSettings
from contract.database import Database, now
from contract.states import CloneState, EngineState
from contract.tables import clone_job, engine
from distribute import access
from distribute.app import create_app
from distribute.inputs import BASE_PATH
from distribute.schemas import EXAMPLE_TIME
from distribute.store import clone_jobs, dispatch, projects
from distribute.tokens import Role

_HEAD = f"""\
# The REST API

Made from the OpenAPI document (`/openapi.json`, as a page `/docs`); a test runs the examples. Paths work with and
without the last slash. Every answer below {BASE_PATH} has the envelope `code` (the HTTP status), `data`, `msg`,
`length`, and lists that are read in pages `cursor`. A request that cannot be done changes nothing: 400 names every
problem with its field. Where tokens are asked for, each request needs `Authorization: Bearer TOKEN`: 401 without a
known one, 403 above its role or beyond its hosts, 429 after many wrong ones. 503 says by Retry-After when to come
again.
"""
_HOSTS = "10.0.0.1, 10.0.0.2"
_ADHOC = {
    "task_id": "uptime-1",
    "task_name": "uptime",
    "type": "adhoc",
    "ips": _HOSTS,
    "module": "shell",
    "args": "uptime",
}
_PLAYBOOK = {
    "task_id": "motd-1", "task_name": "motd", "type": "playbook", "ips": ["10.0.0.1"], "playbook_name": "motd.yml",
    "playbook_content": "- hosts: all\n  tasks:\n    - copy: {content: hello, dest: /etc/motd}\n",
}  # fmt: skip
# In this order; a path as the OpenAPI document has it -> what is filled in, the query string, the body.
_EXAMPLES: dict[tuple[str, str], tuple[str, object]] = {
    ("post", "/adhoc/"): ("", _ADHOC),
    ("get", "/adhoc/"): ("?task_id=uptime-1", None),
    ("post", "/adhoc/query/"): ("", {"ips": ["10.0.0.2"]}),
    ("post", "/playbook/"): ("", _PLAYBOOK),
    ("get", "/playbook/"): ("?task_id=motd-1", None),
    ("post", "/playbook/query/"): ("", {"ip": "10.0.0.1"}),
    ("get", "/tasks/"): ("?limit=1", None),
    ("get", "/tasks/{task_id}/"): ("", None),
    ("get", "/tasks/{task_id}/hosts/"): ("?limit=1", None),
    ("post", "/tasks/{task_id}/cancel/"): ("", {}),
    ("post", "/tasks/{task_id}/rerun/"): ("", {"task_id": "uptime-2", "statuses": ["cancelled"]}),
    ("post", "/hold/"): ("", {}),
    ("post", "/release/"): ("", {}),
    ("get", "/engines/"): ("", None),
    ("get", "/audit/"): ("?limit=1", None),
    ("post", "/file/"): ("", {"project_name": "site", "ref": "v1.0", "async": True}),
    ("get", "/file/jobs/{job}/"): ("", None),
    ("get", "/file/"): ("", None),
    ("delete", "/file/{project}/"): ("", None),
    ("get", "/healthz"): ("", None),
    ("get", "/readyz"): ("", None),
}
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
_AGE = re.compile(r'"age_seconds": [0-9.e-]+')
_JOB = re.compile(r'"job": "[0-9a-f]{32}"')
_IN_PATHS = {"{task_id}": "uptime-1", "{job}": "0" * 32, "{project}": "app"}
_CURSOR = re.compile(r'"cursor": "[^"]+"')


def text() -> str:
    """The whole page. Works on a database of its own, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        (file := Path(folder) / "server.conf").touch(mode=0o600)
        gitlab = GitlabSettings("127.0.0.1", "releases", "ssh://git@{ip}:1/{group}/{project}.git")  # refused at once
        settings = replace(config.load(file), gitlab=gitlab)
        database = Database(settings.database)
        try:
            migrations.upgrade(database)
            _add_engine(database)
            _add_project(database)
            page = "\n".join([_HEAD, *_sections(create_app(settings, database), database)])
            while _clones(database):  # the one of the example, which finds no Gitlab
                time.sleep(0.05)
            return page
        finally:
            database.close()


def _sections(app: APIFlask, database: Database) -> Iterator[str]:
    spec = app.spec
    for (method, path), (query, body) in _EXAMPLES.items():
        full = path if path in spec["paths"] else BASE_PATH + path
        operation = spec["paths"][full][method]
        if path.endswith("/rerun/"):
            database.write(dispatch.finish_tasks)  # the dispatcher's work
        yield f"## {method.upper()} {full}\n"
        yield operation["summary"] + (f". {operation['description']}" if operation.get("description") else ".") + "\n"
        if role := _role(app, full, method):
            yield f"Role: {role}. Other answers: {', '.join(_other_codes(operation))}.\n"
        if fields := list(_fields(spec, operation)):
            yield "| field | type | default | meaning |\n|---|---|---|---|"
            yield "\n".join(fields) + "\n"
        yield from _example(app, method, _filled(full) + query, body)


def _role(app: APIFlask, path: str, method: str) -> Role | None:
    adapter = app.url_map.bind("localhost")
    endpoint, _ = adapter.match(_filled(path), method.upper())
    return access.needed_role(app.view_functions[endpoint])


def _other_codes(operation: dict[str, Any]) -> list[str]:
    return sorted(operation["responses"].keys() - {"200", "202", "401", "403", "429"})


def _fields(spec: dict[str, Any], operation: dict[str, Any]) -> Iterator[str]:
    for parameter in operation["parameters"]:
        if parameter["in"] == "query":
            yield _row(parameter["name"], parameter["schema"], parameter["required"])
    if "requestBody" in operation:
        (name,) = re.findall(r"[^/]+$", operation["requestBody"]["content"]["application/json"]["schema"]["$ref"])
        model = spec["components"]["schemas"][name]
        for field, schema in model.get("properties", {}).items():
            yield _row(field, schema, field in model.get("required", ()))


def _row(name: str, schema: dict[str, Any], is_required: bool) -> str:
    default = "required" if is_required else json.dumps(schema.get("default"))
    meaning = schema.get("description", "")
    limits = [
        f"{words} {each[key]}"
        for each in (schema, *schema.get("anyOf", ()))
        for key, words in (("minimum", "at least"), ("maximum", "at most"))
        if key in each
    ]
    return f"| {name} | {_type(schema)} | {default} | {'; '.join([meaning, *limits] if meaning else limits)} |"


def _type(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(each) for each in schema["anyOf"] if each.get("type") != "null"))
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    return str(schema.get("type", "a name; see the OpenAPI document"))


def _example(app: APIFlask, method: str, path: str, body: object) -> Iterator[str]:
    arguments = {} if body is None else {"json": body}
    answer = app.test_client().open(path, method=method.upper(), **arguments)
    if answer.status_code not in (200, 202):
        raise AssertionError(f"the example of {method} {path} was answered with {answer.get_data(as_text=True)}")
    told = json.dumps(answer.json, indent=1, ensure_ascii=False)
    told = _JOB.sub(f'"job": "{_IN_PATHS["{job}"]}"', _AGE.sub('"age_seconds": 0.25', told))
    told = _CURSOR.sub('"cursor": "..."', _TIME.sub(EXAMPLE_TIME, told))
    sent = "" if body is None else f" \\\n     -H 'Content-Type: application/json' -d '{json.dumps(body)}'"
    option = "" if method == "get" else f"-X {method.upper()} "
    yield f"    curl {option}'http://127.0.0.1:8007{path}'{sent}".replace("\n", "\n    ") + "\n"
    yield "\n".join(f"    {line}" for line in told.splitlines()) + "\n"


def _filled(path: str) -> str:
    for name, value in _IN_PATHS.items():
        path = path.replace(name, value)
    return path


def _add_project(database: Database) -> None:
    commit, job = "1a" * 20, _IN_PATHS["{job}"]
    result = {
        "project": "app", "group": "releases", "ref": "v1.0", "commit": commit, "files": 12, "bytes": 34567,
        "seconds": 0.61,
    }  # fmt: skip

    def add(connection: sa.Connection) -> None:
        projects.put(connection, "app", "releases", "v1.0", commit, 12, 34567)
        clone_jobs.add(connection, job, "app", "deploy")
        clone_jobs.progress(connection, job, {"stage": "receiving objects", "done": 40, "total": 40})
        clone_jobs.end(connection, job, CloneState.READY, result)

    database.write(add)


def _clones(database: Database) -> int:
    running = sa.select(sa.func.count()).where(clone_job.c.state == CloneState.RUNNING)
    return database.read(lambda connection: connection.scalar(running)) or 0


def _add_engine(database: Database) -> None:
    row = {
        "incarnation": "0" * 32, "id": "engine-1", "host_name": "engine-1", "version": "0.1.0", "slots": 200,
        "free_slots": 200, "state": EngineState.LIVE, "started_at": now(), "beat_at": now(),
    }  # fmt: skip
    database.write(lambda connection: connection.execute(sa.insert(engine).values(row)))


if __name__ == "__main__":
    sys.stdout.write(text())
