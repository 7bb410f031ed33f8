"""Real files; a full disk is a small tmpfs where one can be mounted, and a limit of the process everywhere."""

from __future__ import annotations

import json
import logging
import os
import random
import resource
import stat
import struct
import subprocess
import threading
import zlib
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from execute_engine import spool as module
from execute_engine.errors import SpoolError
from execute_engine.spool import Leftover, Spool, leftovers
from execute_engine.unit import HostRow

ME = "a" * 32
HEADER = f'{{"spool": 1, "incarnation": "{ME}"}}\n'.encode()


def row(number: int, stdout: str = "", attempt: int = 1, status: str = "success") -> HostRow:
    return HostRow(id=number, unit_id=1, attempt=attempt, status=status, engine="e", stdout=stdout, rc=0)


def record(values: dict[str, Any]) -> bytes:
    payload = json.dumps(values).encode()
    return struct.pack(">II", len(payload), zlib.crc32(payload)) + payload


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def spool(directory: Path) -> Spool:
    return Spool(directory, ME, limit_bytes=1 << 30)


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEGMENT_BYTES", 10_000)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An empty file system of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mounting, capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted here")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What is given to fsync, in this order."""
    paths: list[Path] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        paths.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    return paths


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def only(directory: Path) -> Leftover:
    (leftover,) = leftovers(directory)
    return leftover


def fill(spool: Spool, number: int) -> HostRow:
    """A row that makes the current file full."""
    large = row(number, "x" * module.SEGMENT_BYTES)
    spool.append([large])
    return large


def test_rows_come_back_as_they_were(spool: Spool, directory: Path) -> None:
    texts: dict[str, Any] = {one.name: f"ü\n漢\\x00{one.name}" for one in fields(HostRow) if one.default is None}
    every = replace(row(1), **texts | {"rc": -1, "stdout": ""})
    spool.append([every, row(2)])
    spool.append([])
    spool.append([row(3)])
    assert spool.pending == 3
    assert leftovers(directory) == [Leftover(directory / f"{ME}-00000001.spool", ME, [every, row(2), row(3)], 0)]


def test_the_file_is_what_its_description_says(spool: Spool, directory: Path) -> None:
    spool.append([row(1, "ü")])
    data = (directory / f"{ME}-00000001.spool").read_bytes()
    assert len(data) == spool.size_bytes
    assert data.startswith(HEADER)
    length, checksum = struct.unpack_from(">II", data, len(HEADER))
    payload = data[len(HEADER) + 8 :]
    assert (len(payload), zlib.crc32(payload)) == (length, checksum)
    assert "ü".encode() in payload
    assert json.loads(payload.decode()) == vars(row(1, "ü"))


def test_only_its_user_reads_it_and_nothing_is_written_before_the_first_row(directory: Path) -> None:
    directory.mkdir(mode=0o755)
    former = os.umask(0)
    try:
        spool = Spool(directory, ME, limit_bytes=1)
        spool.append([])
        spool.sync()
        assert files(directory) == []
        spool.append([row(1)])
    finally:
        os.umask(former)
    (path,) = directory.iterdir()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_full_file_is_followed_by_another(spool: Spool, directory: Path) -> None:
    rows = [fill(spool, 1), fill(spool, 2), row(3), row(4)]
    spool.append([rows[2]])
    spool.append([rows[3]])
    assert files(directory) == [f"{ME}-{number:08}.spool" for number in (1, 2, 3)]
    assert [one for leftover in leftovers(directory) for one in leftover.rows] == rows


@pytest.mark.usefixtures("small_segments")
def test_stored_rows_free_their_files_in_any_order(directory: Path) -> None:
    for seed in range(20):
        spool = Spool(directory, f"{seed}", limit_bytes=1 << 30)
        rows = [fill(spool, number) for number in (1, 2)]
        for number in range(3, 9):
            spool.append([row(number), row(number, attempt=2)])
            rows += [row(number), row(number, attempt=2)]
        random.Random(seed).shuffle(rows)
        while rows:
            assert spool.pending == len(rows)
            last = [rows.pop() for _ in range(min(len(rows), 3))]
            spool.stored(last)
            kept = [(one.id, one.attempt) for leftover in leftovers(directory) for one in leftover.rows]
            assert {(one.id, one.attempt) for one in rows} <= set(kept)
            assert len(files(directory)) == len({min(one.id, 3) for one in rows})
        assert spool.pending == spool.size_bytes == 0
        assert files(directory) == []


def test_what_was_not_appended_frees_nothing(spool: Spool, directory: Path) -> None:
    spool.append([row(1, attempt=2)])
    spool.stored([row(1), row(2)])
    spool.stored([row(1, attempt=2, status="running")])  # was on its way when the result came
    spool.stored([])
    assert spool.pending == 1
    assert only(directory).rows == [row(1, attempt=2)]


def test_a_row_that_is_here_twice_is_stored_once(spool: Spool, directory: Path) -> None:
    first = fill(spool, 1)
    spool.append([first])
    spool.append([row(2), row(2)])
    spool.stored([first, row(2)])
    assert spool.pending == 0
    assert files(directory) == []


def test_it_goes_on_after_everything_was_stored(spool: Spool, directory: Path) -> None:
    for number in (1, 2):
        spool.append([row(number)])
        spool.stored([row(number)])
    spool.append([row(3)])
    assert only(directory).path.name == f"{ME}-00000003.spool"
    assert only(directory).rows == [row(3)]


def test_a_file_that_cannot_be_deleted_is_told_and_left(
    spool: Spool, directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    spool.append([row(1)])
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        spool.stored([row(1)])
    assert "a spool file cannot be deleted" in caplog.text
    assert spool.pending == spool.size_bytes == 0
    spool.append([row(2)])
    assert [leftover.rows for leftover in leftovers(directory)] == [[row(1)], [row(2)]]


def test_a_file_that_is_gone_already_is_no_error(
    spool: Spool, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool.append([row(1)])
    only(directory).path.unlink()
    spool.stored([row(1)])
    assert spool.pending == 0
    assert not caplog.records


def test_full_is_a_matter_of_bytes(directory: Path) -> None:
    spool = Spool(directory, ME, limit_bytes=1000)
    assert not spool.full
    spool.append([row(1)])
    assert not spool.full
    assert Spool(directory, "b" * 32, limit_bytes=0).full
    spool.append([row(2, "x" * 1000)])
    assert spool.full
    spool.append([row(3)])  # is not refused
    assert spool.size_bytes == sum(path.stat().st_size for path in directory.iterdir())
    spool.stored([row(number) for number in (1, 2, 3)])
    assert not spool.full


def test_a_file_cut_at_any_byte_gives_its_whole_records(
    spool: Spool, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ends = [len(HEADER)]
    for number in (1, 2, 3):
        spool.append([row(number)])
        ends.append(spool.size_bytes)
    (path,) = directory.iterdir()
    data = path.read_bytes()
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        caplog.clear()
        leftover = only(directory)
        whole = sum(end <= length for end in ends[1:])
        assert leftover.rows == [row(number + 1) for number in range(whole)]
        assert leftover.torn_bytes == length - max((end for end in ends if end <= length), default=0)
        assert [one.__dict__["bytes"] for one in caplog.records] == [leftover.torn_bytes] * bool(leftover.torn_bytes)
        assert all(one.levelno == logging.WARNING for one in caplog.records)


def test_a_file_whose_end_reads_as_zeros_gives_its_whole_records(spool: Spool, directory: Path) -> None:
    """As after a power cut: the length was written, the content was not."""
    spool.append([row(1)])
    (path,) = directory.iterdir()
    data = path.read_bytes()
    for whole in (0, 1, len(HEADER) - 1, len(HEADER), len(data) - 1, len(data)):
        path.write_bytes(data[:whole] + bytes(5000))
        assert only(directory).rows == [row(1)] * (whole == len(data))
        kept = {len(HEADER): len(HEADER), len(data): len(data), len(data) - 1: len(HEADER)}.get(whole, 0)
        assert only(directory).torn_bytes == whole + 5000 - kept


def test_a_flipped_byte_costs_its_record_and_makes_none_up(spool: Spool, directory: Path) -> None:
    spool.append([row(1)])
    start = spool.size_bytes
    spool.append([row(2)])
    end = spool.size_bytes
    spool.append([row(3)])
    (path,) = directory.iterdir()
    data = path.read_bytes()
    for at in range(start, end):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
        leftover = only(directory)
        # With another length it is not known where the next record begins.
        assert leftover.rows == ([row(1)] if at < start + 4 else [row(1), row(3)])
        assert leftover.torn_bytes == (len(data) - start if at < start + 4 else end - start)


def test_a_full_disk_costs_no_row_that_was_appended(small_disk: Path) -> None:
    directory = small_disk / "spool"
    spool = Spool(directory, ME, limit_bytes=1 << 30)
    kept: list[HostRow] = []

    def append_until_refused() -> None:
        for number in range(100):
            spool.append([row(number, "x" * 3000)])
            kept.append(row(number, "x" * 3000))

    with pytest.raises(SpoolError, match=r"append \d+ bytes to .*, found: .*: see to the room"):
        append_until_refused()
    assert kept
    assert spool.pending == len(kept)
    assert only(directory).rows == kept
    assert only(directory).torn_bytes == 0
    with pytest.raises(SpoolError, match="append"):
        spool.append([row(1000, "x" * 65536)])
    assert spool.size_bytes == sum(path.stat().st_size for path in directory.iterdir())
    assert len(files(directory)) == 1
    spool.stored(kept)
    spool.append([row(1000)])
    assert only(directory).rows == [row(1000)]


def test_a_write_that_the_kernel_cuts_short_is_undone(spool: Spool, directory: Path) -> None:
    spool.append([row(1)])
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (spool.size_bytes + 100, former[1]))
    try:
        with pytest.raises(SpoolError, match="only 100 of them were taken"):
            spool.append([row(2), row(3)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
    assert spool.pending == 1
    assert only(directory).torn_bytes == 0
    spool.append([row(2), row(3)])
    assert [leftover.rows for leftover in leftovers(directory)] == [[row(1)], [row(2), row(3)]]


def test_a_torn_record_that_stays_hides_no_later_one(
    spool: Spool, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write

    def write_half(descriptor: int, data: bytes) -> int:
        return write(descriptor, data[: len(data) // 2])

    def refuse(descriptor: int, length: int) -> None:
        raise OSError(5, "Input/output error")

    spool.append([row(1)])
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write_half)
        patch.setattr(os, "ftruncate", refuse)
        with pytest.raises(SpoolError):
            spool.append([row(2)])
    spool.append([row(3)])
    first, second = leftovers(directory)
    assert (first.rows, second.rows) == ([row(1)], [row(3)])
    assert first.torn_bytes > 0
    spool.stored([row(3), row(1)])
    assert files(directory) == []


def test_a_failed_first_write_leaves_no_file(spool: Spool, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", refuse)
        with pytest.raises(SpoolError, match="found: No space left on device"):
            spool.append([row(1)])
    assert files(directory) == []
    assert spool.pending == spool.size_bytes == 0
    spool.append([row(1)])
    assert only(directory).rows == [row(1)]


def test_a_file_of_the_same_name_is_not_touched(spool: Spool, directory: Path) -> None:
    theirs = directory / f"{ME}-00000001.spool"
    theirs.write_bytes(b"theirs")
    with pytest.raises(SpoolError, match="File exists"):
        spool.append([row(1)])
    spool.append([row(1)])
    assert theirs.read_bytes() == b"theirs"


def test_a_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("")
    with pytest.raises(SpoolError, match=r"expected to make .*/spool, found: File exists: see to"):
        Spool(tmp_path / "spool", ME, limit_bytes=1)


def test_a_sync_writes_what_is_new_and_only_that(spool: Spool, directory: Path, synced: list[Path]) -> None:
    first, second = (directory / f"{ME}-0000000{number}.spool" for number in (1, 2))
    spool.append([row(1)])
    assert synced == []
    spool.sync()
    assert {first, directory, directory.parent} == set(synced)
    synced.clear()
    spool.sync()
    assert synced == []
    spool.append([row(2)])
    spool.sync()
    assert synced == [first]
    synced.clear()
    fill(spool, 3)
    spool.append([row(4)])
    spool.sync()
    assert sorted(synced) == [directory, first, second]


def test_a_failed_sync_is_tried_again(
    spool: Spool, directory: Path, synced: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    spool.append([row(1)])
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(SpoolError, match=r"expected to fsync .*, found: Input/output error"):
            spool.sync()
    assert synced == []
    spool.sync()
    assert directory / f"{ME}-00000001.spool" in synced


def test_what_is_stored_during_a_sync_needs_none(
    spool: Spool, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool.append([fill(spool, 1), row(2)])
    monkeypatch.setattr(os, "fsync", lambda descriptor: spool.stored([row(1), row(2)]))
    spool.sync()
    assert files(directory) == []


def test_while_one_syncs_rows_are_appended_and_others_wait(
    spool: Spool, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool.append([row(1)])
    spool.sync()
    begun, go_on = threading.Event(), threading.Event()
    calls: list[int] = []

    def slow(descriptor: int) -> None:
        calls.append(descriptor)
        begun.set()
        assert go_on.wait(10)

    monkeypatch.setattr(os, "fsync", slow)
    spool.append([row(2)])
    one, two = threading.Thread(target=spool.sync), threading.Thread(target=spool.sync)
    one.start()
    assert begun.wait(10)
    two.start()
    spool.append([row(3)])  # does not wait for the disk
    spool.stored([row(1)])
    two.join(0.1)
    assert two.is_alive()  # row 2 is not on the disk yet
    go_on.set()
    one.join(10)
    two.join(10)
    assert not one.is_alive()
    assert not two.is_alive()
    assert len(calls) == 2  # the second one is for row 3
    spool.sync()
    assert len(calls) == 2


def test_syncs_of_many_threads_and_the_user_do_not_disturb_each_other(spool: Spool, directory: Path) -> None:
    over = threading.Event()
    errors: list[BaseException] = []

    def sync() -> None:
        try:
            while not over.is_set():
                spool.sync()
        except BaseException as exc:
            errors.append(exc)
            raise

    threads = [threading.Thread(target=sync) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(300):
        spool.append([row(2 * number), row(2 * number + 1)])
        if number % 3 == 2:
            spool.stored([row(one) for one in range(2 * number + 1)])
    over.set()
    for thread in threads:
        thread.join(30)
    assert errors == []
    assert spool.pending == 1
    assert row(599) in only(directory).rows


@pytest.mark.usefixtures("small_segments")
def test_leftovers_come_in_the_order_of_their_writing(directory: Path) -> None:
    for age, incarnation in ((1, "b"), (3, "a"), (2, "c")):
        spool = Spool(directory, incarnation, limit_bytes=1)
        for number in (1, 2):
            fill(spool, number)
        for path in directory.glob(f"{incarnation}-*"):
            os.utime(path, (1e9 - age, 1e9 - age))
    found = [(leftover.incarnation, leftover.rows[0].id) for leftover in leftovers(directory)]
    assert found == [("a", 1), ("a", 2), ("c", 1), ("c", 2), ("b", 1), ("b", 2)]
    for leftover in leftovers(directory):
        leftover.discard()
        leftover.discard()  # is no error
    assert leftovers(directory) == []


def test_no_directory_and_other_files_are_no_leftovers(directory: Path) -> None:
    assert leftovers(directory) == []
    directory.mkdir()
    (directory / f"{ME}-00000001.spool.aside").write_bytes(b"theirs")
    assert leftovers(directory) == []


@pytest.mark.parametrize(
    ("name", "data", "found"),
    [
        (f"{ME}-00000001.spool", HEADER.replace(b": 1,", b": 2,"), "found version 2"),
        (f"{ME}-00000001.spool", HEADER.replace(b": 1,", b": 0,"), "found version 0"),
        (f"{ME}-00000001.spool", b'{"spool": 3}\nanything', "found version 3"),
        (f"{ME}-00000001.spool", b"[]\n", "found no spool"),
        (f"{ME}-00000001.spool", b'{"spoon": 1}\n', "found no spool"),
        (f"{ME}-00000001.spool", b"\xff\n", "found no spool"),
        (f"{ME}-00000001.spool", b"text without a line's end", "found no spool"),
        (f"{ME}-00000001.spool", bytes(10) + HEADER, "found no spool"),
        ("notes.spool", b"", "found another name"),
        (f"{ME}-00000001.spool", HEADER + record({**vars(row(1)), "colour": 1}), "'colour'"),
        (f"{ME}-00000001.spool", HEADER + record({"id": 1}), "'unit_id'"),
    ],
)
def test_what_another_version_wrote_is_refused(directory: Path, name: str, data: bytes, found: str) -> None:
    directory.mkdir()
    (directory / name).write_bytes(data)
    with pytest.raises(SpoolError) as caught:
        leftovers(directory)
    text = str(caught.value)
    assert text.startswith(f"{directory / name}: expected a spool of version 1, found ")
    assert found in text
    assert text.endswith(": start the execute-engine that wrote it, or move the file away")
    assert (directory / name).read_bytes() == data


def test_fields_that_an_older_program_did_not_know_have_their_defaults(directory: Path) -> None:
    directory.mkdir()
    values = {"id": 1, "unit_id": 2, "attempt": 3, "status": "failed", "engine": "e"}
    (directory / f"{ME}-00000001.spool").write_bytes(HEADER + record(values))
    assert only(directory).rows == [HostRow(id=1, unit_id=2, attempt=3, status="failed", engine="e")]


def test_what_cannot_be_read_is_an_error(directory: Path) -> None:
    directory.mkdir()
    (directory / f"{ME}-00000001.spool").symlink_to("nowhere")
    with pytest.raises(SpoolError, match=r"expected to read .* No such file or directory"):
        leftovers(directory)
    with pytest.raises(SpoolError, match=r"expected to read .* Not a directory"):
        leftovers(Path(module.__file__))
