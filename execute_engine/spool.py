"""Results on disk until the database has them: they outlive this process, and an outage of the database.

A file is `<incarnation>-<8 digits>.spool`: one line of JSON that names the version and the incarnation, then records.
A record is the payload's length and its CRC32 (4 bytes each, big-endian), and the payload: a HostRow as JSON in UTF-8.
What is stored may be found here again after a crash: whoever replays a file stores some of its rows a second time.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import struct
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from contract.states import FINAL_STATUSES
from execute_engine.errors import SpoolError
from execute_engine.unit import HostRow

VERSION = 1
SEGMENT_BYTES = 4 << 20  # a file that has reached so much gets no more
PROBE_BYTES = 1 << 20
_NAME = re.compile(r"(.+)-\d{8}\.spool")
_PREFIX = struct.Struct(">II")

log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Segment:
    """One file: its whole records end at size (bytes); pending are the (id, attempt) of rows that are not stored."""

    path: Path
    size: int = 0
    pending: set[tuple[int, int]] = field(default_factory=set)


class Spool:
    """The files of one incarnation. One thread uses it; sync() alone may be called from any other at the same time."""

    def __init__(self, directory: Path, incarnation: str, limit_bytes: int) -> None:
        """Makes the directory, for its user only. Raises SpoolError."""
        self._directory = directory
        self._incarnation = incarnation
        self._limit_bytes = limit_bytes
        self._begun = 0
        self._segments: list[_Segment] = []
        self._current: _Segment | None = None
        self._syncing = Lock()  # held while the disk works
        self._lock = Lock()  # held for moments: append() must not wait for the disk
        self._unsynced = {directory.parent}
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.chmod(0o700)
        except OSError as exc:
            raise _refused("make", directory, exc) from exc

    @property
    def pending(self) -> int:
        """Rows that are appended and not stored."""
        return sum(len(segment.pending) for segment in self._segments)

    @property
    def size_bytes(self) -> int:
        """Of this incarnation's files; those of former ones do not count."""
        return sum(segment.size for segment in self._segments)

    @property
    def full(self) -> bool:
        """Nothing more should be appended; append() itself does not refuse."""
        return self.size_bytes >= self._limit_bytes

    def append(self, rows: Sequence[HostRow]) -> None:
        """Final rows, in one write: when it returns they outlive this process, after a sync() the machine too.

        Raises SpoolError when none of them is sure to be kept; the next call begins a new file.
        """
        if not rows:
            return
        segment, self._current = self._current, None  # None after a failure: a torn record hides what follows it
        if segment is None:
            self._begun += 1
            segment = _Segment(self._directory / f"{self._incarnation}-{self._begun:08}.spool")
        is_new = segment.size == 0
        data = (_header(self._incarnation) if is_new else b"") + b"".join(map(_record, rows))
        try:
            _write(segment, data)
        except OSError as exc:
            raise _refused(f"append {len(data)} bytes to", segment.path, exc) from exc
        segment.size += len(data)
        segment.pending.update((row.id, row.attempt) for row in rows)
        if is_new:
            self._segments.append(segment)
        if segment.size < SEGMENT_BYTES:
            self._current = segment
        with self._lock:
            self._unsynced |= {segment.path, self._directory} if is_new else {segment.path}

    def probe(self) -> None:
        """Raises SpoolError while the disk has no room for a batch of rows."""
        path = self._directory / "probe"
        try:
            path.write_bytes(bytes(PROBE_BYTES))
            path.unlink()
        except OSError as exc:
            with suppress(OSError):
                path.unlink()
            raise _refused(f"write {PROBE_BYTES} bytes to", path, exc) from exc

    def sync(self) -> None:
        """Blocks until all that was appended before is on the disk; at once when that is so already.

        Raises SpoolError. The next call tries again, but a success after it proves little: the kernel may have dropped
        what it could not write.
        """
        with self._syncing:  # of two calls at once the second must not return before the first has done its work
            with self._lock:
                paths, self._unsynced = self._unsynced, set()
            for path in paths:
                try:
                    _fsync(path)
                except FileNotFoundError:  # its rows were stored meanwhile
                    continue
                except OSError as exc:
                    with self._lock:
                        self._unsynced |= paths
                    raise _refused("fsync", path, exc) from exc

    def stored(self, rows: Sequence[HostRow]) -> None:
        """The database has these; files of which it has all rows are deleted. Rows that were not appended are ignored.

        So are rows that are not final: "running" may be stored when the same host's result already waits here.
        """
        keys = {(row.id, row.attempt) for row in rows if row.status in FINAL_STATUSES}
        for segment in tuple(self._segments):
            segment.pending -= keys
            if segment.pending:
                continue
            self._segments.remove(segment)
            if segment is self._current:
                self._current = None
            _delete(segment.path)


