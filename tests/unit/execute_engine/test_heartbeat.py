from __future__ import annotations

from pathlib import Path

from execute_engine import progress
from execute_engine.heartbeat import Watch
from execute_engine.progress import Progress


def shown(counter: int, incarnation: str = "a") -> Progress:
    return Progress(counter, incarnation, 60, 30, 1, 30, 0, 0, 0, 1, 0)


def test_what_was_there_when_the_watch_began_proves_nothing() -> None:
    watch = Watch(10)
    watch.look(shown(5), 100.0)
    watch.look(shown(5), 101.0)
    assert not watch.moves(101.0)


def test_a_counter_that_moves_is_progress_until_the_patience_is_over() -> None:
    watch = Watch(10)
    watch.look(shown(5), 100.0)
    watch.look(shown(6), 101.0)
    assert watch.moves(111.0)
    assert not watch.moves(111.1)
    watch.look(shown(6), 112.0)
    assert not watch.moves(112.0)
    watch.look(shown(7), 113.0)
    assert watch.moves(113.0)


def test_another_incarnation_at_the_same_count_is_progress() -> None:
    watch = Watch(10)
    watch.look(shown(1, "a"), 100.0)
    watch.look(shown(1, "b"), 101.0)
    assert watch.moves(101.0)


def test_a_missing_file_is_no_progress() -> None:
    watch = Watch(10)
    watch.look(shown(1), 100.0)
    watch.look(None, 101.0)
    watch.look(shown(1), 102.0)
    assert not watch.moves(102.0)


def test_progress_is_read_as_it_was_written_and_anything_else_is_none(tmp_path: Path) -> None:
    assert progress.read(tmp_path) is None
    progress.write(tmp_path, shown(3))
    assert progress.read(tmp_path) == shown(3)
    for text in ("", "[]", "{}", "{", "null", "3"):
        (tmp_path / "progress").write_text(text)
        assert progress.read(tmp_path) is None
