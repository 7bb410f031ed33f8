"""Which engines are dead: those whose beat stood still before our own eyes for a whole lease."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from distribute.engine_watch import EngineWatch
from distribute.store.dispatch import LiveEngine

LEASE = 30.0
LOOK = 2.0
LONGEST_GAP = 5.0


def engine(beat: int, incarnation: str = "a") -> LiveEngine:
    return LiveEngine(incarnation, "engine-1", "host", beat)


@dataclass
class Observer:
    """Looks every LOOK seconds."""

    watch: EngineWatch = field(default_factory=lambda: EngineWatch(LEASE, LONGEST_GAP))
    moment: float = 1000.0

    def look(self, *engines: LiveEngine, answer_seconds: float = 0.0) -> list[LiveEngine]:
        asked_at = self.moment
        self.moment += answer_seconds
        over = self.watch.expired(engines, asked_at, self.moment)
        self.moment += LOOK
        return over

    def seconds_until_dead(self, engines: Sequence[LiveEngine]) -> float:
        started = self.moment
        while not self.look(*engines):
            assert self.moment - started < 10 * LEASE
        return self.moment - LOOK - started


def test_an_engine_is_dead_when_the_same_beat_was_seen_for_a_lease_and_not_before() -> None:
    still = engine(5)
    observer = Observer()
    observer.look(engine(4))
    assert observer.seconds_until_dead([still]) == LEASE


def test_an_engine_that_beats_lives() -> None:
    observer = Observer()
    assert not any(observer.look(engine(beat)) for beat in range(200))
    slow = Observer()
    assert not any(slow.look(engine(beat // 14)) for beat in range(200))  # once in 28 s


def test_a_beat_that_goes_back_is_another_beat() -> None:
    observer = Observer()
    assert not any(observer.look(engine(number // 10 % 2)) for number in range(200))


def test_each_incarnation_is_watched_for_itself() -> None:
    observer = Observer()
    seen: list[LiveEngine] = []
    for beat in range(16):
        seen += observer.look(engine(7, "dead"), engine(beat, "live"), engine(beat, "other"))
    assert seen == [engine(7, "dead")]


def test_a_new_watch_sees_nobody_dead_at_once() -> None:
    observer = Observer(moment=0.0)
    assert observer.look(engine(0)) == []
    assert observer.seconds_until_dead([engine(0)]) == LEASE - LOOK


def test_a_gap_in_our_looking_starts_every_wait_again() -> None:
    """We were paused, or the machine was: nobody can say what an engine did meanwhile."""
    observer = Observer()
    for _ in range(10):
        assert observer.look(engine(5)) == []
    observer.moment += LEASE
    assert observer.seconds_until_dead([engine(5)]) == LEASE


def test_a_slow_answer_of_the_database_starts_every_wait_again() -> None:
    observer = Observer()
    for _ in range(10):
        assert observer.look(engine(5)) == []
    assert observer.look(engine(5), answer_seconds=LEASE) == []
    assert observer.seconds_until_dead([engine(5)]) >= LEASE - LOOK


def test_the_lease_is_counted_from_the_answer_to_the_question() -> None:
    """The row may have been read at any moment between the two."""
    observer = Observer()
    began = observer.moment
    while not observer.look(engine(5), answer_seconds=1.0):
        pass
    asked_at = observer.moment - LOOK - 1.0
    assert asked_at - (began + 1.0) >= LEASE


def test_after_the_database_was_away_every_wait_starts_again() -> None:
    observer = Observer()
    for _ in range(14):
        assert observer.look(engine(5)) == []
    observer.watch.forget()
    assert observer.seconds_until_dead([engine(5)]) == LEASE


def test_an_engine_that_was_not_shown_for_a_look_is_a_new_one() -> None:
    observer = Observer()
    for _ in range(14):
        assert observer.look(engine(5)) == []
    observer.look()
    assert observer.seconds_until_dead([engine(5)]) == LEASE


def test_a_dead_engine_is_told_again_until_it_is_not_shown_any_more() -> None:
    observer = Observer()
    observer.seconds_until_dead([engine(5)])
    assert observer.look(engine(5)) == [engine(5)]
    assert observer.look(engine(6)) == []
