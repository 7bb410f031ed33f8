"""The envelope, and lists that are sent while they are read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from distribute import answers

Pages = list[list[dict[str, Any]]]


@pytest.mark.parametrize(
    ("data", "length"), [(None, 0), ({}, 1), ({"a": 1, "b": 2}, 1), ([], 0), ([{}], 1), ([1, 2, 3], 3), ("", 1), (0, 1)]
)
def test_length_is_the_number_of_items_of_a_list_1_for_anything_else_and_0_for_null(data: object, length: int) -> None:
    assert answers.envelope(data) == {"code": 200, "data": data, "msg": "ok", "length": length}


def test_a_page_has_its_cursor_beside_its_length() -> None:
    assert answers.page([{"a": 1}], "next") == {
        "code": 200, "data": [{"a": 1}], "msg": "ok", "length": 1, "cursor": "next",
    }  # fmt: skip
    assert answers.page((), None) == {"code": 200, "data": [], "msg": "ok", "length": 0, "cursor": None}


@pytest.mark.parametrize(
    "pages",
    [
        [],
        [[]],
        [[{"a": 'quote " and größe 😀 \u2028'}]],
        [[{"a": 1}, {"a": [{}, []]}], [{"a": None}]],
        [[], [{"a": 1}], [], [], [{"a": 2}], []],  # hosts without a result leave pages empty
    ],
)
def test_a_streamed_list_is_one_envelope(pages: Pages) -> None:
    response = answers.streamed(iter(pages))
    items = [item for page in pages for item in page]
    assert response.is_streamed
    assert response.mimetype == "application/json"
    assert json.loads(response.get_data()) == {"code": 200, "data": items, "msg": "ok", "length": len(items)}


def test_only_the_first_page_is_read_before_the_answer_begins() -> None:
    read = []

    def pages() -> Iterator[list[dict[str, Any]]]:
        for number in range(3):
            read.append(number)
            yield [{"n": number}]

    response = answers.streamed(pages())
    assert read == [0]
    chunks = iter(response.response)
    next(chunks)
    next(chunks)
    assert read == [0]
    next(chunks)
    assert read == [0, 1]


def test_a_failure_before_the_first_page_is_no_answer_yet() -> None:
    def pages() -> Iterator[list[dict[str, Any]]]:
        raise RuntimeError("away")
        yield []

    with pytest.raises(RuntimeError, match="away"):
        answers.streamed(pages())


def test_a_failure_later_leaves_the_answer_without_an_end() -> None:
    def pages() -> Iterator[list[dict[str, Any]]]:
        yield [{"a": 1}]
        raise RuntimeError("away")

    sent: list[str | bytes] = []
    with pytest.raises(RuntimeError, match="away"):
        sent.extend(answers.streamed(pages()).response)
    assert sent == [b'{"code":200,"data":[', b'{"a":1}']


def test_times_are_iso_8601_with_microseconds_and_z() -> None:
    assert answers.moment(datetime(2026, 1, 31, 12)) == "2026-01-31T12:00:00.000000Z"
    assert answers.moment(datetime(2026, 1, 31, 12, 0, 0, 5)) == "2026-01-31T12:00:00.000005Z"
    assert answers.moment(None) is None
