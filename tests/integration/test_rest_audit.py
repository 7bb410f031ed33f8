"""The audit in detail: what a row says became of a change, refusals, and whose a task_id is."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from contract.database import Database
from contract.states import HostStatus, TaskState
from contract.tables import audit
from distribute import limits
from distribute.inputs import MAX_BODY_BYTES
from distribute.store import queries
from distribute.tokens import Role
from tests.integration.rest import Rest, adhoc, counts, opened, rows, set_host, set_task, task_row
from tests.integration.test_rest_tokens import Guarded
from tests.servers.process import wait_for


@pytest.fixture
def guarded(database: Database, tmp_path: Path) -> Guarded:
    return Guarded(database, tmp_path / "tokens")


def noted(database: Database) -> list[tuple[Any, ...]]:
    columns = (audit.c.action, audit.c.target, audit.c.code, audit.c.msg)
    return [tuple(row) for row in rows(database, sa.select(*columns).order_by(audit.c.id))]


@contextmanager
def commits(database: Database) -> Iterator[list[str]]:
    """One entry for each transaction that ends meanwhile."""
    ended: list[str] = []

    def note(_connection: sa.Connection) -> None:
        ended.append("commit")

    sa.event.listen(database.engine, "commit", note)
    try:
        yield ended
    finally:
        sa.event.remove(database.engine, "commit", note)


# --- whose a task_id is


def test_the_request_of_another_client_is_not_answered_as_ones_own(guarded: Guarded) -> None:
    guarded.add("another", Role.ADMIN)
    guarded.submits("submit", ["a"], task_id="t")
    for hosts in (["a"], ["b"]):  # the same request, and another one: no difference is shown
        answer = guarded.submits("another", hosts, 409, task_id="t")
        assert answer["msg"] == "The task_id t is taken; nothing was done. Choose another task_id."
        assert answer["data"] is None
    assert guarded.submits("submit", ["a"], task_id="t")["data"]["task_id"] == "t"
    assert "belongs to another request" in guarded.submits("submit", ["b"], 409, task_id="t")["msg"]
    assert counts(guarded.database) == (1, 1, 1)


def test_a_rerun_of_another_client_is_not_answered_as_ones_own(guarded: Guarded) -> None:
    guarded.submits("submit", ["a"], task_id="t")
    set_task(guarded.database, "t", state=TaskState.FINISHED)
    set_host(guarded.database, "t", "a", status=HostStatus.FAILED)
    for status in (200, 200):
        guarded.by("submit", "POST", "/tasks/t/rerun/", status, json={"task_id": "again"})
    assert "is taken" in guarded.by("operate", "POST", "/tasks/t/rerun/", 409, json={"task_id": "again"})["msg"]
    assert task_row(guarded.database, "again").submitted_by == "submit"


def test_without_tokens_everybody_is_the_same_client(database: Database) -> None:
    rest = Rest(database)
    assert rest.submit("a", task_id="t") == rest.submit("a", task_id="t")


# --- what became of a change


def test_a_change_that_changes_nothing_is_noted_as_such(guarded: Guarded) -> None:
    for _ in range(2):
        guarded.submits("submit", ["a"], task_id="t")
    for path in ("/hold/", "/release/"):
        for _ in range(2):
            guarded.by("operate", "POST", path)
    for _ in range(2):
        guarded.by("submit", "POST", "/tasks/t/cancel/")
    set_task(guarded.database, "t", state=TaskState.CANCELLED)
    set_host(guarded.database, "t", "a", status=HostStatus.FAILED)
    for _ in range(2):
        guarded.by("submit", "POST", "/tasks/t/rerun/", json={"task_id": "again"})
    guarded.submits("submit", ["a"], task_id="ended")
    set_task(guarded.database, "ended", state=TaskState.FINISHED)
    guarded.by("submit", "POST", "/tasks/ended/cancel/")
    assert noted(guarded.database) == [
        ("submit", "t", 200, "done"),
        ("submit", "t", 200, "was there already"),
        ("hold", None, 200, "done"),
        ("hold", None, 200, "nothing changed"),
        ("release", None, 200, "done"),
        ("release", None, 200, "nothing changed"),
        ("cancel", "t", 200, "done"),
        ("cancel", "t", 200, "nothing changed"),
        ("rerun", "t", 200, "done: the new task is again"),
        ("rerun", "t", 200, "was there already: the new task is again"),
        ("submit", "ended", 200, "done"),
        ("cancel", "ended", 200, "nothing changed"),
    ]


def test_a_change_its_row_and_its_answer_are_one_transaction(guarded: Guarded) -> None:
    guarded.submits("submit", ["a"], task_id="t")
    for path in ("/hold/", "/release/", "/tasks/t/cancel/"):
        with commits(guarded.database) as ended:
            guarded.by("operate", "POST", path)
        assert len(ended) == 1, path


# --- refusals


def test_a_refusal_names_the_task_of_the_path_whatever_the_reason(guarded: Guarded) -> None:
    guarded.submits("submit", ["a"], task_id="t")
    for action in ("cancel", "rerun"):
        guarded.by("read", "POST", f"/tasks/t/{action}/", 403)
        guarded.by("submit", "POST", f"/tasks/t/{action}/", 400, json={"x": 1})
    assert [row[:3] for row in noted(guarded.database)[1:]] == [
        ("cancel", "t", 403),
        ("cancel", "t", 400),
        ("rerun", "t", 403),
        ("rerun", "t", 400),
    ]


class Unread(io.BytesIO):
    def read(self, *_: object) -> bytes:
        raise AssertionError("a body that is too large was read")

    readline = readinto = read  # type: ignore[assignment]


def too_large() -> dict[str, Any]:
    return {"input_stream": Unread(), "environ_overrides": {"CONTENT_LENGTH": str(MAX_BODY_BYTES + 2)}}


def test_a_body_that_is_too_large_is_noted_and_not_read(guarded: Guarded) -> None:
    headers = {"Authorization": f"Bearer {guarded.made['submit']}", "Content-Type": "application/json"}
    for path in ("/adhoc/", "/tasks/t/cancel/", "/adhoc/query/"):  # the last is no change
        opened(guarded.call("POST", path, headers=headers, **too_large()), 413)
    assert [row[:3] for row in noted(guarded.database)] == [("submit", None, 413), ("cancel", "t", 413)]


def test_a_change_that_fails_is_noted(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("not to be noted")

    monkeypatch.setattr(queries, "find_task", fail)
    guarded.by("submit", "POST", "/tasks/t/cancel/", 500)
    guarded.by("submit", "GET", "/tasks/t/", 500)
    (row,) = noted(guarded.database)
    assert row == ("cancel", "t", 500, "Something went wrong here; the log of distribute says what.")


def test_an_answer_is_the_same_where_its_row_cannot_be_written(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("distribute.store.audit.add", fail)
    guarded.by("read", "POST", "/hold/", 403)
    guarded.submits("submit", ["a"], 500)
    assert counts(guarded.database) == (0, 0, 0)


def test_who_is_not_let_in_writes_no_row(guarded: Guarded) -> None:
    guarded.made["wrong"] = "ee_" + "x" * 43
    guarded.submits("wrong", ["a"], 401)
    opened(guarded.call("POST", "/adhoc/", json=adhoc("a")), 401)
    opened(guarded.call("POST", "/tasks/t/cancel/", json={"x": 1}), 401)
    opened(guarded.call("POST", "/hold/", **too_large()), 401)
    opened(guarded.call("POST", "/hold/", headers={"Authorization": "Basic eDp5"}), 401)
    assert noted(guarded.database) == []


def test_many_refusals_of_a_client_are_bounded_and_their_number_is_told(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MOST_REFUSALS", 3)
    monkeypatch.setattr(limits, "WINDOW_SECONDS", 5.0)
    for _ in range(10):
        guarded.by("read", "POST", "/hold/", 403)
    guarded.by("submit", "POST", "/hold/", 403)  # another one's count for themselves
    assert len(noted(guarded.database)) == 4
    wait_for("the row of what was left out", lambda: len(noted(guarded.database)) > 4)
    (last,) = rows(guarded.database, sa.select(audit).order_by(audit.c.id.desc()).limit(1))
    assert (last.who, last.action, last.target, last.code) == ("read", "refused", None, 429)
    assert last.msg == "7 more refusals within 5 s; the log has them"
    guarded.by("read", "POST", "/hold/", 403)  # the next window
    assert len(noted(guarded.database)) == 6
