"""Cursors: they come back as they were made, and only to the query that they were made for."""

from __future__ import annotations

from datetime import datetime

import pytest

from distribute import cursors
from distribute.errors import BadRequest

POSITION = (datetime(2026, 1, 31, 12, 0, 0, 5), 7)
PROBLEM = "expected the cursor of an earlier answer to the same query, found another text"


def test_a_cursor_comes_back_as_it_was_made_and_fits_into_a_query_string() -> None:
    cursor = cursors.encode(POSITION, "tasks")
    assert cursors.decode(cursor, "tasks", cursors.SINCE_AND_KEY) == POSITION
    assert set(cursor) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


@pytest.mark.parametrize("length", range(7))
def test_every_length_comes_back(length: int) -> None:
    key = 10**length
    assert cursors.decode(cursors.encode(key, "q"), "q", cursors.KEY) == key
    position = None, key
    assert cursors.decode(cursors.encode(position, "q"), "q", cursors.SINCE_AND_KEY) == position


def test_a_cursor_of_another_kind_of_list_is_refused() -> None:
    for position, shape in ((POSITION, cursors.KEY), (7, cursors.SINCE_AND_KEY)):
        with pytest.raises(BadRequest):
            cursors.decode(cursors.encode(position, "q"), "q", shape)


def test_no_cursor_is_the_beginning() -> None:
    assert cursors.decode(None, "tasks", cursors.KEY) is None


def test_a_cursor_of_another_query_is_refused() -> None:
    cursor = cursors.encode(7, "tasks queued None")
    with pytest.raises(BadRequest):
        cursors.decode(cursor, "tasks running None", cursors.KEY)


def test_a_cursor_that_was_changed_anywhere_is_refused() -> None:
    cursor = cursors.encode(POSITION, "q")
    changed = [f"{cursor[:n]}{'A' if cursor[n] != 'A' else 'B'}{cursor[n + 1 :]}" for n in range(len(cursor))]
    for text in [*changed, cursor[:-1], f"{cursor}A", f"{cursor}=", f" {cursor}", f"{cursor}\n", cursor.swapcase()]:
        with pytest.raises(BadRequest) as caught:
            cursors.decode(text, "q", cursors.SINCE_AND_KEY)
        assert caught.value.problems == (("cursor", PROBLEM),)


@pytest.mark.parametrize("text", ["", "A", "AAAA", "x" * 10_000, "größe", "\0", "=", "%%%", "W10"])
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        cursors.decode(text, "q", cursors.KEY)
