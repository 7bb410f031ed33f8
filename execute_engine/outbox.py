"""Rows on their way to the database, collected into batches."""

from __future__ import annotations

from execute_engine.unit import HostRow

MAX_AGE_SECONDS = 0.5
MAX_ROWS = 200
MAX_BYTES = 1 << 20


class Outbox:
    """Moments are monotonic. A newer row of the same host takes the place of the older one."""

    def __init__(self) -> None:
        self._rows: dict[int, HostRow] = {}
        self._bytes = 0
        self._oldest: float | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def put(self, row: HostRow, moment: float) -> None:
        former = self._rows.get(row.id)
        self._bytes += row.size - (former.size if former else 0)
        self._rows[row.id] = row
        if self._oldest is None:
            self._oldest = moment

    def due_at(self) -> float | None:
        """When a batch must go; a moment long gone when it is full; None when there is nothing."""
        if len(self._rows) >= MAX_ROWS or self._bytes >= MAX_BYTES:
            return float("-inf")
        return None if self._oldest is None else self._oldest + MAX_AGE_SECONDS

    def take(self) -> list[tuple[HostRow, ...]]:
        """Everything, as batches of at most MAX_ROWS rows and about MAX_BYTES, each in ascending order of id."""
        batches: list[list[HostRow]] = []
        size = MAX_BYTES
        for row in sorted(self._rows.values(), key=lambda row: row.id):
            if size + row.size > MAX_BYTES or len(batches[-1]) == MAX_ROWS:
                batches.append([])
                size = 0
            batches[-1].append(row)
            size += row.size
        self._rows.clear()
        self._bytes, self._oldest = 0, None
        return [tuple(batch) for batch in batches]
