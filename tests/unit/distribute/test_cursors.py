"""Cursors: they come back as they were made, and only to the query that they were made for."""

from __future__ import annotations

import pytest

from distribute import cursors
from distribute.errors import BadRequest

POSITION = ["2026-01-31T12:00:00.000000Z", 7, None, "größe"]
PROBLEM = "expected the cursor of an earlier answer to the same query, found another text"


def test_a_cursor_comes_back_as_it_was_made_and_fits_into_a_query_string() -> None:
    cursor = cursors.encode(POSITION, "tasks")
    assert cursors.decode(cursor, "tasks") == POSITION
    assert set(cursor) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


@pytest.mark.parametrize("length", range(7))
def test_every_length_comes_back(length: int) -> None:
    position = ["x" * length]
    assert cursors.decode(cursors.encode(position, "q"), "q") == position


def test_no_cursor_is_the_beginning() -> None:
    assert cursors.decode(None, "tasks") is None


def test_a_cursor_of_another_query_is_refused() -> None:
    cursor = cursors.encode([7], "tasks queued None")
    with pytest.raises(BadRequest):
        cursors.decode(cursor, "tasks running None")


def test_a_cursor_that_was_changed_anywhere_is_refused() -> None:
    cursor = cursors.encode(POSITION, "q")
    changed = [f"{cursor[:n]}{'A' if cursor[n] != 'A' else 'B'}{cursor[n + 1 :]}" for n in range(len(cursor))]
    for text in [*changed, cursor[:-1], f"{cursor}A", f"{cursor}=", f" {cursor}", f"{cursor}\n", cursor.swapcase()]:
        with pytest.raises(BadRequest) as caught:
            cursors.decode(text, "q")
        assert caught.value.problems == (("cursor", PROBLEM),)


@pytest.mark.parametrize("text", ["", "A", "AAAA", "x" * 10_000, "größe", "\0", "=", "%%%", "W10"])
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        cursors.decode(text, "q")
