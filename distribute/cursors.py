"""Where the next page begins, as text that a client hands back: opaque, and refused when it was changed."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from typing import Any

from distribute.errors import BadRequest

_CHECK_BYTES = 6

Position = list[Any]  # numbers, strings and null: what JSON keeps as it is


def encode(position: Position | None, query: str) -> str | None:
    """query names the list that the position belongs to, with its filters. None for no position: the last page."""
    if position is None:
        return None
    body = json.dumps(position, separators=(",", ":")).encode()
    return _text(_check(body, query) + body)


def decode(cursor: str | None, query: str) -> Position | None:
    """None for no cursor. Raises BadRequest for one that was not made for this query."""
    if cursor is None:
        return None
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        check, body = raw[:_CHECK_BYTES], raw[_CHECK_BYTES:]
        if check == _check(body, query) and _text(raw) == cursor:
            position: Position = json.loads(body)
            return position
    except (ValueError, binascii.Error):
        pass
    raise BadRequest([("cursor", "expected the cursor of an earlier answer to the same query, found another text")])


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _check(body: bytes, query: str) -> bytes:
    """Not a signature: a position is no secret, and a forged one shows nothing that the query would not."""
    return hashlib.blake2b(query.encode() + b"\0" + body, digest_size=_CHECK_BYTES).digest()