@dataclass(frozen=True)
class Leftover:
    """A file of a former incarnation: its rows in the order of their appending; torn_bytes could not be read."""

    path: Path
    incarnation: str
    rows: list[HostRow]
    torn_bytes: int

    def discard(self) -> None:
        """The database has its rows. A file that cannot be deleted is logged, and found again at the next start."""
        _delete(self.path)


def leftovers(directory: Path) -> list[Leftover]:
    """All files there, the one written longest ago first; all their rows are in memory then. Before any append().

    Raises SpoolError when one cannot be read, is of another version, or is no spool.
    """
    try:
        paths = [path for path in directory.iterdir() if path.suffix == ".spool"]
        paths.sort(key=lambda path: (path.lstat().st_mtime_ns, path.name))
    except FileNotFoundError:
        return []
    except OSError as exc:
        raise _refused("read", directory, exc) from exc
    return [_read(path) for path in paths]


def _read(path: Path) -> Leftover:
    name = _NAME.fullmatch(path.name)
    if name is None:
        raise _foreign(path, "another name")
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise _refused("read", path, exc) from exc
    header = _header(name[1])
    rows, torn, at = [], 0, len(header)
    written = data.rstrip(b"\0")  # after a power cut a file can have its length and not its content
    if written != header and header.startswith(written):
        torn = at = len(data)
    elif not data.startswith(header):
        raise _foreign(path, _version(data))
    while at < len(data):
        length, checksum = _PREFIX.unpack_from(data, at) if len(data) - at >= _PREFIX.size else (0, 0)
        payload = data[at + _PREFIX.size : at + _PREFIX.size + length]
        if not payload or len(payload) < length:
            torn += len(data) - at
            break
        if zlib.crc32(payload) == checksum:
            rows.append(_row(path, payload))
        else:
            torn += _PREFIX.size + length
        at += _PREFIX.size + length
    if torn:
        extra = {"path": str(path), "bytes": torn, "rows": len(rows)}
        log.warning("a part of a spool file cannot be read and is left out", extra=extra)
    return Leftover(path, name[1], rows, torn)


def _row(path: Path, payload: bytes) -> HostRow:
    try:
        return HostRow(**json.loads(payload))
    except (ValueError, TypeError) as exc:  # it is what was written, so another version wrote it
        raise _foreign(path, f"a result of another one ({exc})") from exc


def _version(data: bytes) -> str:
    line, _, _ = data.partition(b"\n")
    try:
        return f"version {json.loads(line)['spool']}"
    except (ValueError, TypeError, KeyError):
        return "no spool"


def _foreign(path: Path, found: str) -> SpoolError:
    return SpoolError(
        f"{path}: expected a spool of version {VERSION}, found {found}: start the execute-engine that wrote it, "
        f"or move the file away"
    )


def _refused(what: str, path: Path, exc: OSError) -> SpoolError:
    return SpoolError(
        f"expected to {what} {path}, found: {exc.strerror}: see to the room on its file system and to its rights"
    )


def _header(incarnation: str) -> bytes:
    return json.dumps({"spool": VERSION, "incarnation": incarnation}).encode() + b"\n"


def _record(row: HostRow) -> bytes:
    payload = json.dumps(vars(row), ensure_ascii=False, separators=(",", ":")).encode()
    return _PREFIX.pack(len(payload), zlib.crc32(payload)) + payload


def _write(segment: _Segment, data: bytes) -> None:
    """In one write; after it failed, the file ends at segment.size again, and a new one is gone. Raises OSError."""
    is_new = segment.size == 0
    flags = os.O_WRONLY | os.O_APPEND | (os.O_CREAT | os.O_EXCL if is_new else 0)
    descriptor = os.open(segment.path, flags, 0o600)
    try:
        written = os.write(descriptor, data)
        if written < len(data):
            raise OSError(errno.ENOSPC, f"only {written} of them were taken")
    except OSError:
        with suppress(OSError):
            os.ftruncate(descriptor, segment.size)
        if is_new:
            _delete(segment.path)
        raise
    finally:
        os.close(descriptor)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _delete(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as exc:
        log.warning("a spool file cannot be deleted", extra={"path": str(path), "error": str(exc)})
