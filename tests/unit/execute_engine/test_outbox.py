from __future__ import annotations

from execute_engine.outbox import MAX_AGE_SECONDS, MAX_BYTES, MAX_ROWS, Outbox
from execute_engine.unit import HostRow


def row(number: int, status: str = "success", stdout: str = "") -> HostRow:
    return HostRow(id=number, unit_id=1, attempt=1, status=status, engine="e", stdout=stdout)


def test_a_row_waits_for_others_at_most_half_a_second() -> None:
    outbox = Outbox()
    assert outbox.due_at() is None
    outbox.put(row(1), 10.0)
    outbox.put(row(2), 10.4)
    assert outbox.due_at() == 10.0 + MAX_AGE_SECONDS
    outbox.take()
    assert outbox.due_at() is None


def test_a_full_batch_is_due_at_once() -> None:
    by_rows, by_bytes = Outbox(), Outbox()
    for number in range(MAX_ROWS):
        assert by_rows.due_at() != float("-inf")
        by_rows.put(row(number), 10.0)
    by_bytes.put(row(1, stdout="x" * MAX_BYTES), 10.0)
    assert by_rows.due_at() == by_bytes.due_at() == float("-inf")


def test_batches_are_ascending_and_within_both_limits() -> None:
    outbox = Outbox()
    for number in reversed(range(2 * MAX_ROWS + 1)):
        outbox.put(row(number), 0.0)
    assert [len(batch) for batch in outbox.take()] == [MAX_ROWS, MAX_ROWS, 1]

    for number in (3, 1, 2):
        outbox.put(row(number, stdout="x" * (MAX_BYTES // 2)), 0.0)
    batches = outbox.take()
    assert [[one.id for one in batch] for batch in batches] == [[1], [2], [3]]
    assert len(outbox) == 0


def test_a_row_larger_than_a_batch_goes_alone() -> None:
    outbox = Outbox()
    outbox.put(row(1, stdout="x" * (2 * MAX_BYTES)), 0.0)
    assert [len(batch) for batch in outbox.take()] == [1]


def test_the_newer_row_of_a_host_takes_the_place_of_the_older() -> None:
    outbox = Outbox()
    outbox.put(row(1, "running", "x" * MAX_BYTES), 0.0)
    outbox.put(row(1, "success"), 0.1)
    assert outbox.due_at() == MAX_AGE_SECONDS  # the bytes of the replaced row count no more
    ((only,),) = outbox.take()
    assert only.status == "success"
