"""How answers look: the envelope, times, and lists that are sent while they are read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from flask import Response

Item = dict[str, Any]

_encode = json.JSONEncoder(separators=(",", ":")).encode


def envelope(data: Any, msg: str = "ok", code: int = 200) -> dict[str, Any]:
    """length is the number of items of a list, 1 for an object, 0 for null."""
    length = len(data) if isinstance(data, list) else int(data is not None)
    return {"code": code, "data": data, "msg": msg, "length": length}


def page(items: Sequence[Item], cursor: str | None) -> dict[str, Any]:
    """One page of a list; cursor is null at the end."""
    return {**envelope(list(items)), "cursor": cursor}


def streamed(pages: Iterable[Sequence[Item]]) -> Response:
    """A whole list, of any length, in the envelope. The first page is read before this returns.

    What is raised later cuts the answer off: chunked transfer shows the client that it is incomplete.
    """
    iterator = iter(pages)
    first = next(iterator, ())
    return Response(_stream(first, iterator), mimetype="application/json")


def moment(value: datetime | None) -> str | None:
    """ISO 8601 with Z, of a time as the tables hold it."""
    return None if value is None else f"{value.isoformat(timespec='microseconds')}Z"


def _stream(first: Sequence[Item], rest: Iterator[Sequence[Item]]) -> Iterator[bytes]:
    length = 0
    yield b'{"code":200,"data":['
    page: Sequence[Item] | None = first
    while page is not None:
        if page:
            text = _encode(page)[1:-1]
            yield (f",{text}" if length else text).encode()
            length += len(page)
        page = next(rest, None)
    yield f'],"msg":"ok","length":{length}}}\n'.encode()
