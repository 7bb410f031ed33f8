"""Which unit an engine asks for next, and when. No I/O, no clock."""

from __future__ import annotations

from dataclasses import dataclass

from execute_engine.slots import Room
from execute_engine.subscription import Delivery

QUIET_SECONDS = 0.2  # Kafka has given nothing for so long, or there was nothing in the database: look there (again)
FED_SECONDS = 3.0  # the same when units come by Kafka: the database has only what others have no room for


@dataclass(frozen=True)
class Search:
    """Claim the unit of this message, or the oldest published one when there is no message."""

    delivery: Delivery | None


class Claims:
    """One search at a time. Moments are monotonic.

    A message that found no room is kept and tried again, and nothing else is claimed before it: else small units would
    keep a large one waiting for ever. Another engine with more room may take its unit meanwhile.
    """

    def __init__(self, has_kafka: bool) -> None:
        self._has_kafka = has_kafka
        self._delivery: Delivery | None = None
        self._search: Search | None = None
        self._not_before = float("-inf")
        self._free_without_room: int | None = None  # the slots that were too few for what was found

    @property
    def wants_message(self) -> bool:
        return self._delivery is None

    @property
    def searching(self) -> bool:
        return self._search is not None

    def message(self, delivery: Delivery) -> None:
        self._delivery = delivery
        self._not_before = float("-inf")

    def due_at(self, room: Room) -> float | None:
        """When next() has something to ask for; None while a search is under way or there is no room at all."""
        if self._search is not None or not room.any:
            return None
        if self._free_without_room is not None and room.free_slots > self._free_without_room:
            return float("-inf")
        return self._not_before

    def next(self, room: Room, moment: float) -> Search | None:
        """What to ask the database for now; one of found(), nothing() and no_room() must follow."""
        due_at = self.due_at(room)
        if due_at is None or moment < due_at:
            return None
        self._search = Search(self._delivery)
        self._free_without_room = room.free_slots
        return self._search

    def found(self, moment: float, *, fed: bool) -> Delivery | None:
        """The search brought a unit; returns the message that is done with, if it was for one. fed: as in nothing()."""
        if not self._has_kafka:
            return self._done(moment)
        told = self._search is not None and self._search.delivery is not None
        # The next message may be on its way. Who has just found what others have no room for looks for more of it.
        return self._done(moment + (FED_SECONDS if fed and told else QUIET_SECONDS))

    def nothing(self, moment: float, *, fed: bool) -> Delivery | None:
        """There is nothing, or the message's unit is not to be had: that message is done with too.

        fed: this engine has its share of Kafka's partitions, so a unit is found without a look.
        """
        return self._done(moment + (FED_SECONDS if fed else QUIET_SECONDS))

    def no_room(self, moment: float) -> None:
        """What was found is too large for now, and tried again when a slot becomes free."""
        self._search = None
        self._not_before = moment + QUIET_SECONDS

    def _done(self, not_before: float) -> Delivery | None:
        done = self._search.delivery if self._search else None
        self._search = self._free_without_room = None
        if done is not None:
            self._delivery = None
        self._not_before = not_before if self._delivery is None else float("-inf")
        return done
