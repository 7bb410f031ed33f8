"""The unit message on Kafka: a hint that a unit waits. The database holds the truth about it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from contract.errors import MessageError

VERSION = 1
_FIELDS = {"unit_id": int, "task_id": str, "type": str, "attempt": int, "hosts": int}


@dataclass(frozen=True)
class UnitMessage:
    unit_id: int
    task_id: str
    type: str
    attempt: int
    hosts: int

    def encode(self) -> bytes:
        return json.dumps({"version": VERSION, **asdict(self)}, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, raw: bytes | None) -> UnitMessage:
        """Raises MessageError for anything that is not exactly a message of this version."""
        try:
            fields = json.loads(raw or b"")
        except (ValueError, RecursionError) as exc:
            raise MessageError(f"expected a JSON object, found {len(raw or b'')} bytes that are none") from exc
        if not isinstance(fields, dict) or fields.get("version") != VERSION:
            raise MessageError(f"expected a unit message of version {VERSION}, found another one")
        wrong = [name for name, kind in _FIELDS.items() if type(fields.get(name)) is not kind]
        if wrong:
            raise MessageError(f"fields missing or of the wrong type: {', '.join(wrong)}")
        return cls(**{name: fields[name] for name in _FIELDS})
