"""Made-up cursors whose check sum is right, in every list: each is a mistake of the client, and none a failure here."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterable

import pytest

from contract.database import Database
from distribute import cursors
from tests.integration.rest import Rest, told

PROBLEM = {"cursor": "expected the cursor of an earlier answer to the same query, found another text"}
CHECK = b"always"
LISTS: list[tuple[str, dict[str, object]]] = [
    ("/adhoc/", {"task_id": "a"}),
    ("/adhoc/", {"ip": "h"}),
    ("/adhoc/", {"ips": "h,i"}),
    ("/playbook/", {"task_id": "p"}),
    ("/playbook/", {"ip": "h"}),
    ("/playbook/", {"ips": "h,i"}),
    ("/tasks/", {}),
    ("/tasks/", {"state": "queued"}),
    ("/tasks/a/hosts/", {}),
    ("/tasks/a/hosts/", {"status": "queued"}),
    ("/audit/", {}),
]
NUMBERS = ["-1", "1.0", "1e3", "true", "null", "9223372036854775808", f"1{'0' * 30}", "9" * 5000, "NaN", '"1"', "{}"]
TIMES = [
    "5", "true", '""', '"x"', '"5"', '"2026-01-31"', '"2026-01-31T12:00:00Z"', '"2026-13-31T12:00:00"', "{}", "[]",
    '"0000-01-01T00:00:00"', '"9999-12-31T23:59:59-23:59"', '"2026-01-31T12:00:00\\u0000"',
]  # fmt: skip
BODIES = [
    *NUMBERS, *(f"[{number}]" for number in NUMBERS), *(f"[null,{number}]" for number in NUMBERS),
    *(f"[{time},1]" for time in TIMES), '["x",null]', '{"a":1}', "[]", "[1,2,3]", "[[1]]", "[" * 50_000, "", "1 1",
    '"\\ud800"', '["\\ud800",1]', "\xff",
]  # fmt: skip


@pytest.fixture
def rest(database: Database, monkeypatch: pytest.MonkeyPatch) -> Rest:
    monkeypatch.setattr(cursors, "_check", lambda _body, _query: CHECK)  # as who has read the source makes it
    rest = Rest(database)
    rest.submit("h,i", task_id="a")
    rest.submit_playbook("h,i", task_id="p")
    return rest


def made_up(body: str) -> str:
    return base64.urlsafe_b64encode(CHECK + body.encode("latin-1")).decode().rstrip("=")


def test_a_position_of_another_kind_is_a_problem_of_the_cursor(rest: Rest) -> None:
    for (path, query), body in itertools.product(LISTS, BODIES):
        assert told(rest.get(path, 400, **query, cursor=made_up(body))) == PROBLEM, body
        if path in ("/adhoc/", "/playbook/"):
            sent = {**query, "cursor": made_up(body), "limit": 1}
            assert told(rest.post(f"{path}query/", sent, 400)) == PROBLEM, body


def test_any_place_that_could_be_one_is_answered(rest: Rest) -> None:
    """It shows nothing that the query would not."""
    keys = (0, 1, (1 << 63) - 1)
    times = (None, "0001-01-01T00:00:00", "9999-12-31T23:59:59.999999")
    for path, query in LISTS:
        positions: Iterable[object] = itertools.product(times, keys) if path.endswith("/hosts/") else keys
        for position in positions:
            rest.get(path, **query, cursor=made_up(json.dumps(position)), limit=1)
