"""The REST API without a server: the application with Flask's client, and the rows that stand behind it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from werkzeug.test import TestResponse

from contract.config import (
    AnsibleSettings,
    Config,
    DatabaseSettings,
    DistributeSettings,
    EngineSettings,
    GitlabSettings,
    IntervalSettings,
    KafkaSettings,
    ZabbixSettings,
)
from contract.database import Database
from contract.tables import host_result, task, unit
from distribute.app import create_app
from distribute.inputs import BASE_PATH

Envelope = dict[str, Any]
Item = dict[str, Any]

PLAYBOOK = "- hosts: all\n  tasks:\n    - ping:\n"


class Rest:
    """A client of a new application on a database."""

    def __init__(
        self,
        database: Database,
        *,
        secret_key_file: Path = Path("no/key"),
        gitlab: GitlabSettings | None = None,
        **settings: Any,
    ) -> None:
        """settings are those of [Distribute]."""
        self.database = database
        self.config = Config(
            KafkaSettings(),
            database.settings,
            ZabbixSettings(),
            AnsibleSettings(),
            IntervalSettings(),
            DistributeSettings(**{"requests_per_second": 0, **settings}),  # tests are faster than clients
            EngineSettings(engine_id="engine-1"),
            gitlab or GitlabSettings(),
            secret_key_file=secret_key_file,
        )
        self.app = create_app(self.config, database)

    def call(self, method: str, path: str, **arguments: Any) -> TestResponse:
        """path is below the base path, unless it has no slash at its beginning: then it is below the root."""
        full = f"{BASE_PATH}{path}" if path.startswith("/") or not path else f"/{path}"
        response: TestResponse = self.app.test_client().open(full, method=method, **arguments)
        return response

    def get(self, path: str, code: int = 200, **query: Any) -> Envelope:
        return opened(self.call("GET", path, query_string=query), code)

    def post(self, path: str, body: object, status: int = 200) -> Envelope:
        return opened(self.call("POST", path, json=body), status)

    def submit(self, ips: str | Sequence[str], **fields: Any) -> Item:
        """Data of the answer to an ad hoc task, module shell unless fields say otherwise."""
        data: Item = self.post("/adhoc/", adhoc(ips, **fields))["data"]
        return data

    def submit_playbook(self, ips: str | Sequence[str], **fields: Any) -> Item:
        data: Item = self.post("/playbook/", playbook(ips, **fields))["data"]
        return data

    def problems(self, path: str, body: object) -> dict[str, str]:
        """What a POST that is answered with 400 is told."""
        return told(self.post(path, body, 400))

    def pages(self, path: str, **query: Any) -> list[list[Item]]:
        """The items of every page, by following the cursors."""
        found = []
        while True:
            answer = self.get(path, **query)
            found.append(answer["data"])
            if answer["cursor"] is None:
                return found
            query["cursor"] = answer["cursor"]


def adhoc(ips: str | Sequence[str], **fields: Any) -> Item:
    return {"task_name": "test", "type": "adhoc", "module": "shell", "args": "echo hi", "ips": ips, **fields}


def playbook(ips: str | Sequence[str], **fields: Any) -> Item:
    return {
        "task_name": "test", "type": "playbook", "playbook_name": "p.yml", "playbook_content": PLAYBOOK, "ips": ips,
        **fields,
    }  # fmt: skip


def opened(response: TestResponse, status: int = 200) -> Envelope:
    """The envelope of an answer with this status; what is true of every envelope is looked at here."""
    answer: Envelope = json.loads(response.get_data(), parse_constant=_refuse)
    assert response.mimetype == "application/json"
    assert (response.status_code, answer["code"]) == (status, status), answer
    assert answer.keys() - {"cursor"} == {"code", "data", "msg", "length"}
    data = answer["data"]
    assert answer["length"] == (len(data) if isinstance(data, list) else int(data is not None))
    return answer


def told(answer: Envelope) -> dict[str, str]:
    """The problems of a 400, by their fields."""
    assert all(item.keys() == {"field", "problem"} for item in answer["data"])
    problems = {item["field"]: item["problem"] for item in answer["data"]}
    assert len(problems) == answer["length"]
    return problems


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


# --- what stands in the database


def rows(database: Database, query: sa.Select[Any]) -> list[sa.Row[Any]]:
    return database.read(lambda connection: list(connection.execute(query)))


def counts(database: Database) -> tuple[int, int, int]:
    """How many tasks, units and host results there are."""
    tables = (task, unit, host_result)
    tasks, units, hosts = (rows(database, sa.select(sa.func.count()).select_from(table))[0][0] for table in tables)
    return tasks, units, hosts


def task_row(database: Database, task_id: str) -> sa.Row[Any]:
    (row,) = rows(database, sa.select(task).where(task.c.id == task_id))
    return row


def hosts_by_unit(database: Database, task_id: str) -> dict[int, list[str]]:
    """The hosts of each unit, by its number, in the order of their rows."""
    query = (
        sa.select(unit.c.number, host_result.c.host)
        .join(host_result, host_result.c.unit_id == unit.c.id)
        .join(task, task.c.key == unit.c.task_key)
        .where(task.c.id == task_id, host_result.c.task_key == task.c.key)
        .order_by(host_result.c.id)
    )
    found: dict[int, list[str]] = {}
    for number, host in rows(database, query):
        found.setdefault(number, []).append(host)
    return found


def set_host(database: Database, task_id: str, host: str, **values: Any) -> None:
    """Write into a host's row what an engine would."""
    key = task_row(database, task_id).key
    where = sa.and_(host_result.c.task_key == key, host_result.c.host == host)
    changed = database.write(lambda connection: connection.execute(sa.update(host_result).where(where).values(values)))
    assert changed.rowcount == 1


def set_unit(database: Database, task_id: str, number: int, **values: Any) -> None:
    key = task_row(database, task_id).key
    where = sa.and_(unit.c.task_key == key, unit.c.number == number)
    assert database.write(lambda c: c.execute(sa.update(unit).where(where).values(values))).rowcount == 1


def set_task(database: Database, task_id: str, **values: Any) -> None:
    where = task.c.id == task_id
    assert database.write(lambda c: c.execute(sa.update(task).where(where).values(values))).rowcount == 1


def add(database: Database, table: sa.Table, row: Mapping[str, Any]) -> None:
    database.write(lambda connection: connection.execute(sa.insert(table).values(row)))


@contextmanager
def away(database: Database, folder: Path) -> Iterator[None]:
    """Meanwhile nobody answers where the database was. SQLite's file is the folder."""
    gone = (
        DatabaseSettings(sqlite_file=folder)
        if database.is_sqlite
        else DatabaseSettings(ip="127.0.0.1", port=1, user="x")
    )
    present, absent = database.engine, Database(gone)
    database.engine = absent.engine
    try:
        yield
    finally:
        database.engine = present
        absent.close()
