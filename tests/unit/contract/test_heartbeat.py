from __future__ import annotations

from pathlib import Path

from contract.heartbeat import Debt, Watch


def test_what_was_there_when_the_watch_began_proves_nothing() -> None:
    watch = Watch(10)
    watch.look(("a", 5), 100.0)
    watch.look(("a", 5), 101.0)
    assert watch.moves(110.0) is None
    assert watch.moves(110.1) is False


def test_a_counter_that_moves_is_progress_until_the_patience_is_over() -> None:
    watch = Watch(10)
    watch.look(("a", 5), 100.0)
    watch.look(("a", 6), 101.0)
    assert watch.moves(111.0) is True
    assert watch.moves(111.1) is False
    watch.look(("a", 6), 112.0)
    assert watch.moves(112.0) is False
    watch.look(("a", 7), 113.0)
    assert watch.moves(113.0) is True


def test_another_incarnation_at_the_same_count_is_progress() -> None:
    watch = Watch(10)
    watch.look(("a", 1), 100.0)
    watch.look(("b", 1), 101.0)
    assert watch.moves(101.0) is True


def test_nothing_to_see_is_no_progress() -> None:
    watch = Watch(10)
    watch.look(None, 100.0)
    watch.look(("a", 1), 101.0)
    watch.look(None, 102.0)
    watch.look(("a", 1), 103.0)
    assert watch.moves(103.0) is None
    assert watch.moves(111.0) is False


def test_what_was_not_taken_is_owed_with_what_came_since(tmp_path: Path) -> None:
    debt = Debt(tmp_path / "file")
    debt.look("a", {"done": 5, "failed": 1})
    assert debt.values() == {"done": 5, "failed": 1}
    debt.look("a", {"done": 7, "failed": 1})
    debt.paid({"done": 5, "ping": 1})  # it was on its way meanwhile, and "failed" was refused
    assert debt.values() == {"done": 2, "failed": 1}


def test_a_new_run_counts_from_0_and_what_the_former_one_owes_is_not_lost(tmp_path: Path) -> None:
    debt = Debt(tmp_path / "file")
    debt.look("a", {"done": 5})
    debt.look("b", {"done": 3})
    debt.look("b", {"done": 4})
    assert debt.values() == {"done": 9}


def test_the_debt_outlives_the_heartbeat(tmp_path: Path) -> None:
    debt = Debt(tmp_path / "file")
    debt.look("a", {"done": 5})
    debt.paid({"done": 5})
    debt.look("a", {"done": 6})  # lost from memory, and still to be read where the totals are
    again = Debt(tmp_path / "file")
    again.look("a", {"done": 8})
    assert again.values() == {"done": 3}


def test_a_file_that_is_none_of_ours_is_none(tmp_path: Path) -> None:
    for text in ("", "[]", "{", "null", '{"run": 1}', '{"run": "a", "seen": [], "owed": {}}'):
        (tmp_path / "file").write_text(text)
        debt = Debt(tmp_path / "file")
        debt.look("a", {"done": 2})
        assert debt.values() == {"done": 2}
