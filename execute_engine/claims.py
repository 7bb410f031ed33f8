"""Which unit an engine asks for next, and when. No I/O, no clock."""

from __future__ import annotations

from dataclasses import dataclass

from execute_engine.slots import Room
from execute_engine.subscription import Delivery

QUIET_SECONDS = 0.2  # Kafka has given nothing for so long, or there was nothing in the database: look there (again)
FED_SECONDS = 2.0  # the same when units come by Kafka: the database has only what others have no room for
TAKEN_SECONDS = 1.0  # what had no room may be another engine's by then


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
        self._after_a_look = QUIET_SECONDS if has_kafka else 0.0  # that found something: messages go first
        self._delivery: Delivery | None = None
        self._search: Search | None = None
        self._message_at = float("-inf")  # when the message is looked up
        # When the database is looked at without one. No message puts that off: what others have no room for would
        # wait for as long as messages come.
        self._look_at = float("-inf")
        self._unit_hosts = 1  # of the last unit that was found
        self._is_full = False  # there is no room for another such unit
        self._left_seconds = QUIET_SECONDS  # after the next look that leaves units to others; doubled by each
        self._too_large: int | None = None  # the hosts of what had no room

    @property
    def wants_message(self) -> bool:
        return self._delivery is None

    @property
    def searching(self) -> bool:
        return self._search is not None

    def message(self, delivery: Delivery) -> None:
        self._delivery = delivery
        self._message_at = float("-inf")

    def due_at(self, room: Room) -> float | None:
        """When next() has something to ask for; None while a search is under way or there is no room at all."""
        if self._search is not None or not room.any:
            return None
        if self._too_large is not None and room.fits(self._too_large):
            return float("-inf")
        return self._look_at if self._delivery is None else self._message_at

    def next(self, room: Room, moment: float) -> Search | None:
        """What to ask the database for now; one of found(), nothing(), left() and no_room() must follow."""
        was_full, self._is_full = self._is_full, not room.fits(self._unit_hosts)
        if was_full and not self._is_full:
            self._room_again(moment)
        due_at = self.due_at(room)
        if due_at is None or moment < due_at:
            return None
        self._search = Search(self._delivery)
        return self._search

    def _room_again(self, moment: float) -> None:
        """Others may have had too much meanwhile. With a message at hand there is enough to do."""
        self._left_seconds = QUIET_SECONDS
        if self._delivery is None and self._search is None:
            self._look_at = min(self._look_at, moment + QUIET_SECONDS)

    def found(self, moment: float, hosts: int, *, fed: bool) -> Delivery | None:
        """The search brought a unit; returns the message that is done with, if it was for one. fed: as in nothing()."""
        self._unit_hosts = hosts
        return self._done(moment, self._after_a_look, fed)

    def nothing(self, moment: float, *, fed: bool) -> Delivery | None:
        """There is nothing, or the message's unit is not to be had: that message is done with too.

        fed: this engine has its share of Kafka's partitions, so a unit is found without a look.
        """
        self._left_seconds = QUIET_SECONDS
        return self._done(moment, FED_SECONDS if fed else QUIET_SECONDS, fed)

    def left(self, moment: float) -> None:
        """The look found units, and left them to the engines that Kafka has them for: are they still there soon?"""
        self._done(moment, self._left_seconds, fed=True)
        self._left_seconds = min(2 * self._left_seconds, FED_SECONDS)

    def no_room(self, moment: float, hosts: int) -> None:
        """What was found, of so many hosts, is too large for now, and tried again when there is room for it.

        Or after a while: another engine may have taken it.
        """
        self._search, self._too_large = None, hosts
        self._message_at = self._look_at = moment + TAKEN_SECONDS

    def _done(self, moment: float, pause_seconds: float, fed: bool) -> Delivery | None:
        done = self._search.delivery if self._search else None
        self._search = self._too_large = None
        if done is None:
            self._look_at = moment + pause_seconds
        else:
            self._delivery = None
            if not fed:
                self._look_at = moment + QUIET_SECONDS  # the next message may be on its way
        return done
