"""Which published units were told to Kafka, and which have to be told (again). No I/O, no clock.

A unit is published in the database before its message is sent, so the message may be missing: we died in between, or
the send failed. And it may be of no use: its partition's engine hangs, or the topic was deleted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from contract.message import UnitMessage

RESEND_SECONDS = 30.0


class Outbox:
    """Moments are monotonic."""

    def __init__(self) -> None:
        self._on_their_way: set[int] = set()
        self._sent_at: dict[int, float] = {}

    @property
    def on_their_way(self) -> int:
        return len(self._on_their_way)

    def given(self, messages: Iterable[UnitMessage]) -> None:
        """They were handed to the publisher."""
        for message in messages:
            self._on_their_way.add(message.unit_id)
            self._sent_at.pop(message.unit_id, None)

    def ended(self, unit_id: int, is_sent: bool, moment: float) -> None:
        """The publisher has said how one of them went; a failed one is due at once."""
        self._on_their_way.discard(unit_id)
        if is_sent:
            self._sent_at[unit_id] = moment

    def due(
        self, published: Sequence[UnitMessage], free_slots: Sequence[tuple[int, int]], moment: float
    ) -> list[UnitMessage]:
        """Of all units that are published and not claimed, those to send now.

        Those that we know of no message for; and those sent RESEND_SECONDS ago though an engine has room for them.
        When all are busy a unit waits for its turn, and more messages would only pile up. free_slots: of each live
        engine, free slots and slots.
        """
        still = {message.unit_id for message in published}
        self._sent_at = {unit_id: at for unit_id, at in self._sent_at.items() if unit_id in still}
        # A free engine takes a unit of any size.
        room = max((1_000_000 if free >= slots else free for free, slots in free_slots), default=0)
        return [
            message
            for message in published
            if message.unit_id not in self._on_their_way and self._is_due(message, room, moment)
        ]

    def _is_due(self, message: UnitMessage, room: int, moment: float) -> bool:
        sent_at = self._sent_at.get(message.unit_id)
        return sent_at is None or (message.hosts <= room and moment - sent_at >= RESEND_SECONDS)
