"""How many requests of one client are answered, and what the others notice of it: nothing."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from werkzeug.test import TestResponse

from contract.database import Database
from contract.tables import audit
from distribute.limits import BURST_SECONDS
from tests.integration.rest import Rest, opened, rows
from tests.integration.test_rest_tokens import Guarded

PER_SECOND = 1
BURST = PER_SECOND * BURST_SECONDS


@pytest.fixture
def guarded(database: Database, tmp_path: Path) -> Guarded:
    return Guarded(database, tmp_path / "tokens", requests_per_second=PER_SECOND)


def ask(rest: Rest, address: str, path: str = "/engines/", **headers: str) -> TestResponse:
    return rest.call("GET", path, headers=headers, environ_base={"REMOTE_ADDR": address})


def until_refused(ask_once: Callable[[], TestResponse]) -> list[TestResponse]:
    """All answers; the last one is the 429, and as many as a burst are not."""
    answers = [ask_once()]
    while answers[-1].status_code == 200:
        assert len(answers) < 1000
        answers.append(ask_once())
    assert len(answers) > BURST
    assert answers[-1].status_code == 429
    return answers


def test_a_token_that_asks_too_fast_is_told_when_to_come_again_and_others_are_answered(guarded: Guarded) -> None:
    eager = {"Authorization": f"Bearer {guarded.made['operate']}"}
    addresses = itertools.cycle(["10.0.0.1", "10.0.0.2"])
    refused = until_refused(lambda: ask(guarded, next(addresses), **eager))[-1]
    assert opened(refused, 429)["msg"] == "Expected at most 1 requests a second; nothing was done."
    assert refused.headers["Retry-After"] == "1"
    another = {"Authorization": f"Bearer {guarded.made['read']}"}
    until_refused(lambda: ask(guarded, "10.0.0.1", "metrics", **another))


def test_a_change_that_is_asked_for_too_fast_is_not_made_and_noted(guarded: Guarded) -> None:
    eager = {"Authorization": f"Bearer {guarded.made['operate']}"}
    codes = [answer.status_code for answer in until_refused(lambda: guarded.call("POST", "/hold/", headers=eager))]
    noted = rows(guarded.database, sa.select(audit.c.code).order_by(audit.c.id))
    assert [row.code for row in noted] == codes


def test_without_tokens_each_address_counts_for_itself(database: Database) -> None:
    rest = Rest(database, requests_per_second=PER_SECOND)
    until_refused(lambda: ask(rest, "10.0.0.1"))
    assert ask(rest, "10.0.0.2").status_code == 200


def test_what_is_refused_asks_nothing_of_the_database(database: Database) -> None:
    rest = Rest(database, requests_per_second=PER_SECOND)
    asked: list[object] = []
    sa.event.listen(database.engine, "before_cursor_execute", lambda *given: asked.append(given))

    def ask_once() -> TestResponse:
        asked.clear()
        return ask(rest, "10.0.0.1")

    until_refused(ask_once)
    assert asked == []
