from __future__ import annotations

import json
import os

import pytest

from contract.errors import MessageError
from contract.message import UnitMessage

MESSAGE = UnitMessage(unit_id=7, task_id="Deploy-1", type="adhoc", attempt=1, hosts=30)
FIELDS = {"version": 1, "unit_id": 7, "task_id": "Deploy-1", "type": "adhoc", "attempt": 1, "hosts": 30}

WRONG_FIELDS = [
    *(json.dumps({**FIELDS, "version": other}).encode() for other in (0, 2, "1", None)),
    *(json.dumps({**FIELDS, "unit_id": wrong}).encode() for wrong in ("7", 7.0, True, None)),
    *(json.dumps({**FIELDS, "task_id": wrong}).encode() for wrong in (1, None, True)),
    *(json.dumps({name: value for name, value in FIELDS.items() if name != gone}).encode() for gone in FIELDS),
]


def test_the_wire_format_is_the_agreed_one() -> None:
    assert json.loads(MESSAGE.encode()) == FIELDS
    assert UnitMessage.decode(json.dumps(FIELDS).encode()) == MESSAGE


def test_fields_of_a_later_program_are_ignored() -> None:
    assert UnitMessage.decode(json.dumps({**FIELDS, "colour": "red"}).encode()) == MESSAGE


@pytest.mark.parametrize(
    "raw",
    [
        None,
        b"",
        b"\xff\xfe\x00",
        b"{",
        b"[" * 100_000,
        b"[]",
        b"7",
        b"null",
        b'"version"',
        *WRONG_FIELDS,
    ],
    ids=lambda raw: repr(raw)[:60],
)
def test_anything_else_is_one_error(raw: bytes | None) -> None:
    with pytest.raises(MessageError):
        UnitMessage.decode(raw)


def test_random_bytes_are_one_error() -> None:
    for length in range(200):
        with pytest.raises(MessageError):
            UnitMessage.decode(os.urandom(length))
