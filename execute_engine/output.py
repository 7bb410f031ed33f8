"""What a host printed, made fit for the database: readable, without secrets, never longer than its column."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from contract.masking import Mask

FIELD_LIMIT_BYTES = 64 << 10
DETAIL_LIMIT_BYTES = 256 << 10
MOST_NESTED = 200
_CUT = " bytes left out ...]\n"
_MARKER = "\n[... {}" + _CUT
_MARKED = re.compile(rf"(\n\[\.\.\. \d+{re.escape(_CUT)})")
_SURROGATE = b"\\ud"  # as json.dumps() begins one that stands for a byte
_STRUCTURE = (
    frozenset(  # of an event: what says which host, when and how is no text, and a secret would be one by chance
        (
            "event",
            "host",
            "status",
            "stage",
            "stopped_on_host",
            "level",
            "at",
            "since",
            "started_at",
            "finished_at",
            "key",
        )
    )
)


class Cleaner:
    """Makes text readable and free of secrets: of the job's in its runner, of the configuration's in the consumer."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._mask = Mask(readable(secret) for secret in secrets)
        self._suspicious = [_in_json(text) for text in (*self._mask.spellings, _CUT)] + [_SURROGATE]

    def mask(self, text: str) -> str:
        """Readable text with every secret replaced; of any length. It may have been cut before, as cut() does it."""
        text = self._mask.text(readable(text))
        return self._without_halves(text) if _CUT in text else text

    def _without_halves(self, text: str) -> str:
        """Of secrets that the cut went through, when it was made by somebody who does not know them."""
        parts = _MARKED.split(text)  # text, marker, text, ...
        for marker in range(1, len(parts), 2):
            parts[marker - 1] = self._mask.head(parts[marker - 1])
            parts[marker + 1] = self._mask.tail(parts[marker + 1])
        return "".join(parts)

    def field(self, value: object) -> str | None:
        """One column's text: masked first, so that the cut cannot leave half a secret, then cut. None stays None."""
        if value is None:
            return None
        return cut(self.mask(value if isinstance(value, str) else _text(value)))

    def is_clean(self, body: bytes) -> bool:
        """Whether event() has nothing to change at what this JSON holds; False when in doubt.

        Far cheaper than event(), and true of nearly all of them.
        """
        if len(body) > FIELD_LIMIT_BYTES or not body.isascii():
            return False
        if body.count(b"[") + body.count(b"{") > MOST_NESTED:  # event() refuses one that is too deep
            return False
        return not any(text in body for text in self._suspicious)

    def event(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """An event of a runner with its texts masked; which host it is about, when and how, is not looked at."""
        return {name: value if name in _STRUCTURE else self.data(value) for name, value in event.items()}

    def data(self, value: object) -> Any:
        """The same value as JSON types, each string masked and cut."""
        if isinstance(value, str):
            return cut(self.mask(str(value)))
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, Mapping):
            return {self.mask(str(name)): self.data(item) for name, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.data(item) for item in value]
        return cut(self.mask(_text(value)))


def lines_of(file: Path | str | None) -> list[str]:
    """Of a file that holds a secret; none where there is no file, or where it cannot be read: who uses it says so."""
    if not file:
        return []
    try:
        return [line.strip() for line in Path(file).read_text(errors="surrogateescape").split("\n")]
    except OSError:
        return []


def readable(text: str) -> str:
    """Text that UTF-8 can carry: bytes that were not UTF-8 (Ansible passes them as surrogates) become \\xNN."""
    if text.isascii():
        return str(text)
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


def cut(text: str, limit_bytes: int = FIELD_LIMIT_BYTES) -> str:
    """At most limit_bytes of UTF-8: what is too much goes from the middle, and a marker says how many bytes it was."""
    if len(text) <= limit_bytes // 4:  # a character is 4 bytes at most
        return text
    encoded = text.encode()
    if len(encoded) <= limit_bytes:
        return text
    room = limit_bytes - len(_MARKER.format(len(encoded)))
    head = encoded[: room // 2].decode(errors="ignore")
    tail = encoded[len(encoded) - (room - room // 2) :].decode(errors="ignore")
    return head + _MARKER.format(len(encoded) - len(head.encode()) - len(tail.encode())) + tail


def fit(detail: dict[str, Any], limit_bytes: int = DETAIL_LIMIT_BYTES) -> dict[str, Any]:
    """The detail within limit_bytes of JSON: the middle of a long task list goes first, then the largest values."""
    detail = dict(detail)
    if _size(detail) > limit_bytes and isinstance(rows := detail.get("tasks"), list):
        keep = _rows_that_fit(rows, limit_bytes - _size({**detail, "tasks": []}) - 100)
        detail["tasks"] = keep
        detail["tasks_left_out"] = len(rows) - len(keep)
    if _size(detail) > limit_bytes and isinstance(result := detail.get("result"), dict):
        detail["result"] = _shrunk(result, limit_bytes - _size({**detail, "result": {}}))
    return _shrunk(detail, limit_bytes)


def _rows_that_fit(rows: list[Any], room_bytes: int) -> list[Any]:
    sizes = [_size(row) + 1 for row in rows]
    first, last, used = 0, len(rows), 0
    while first < last:
        from_front = first <= len(rows) - last
        size = sizes[first] if from_front else sizes[last - 1]
        if used + size > room_bytes:
            break
        used += size
        first, last = (first + 1, last) if from_front else (first, last - 1)
    return rows[:first] + rows[last:]


def _shrunk(values: dict[str, Any], room_bytes: int) -> dict[str, Any]:
    values = dict(values)
    by_size = sorted(values, key=lambda name: _size(values[name]), reverse=True)
    total = _size(values)
    for name in by_size:
        if total <= room_bytes:
            break
        before = _size(values[name])
        values[name] = f"[{before} bytes left out]"
        total += _size(values[name]) - before
    return values


def _size(value: object) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def _in_json(text: str) -> bytes:
    return json.dumps(text)[1:-1].encode()


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value, default=str, ensure_ascii=False)
    return str(value)
