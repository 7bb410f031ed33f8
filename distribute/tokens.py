"""The clients' tokens: a JSON file of names, SHA-256 sums, roles, host patterns and ends, and who may use which host.

A token is 256 random bits, so its sum needs neither salt nor stretching. Whoever can write the file is admin.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import Any

from distribute import patterns
from distribute.errors import TokensError

PREFIX = "ee_"  # so that scanners of repositories and logs know one when they see it
_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_SUM = re.compile(r"[0-9a-f]{64}")
_FIELDS = {"name", "sha256", "role", "hosts", "expires"}


class Role(IntEnum):
    """Each may do what those before it may."""

    READ = 1
    SUBMIT = 2  # and cancel and rerun its own tasks
    OPERATE = 3  # all tasks, hold and release
    ADMIN = 4  # and the audit

    def __str__(self) -> str:
        return self.name.lower()


ROLES = {str(role): role for role in Role}


@dataclass(frozen=True)
class Token:
    name: str
    sha256: str
    role: Role
    hosts: tuple[str, ...] = ()  # distribute.patterns; none: all hosts
    expires: datetime | None = None  # UTC

    def has_expired(self) -> bool:
        return self.expires is not None and self.expires <= datetime.now(UTC)


def sum_of(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()


class LiveTokens:
    """The file as it is now: read again when it was changed. For all threads of a process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: tuple[object, tuple[Token, ...]] = (None, ())  # the file as it was, and what it held

    def find(self, sha256: str) -> Token | None:
        """The token with this sum, in a time that does not depend on which it is. Raises TokensError."""
        found = None
        for token in self._current():
            if hmac.compare_digest(token.sha256, sha256):
                found = token
        return found

    def _current(self) -> tuple[Token, ...]:
        try:
            status = self._path.stat()
        except OSError as exc:
            raise _unreadable(self._path, exc) from exc
        seen = (status.st_ino, status.st_mtime_ns, status.st_size)
        known = self._known
        if seen != known[0]:
            known = self._known = (seen, read(self._path))
        return known[1]


def read(path: Path) -> tuple[Token, ...]:
    """Raises TokensError, which names every entry that is wrong."""
    try:
        with path.open("rb") as opened:
            mode = stat.S_IMODE(os.fstat(opened.fileno()).st_mode)
            text = opened.read()
    except OSError as exc:
        raise _unreadable(path, exc) from exc
    if mode & 0o022:
        raise TokensError(f"the tokens file {path} has mode {mode:04o}, expected 0600: others could let themselves in")
    try:
        entries = json.loads(text)["tokens"]
        tokens = [_token(entry, place) for place, entry in enumerate(entries)]
    except (ValueError, KeyError, TypeError) as exc:
        raise TokensError(f"the tokens file {path} cannot be read: {exc}; python -m distribute token makes it") from exc
    names = [token.name for token in tokens]
    if twice := {name for name in names if names.count(name) > 1}:
        raise TokensError(f"the tokens file {path} has more than one token named {', '.join(sorted(twice))}")
    return tuple(tokens)


def add(path: Path, name: str, role: Role, hosts: tuple[str, ...], expires: datetime | None) -> str:
    """Make a token and return it: nothing can show it again. Makes the file when it is missing. Raises TokensError."""
    if not _NAME.fullmatch(name):
        raise TokensError(f"expected a name of letters, digits and . _ @ -, found {name!r}")
    if wrong := [pattern for pattern in hosts if not patterns.is_pattern(pattern)]:
        raise TokensError(
            "expected host patterns of lower-case letters, digits, . _ - * ?, and : in those of IPv6 addresses alone,"
            f" found {', '.join(wrong)}"
        )
    with _changed(path) as tokens:
        if name in tokens:
            raise TokensError(f"there is a token named {name} already; revoke it first, or choose another name")
        made = PREFIX + secrets.token_urlsafe(32)
        tokens[name] = Token(name, sum_of(made), role, hosts, expires)
    return made


def revoke(path: Path, name: str) -> None:
    """Raises TokensError, also when there is none of this name."""
    with _changed(path) as tokens:
        if tokens.pop(name, None) is None:
            raise TokensError(f"there is no token named {name} in {path}")


@contextmanager
def _changed(path: Path) -> Iterator[dict[str, Token]]:
    """The tokens by name; what becomes of them takes the file's place in one step. One writer at a time."""
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as exc:
        raise _unreadable(path.parent, exc) from exc
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        tokens = {token.name: token for token in read(path)} if path.exists() else {}
        yield tokens
        _write(path, tokens)
        os.fsync(folder)
    finally:
        os.close(folder)


def _write(path: Path, tokens: dict[str, Token]) -> None:
    entries = [
        {
            "name": token.name,
            "sha256": token.sha256,
            "role": str(token.role),
            "hosts": list(token.hosts) or None,
            "expires": token.expires and token.expires.isoformat(timespec="seconds"),
        }
        for token in tokens.values()
    ]
    temporary = ""
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
        with os.fdopen(descriptor, "w") as opened:
            if path.exists():
                status = path.stat()
                os.fchown(descriptor, status.st_uid, status.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
            elif os.geteuid() == 0:  # in the services' folder it is theirs to read
                folder = path.parent.stat()
                os.fchown(descriptor, folder.st_uid, folder.st_gid)
            json.dump({"tokens": entries}, opened, indent=2)
            opened.write("\n")
            opened.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except OSError as exc:
        with suppress(OSError):
            os.unlink(temporary)
        raise TokensError(f"the tokens file {path} cannot be written: {exc.strerror}") from exc


def _token(entry: Any, place: int) -> Token:
    if not isinstance(entry, dict) or entry.keys() - _FIELDS or not {"name", "sha256", "role"} <= entry.keys():
        raise ValueError(f"tokens[{place}]: expected an object with name, sha256, role and maybe hosts and expires")
    name, hosts, expires = entry["name"], entry.get("hosts"), entry.get("expires")
    role = ROLES.get(entry["role"]) if isinstance(entry["role"], str) else None
    problems = {
        "name": isinstance(name, str) and _NAME.fullmatch(name),
        "sha256": isinstance(entry["sha256"], str) and _SUM.fullmatch(entry["sha256"]),
        "role": role,
        "hosts (expected a list of patterns, or null for all hosts)": hosts is None or _are_patterns(hosts),
    }
    if wrong := [field for field, is_right in problems.items() if not is_right]:
        raise ValueError(f"tokens[{place}]: wrong {', '.join(wrong)}")
    assert role is not None
    return Token(name, entry["sha256"], role, tuple(hosts or ()), None if expires is None else _moment(expires, place))


def _are_patterns(hosts: Any) -> bool:
    """At least one: nothing that is empty by mistake may mean all hosts."""
    return isinstance(hosts, list) and bool(hosts) and all(isinstance(x, str) and patterns.is_pattern(x) for x in hosts)


def _moment(text: str, place: int) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"tokens[{place}]: expires has no time zone")
    return moment


def _unreadable(path: Path, exc: OSError) -> TokensError:
    return TokensError(f"the tokens file {path} cannot be read: {exc.strerror}")
