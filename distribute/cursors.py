"""Where the next page begins, as text that a client hands back: opaque, and refused when it was changed.

What a position may be is declared here alone, and checked though the check sum is right: everybody can make one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from datetime import datetime
from typing import Annotated, TypeVar

from pydantic import Field, NaiveDatetime, TypeAdapter
from pydantic_core import to_json

from distribute.errors import BadRequest

_CHECK_BYTES = 6
_Key = Annotated[int, Field(ge=0, le=(1 << 63) - 1)]  # what the databases' integers hold

SinceAndKey = tuple[datetime | None, int]
Position = int | SinceAndKey  # a row's key, or a place in the list that was asked for
P = TypeVar("P", int, SinceAndKey)

KEY: TypeAdapter[int] = TypeAdapter(_Key)
SINCE_AND_KEY: TypeAdapter[SinceAndKey] = TypeAdapter(tuple[NaiveDatetime | None, _Key])


def encode(position: Position | None, query: str) -> str | None:
    """query names the list that the position belongs to, with its filters. None for no position: the last page."""
    if position is None:
        return None
    body = to_json(position)
    return _text(_check(body, query) + body)


def decode(cursor: str | None, query: str, shape: TypeAdapter[P]) -> P | None:
    """None for no cursor. Raises BadRequest for one that was not made for this query, or holds another shape."""
    if cursor is None:
        return None
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        check, body = raw[:_CHECK_BYTES], raw[_CHECK_BYTES:]
        if check == _check(body, query) and _text(raw) == cursor:
            return shape.validate_json(body, strict=True)
    except (ValueError, binascii.Error):
        pass
    raise BadRequest([("cursor", "expected the cursor of an earlier answer to the same query, found another text")])


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _check(body: bytes, query: str) -> bytes:
    """Not a signature: a position is no secret, and a forged one shows nothing that the query would not."""
    return hashlib.blake2b(query.encode() + b"\0" + body, digest_size=_CHECK_BYTES).digest()
