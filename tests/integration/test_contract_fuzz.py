"""The whole contract, fuzzed: whatever a client sends is answered as the OpenAPI document declares, and in time.

FUZZ_CASES=1000 pytest tests/integration/test_contract_fuzz.py asks more; the cases are the same in each run.
"""

from __future__ import annotations

import itertools
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import negative_data_rejection

from contract import secret
from contract.config import DatabaseSettings
from contract.database import Database, now
from contract.states import EngineState, HostStatus
from contract.tables import engine
from distribute import tokens
from distribute.inputs import BASE_PATH
from distribute.tokens import Role
from tests.daemons import Backend, Services
from tests.integration.rest import PLAYBOOK, Rest, add, adhoc, playbook, set_host
from tests.servers import mariadb as mariadb_server

ANSWER_SECONDS = 20
CASES = int(os.environ.get("FUZZ_CASES", "10"))  # for each operation, besides those at the limits of each field
# What no schema says of a field: what hosts, modules, playbooks, projects and cursors are, and that only one of some is
# given.
BEYOND_SCHEMAS = {
    "ips", "ip", "module", "playbook_content", "cursor", "task_id", "project_name", "group", "ref", "project_ref",
}  # fmt: skip
BEYOND_TYPES = {  # what is refused of valid values: 1.0 is an integer for JSON Schema, NUL a character
    "expected a whole number, found a number",
    "expected text without NUL characters",
}
SQLITE = pytest.mark.parametrize("api", ["sqlite"], indirect=True)  # where the database makes no difference
HOSTS = ["10.0.0.1", "10.0.0.2"]

contract = schemathesis.openapi.from_dict(Rest(Database(DatabaseSettings(sqlite_file=Path("none")))).app.spec)
contract.config.seed = 7
contract.config.generation.update(max_examples=CASES, deterministic=True, database="none")
contract.config.checks.update(excluded_check_names=["positive_data_acceptance"])  # Api.ask knows what else is wrong


class Api:
    """A real distribute that asks for tokens, with a task of each type that has results; no engine runs any."""

    def __init__(self, services: Services) -> None:
        file = services.backend.directory / "tokens"
        self._tokens = {role: tokens.add(file, str(role), role, (), None) for role in Role}
        gitlab = {"IP": "127.0.0.1", "GROUP": "g", "URL_TEMPLATE": "ssh://git@{ip}:1/{group}/{project}.git"}  # refuses
        distribute = {"TOKENS_FILE": file, "TRUSTED_PROXIES": "127.0.0.1", "REQUESTS_PER_SECOND": 0}
        config = services.backend.config_file(Distribute=distribute, Gitlab=gitlab)
        secret.new_key(config.parent / secret.FILE_NAME)  # for secret_args
        services.start_distribute(config)
        self.root = services.url("").removesuffix(BASE_PATH)
        self._session = requests.Session()
        self._numbers = itertools.count()
        self._fill(services)

    def _fill(self, services: Services) -> None:
        headers = self._headers(Role.ADMIN)
        for path, body in (("/adhoc/", adhoc(HOSTS, task_id="A")), ("/playbook/", playbook(HOSTS, task_id="P"))):
            assert requests.post(services.url(path), json=body, headers=headers, timeout=ANSWER_SECONDS).ok
        values: dict[str, Any] = {
            "status": HostStatus.FAILED, "rc": 1, "changed": True, "stdout": "o", "stderr": "e", "msg": "m",
            "blame": "b", "started_at": now(), "finished_at": now(), "tasks_ok": 1, "tasks_total": 2, "stuck_task": "t",
            "detail": {"cmd": ["a"], "dest": "/a", "tasks": []},
        }  # fmt: skip
        for task_id in ("A", "P"):
            set_host(services.database, task_id, HOSTS[0], **values)
        assert requests.post(services.url("/tasks/A/cancel/"), headers=headers, timeout=ANSWER_SECONDS).ok  # may rerun
        row = {
            "incarnation": "0" * 32, "id": "e", "host_name": "e", "version": "1", "slots": 2, "free_slots": 2,
            "state": EngineState.LIVE, "started_at": now(), "beat_at": now(),
        }  # fmt: skip
        add(services.database, engine, row)

    def _headers(self, role: Role | None) -> dict[str, str]:
        number = next(self._numbers)  # each comes from another address, so that no wrong token slows down the next one
        address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        authorization = {} if role is None else {"Authorization": f"Bearer {self._tokens[role]}"}
        return {"X-Forwarded-For": address, **authorization}

    def ask(self, case: Case, role: Role | None) -> requests.Response:
        """Send it, and hold the answer against the document."""
        valid = case.meta.generation.mode.is_positive
        is_random = case.meta.phase.name.value == "fuzzing"
        if valid and is_random:
            _fill_in(case)
        # In a query all is text: what was meant as something else is valid as well.
        excluded = [negative_data_rejection] if is_random and case.method == "GET" else []
        if case.path.endswith("/file/"):  # 503, 504: the Gitlab that refuses; 500 is not declared
            excluded.append(not_a_server_error)
        answer = case.call_and_validate(
            base_url=self.root,
            session=self._session,
            headers=self._headers(role),
            timeout=ANSWER_SECONDS,
            excluded_checks=excluded,
        )
        if valid and answer.status_code == 400:
            for problem in answer.json()["data"]:
                field = re.split(r"[\[.]", problem["field"])[0]
                assert field in BEYOND_SCHEMAS or problem["problem"] in BEYOND_TYPES, problem
        return answer


def _fill_in(case: Case) -> None:
    """Put hosts, modules, playbooks and ids that there are into it; else nearly all answers were refusals."""
    submits = case.method == "POST" and case.path.endswith(("/adhoc/", "/playbook/"))
    known = {"module": "shell", "ips": HOSTS, "ip": HOSTS[0], "playbook_content": PLAYBOOK}
    if not submits:
        known["task_id"] = "P" if "/playbook/" in case.path else "A"
    for place in (case.path_parameters, case.query, case.body):
        if isinstance(place, dict):
            place.update((name, value) for name, value in known.items() if name in place)
            if not submits:
                for name in [each for each in ("task_id", "ip", "ips") if each in place][1:]:
                    del place[name]


@pytest.fixture(scope="module", params=["sqlite", "mariadb"])
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("fuzz")
    settings = DatabaseSettings(sqlite_file=folder / "fuzz.db")
    if request.param == "mariadb":
        server = request.getfixturevalue("mariadb")
        name = f"ee_{secrets.token_hex(6)}"
        server.sql(f"CREATE DATABASE {name}")
        settings = DatabaseSettings(
            ip="127.0.0.1", port=server.port, database=name, user=mariadb_server.USER, password=mariadb_server.PASSWORD
        )
    services = Services(Backend(request.param, folder, "", settings))
    try:
        yield Api(services)
    finally:
        services.stop()


def test_the_document_is_the_one_that_is_served(api: Api) -> None:
    served = requests.get(f"{api.root}/openapi.json", timeout=ANSWER_SECONDS).json()
    assert {**served, "servers": None} == {**contract.raw_schema, "servers": None}


@contract.parametrize()
def test_an_admin_is_answered_as_declared(case: Case, api: Api) -> None:
    api.ask(case, Role.ADMIN)


@SQLITE
@contract.parametrize()
def test_a_reader_is_answered_as_declared(case: Case, api: Api) -> None:
    api.ask(case, Role.READ)


@SQLITE
@contract.parametrize()
def test_without_a_token_nobody_is_let_in(case: Case, api: Api) -> None:
    answer = api.ask(case, None)
    assert (answer.status_code == 401) == case.path.startswith(BASE_PATH)
