"""Reads [section] / KEY = value files, keeping the line of everything, and reports what it cannot read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, order=True)
class Where:
    source: str  # a file, or the name of an environment variable
    line: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


@dataclass(frozen=True, order=True)
class Problem:
    """Sorted, problems stand in the order of the lines."""

    where: Where
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


@dataclass(frozen=True)
class Entry:
    key: str  # upper case: keys are the same in any case
    value: str
    where: Where


@dataclass(frozen=True)
class Block:
    """A section as it stands in the file; a name may come twice."""

    name: str
    where: Where
    entries: list[Entry]


def read(path: Path, problems: list[Problem]) -> list[Block]:
    """The blocks in their order; whatever is none of section, entry, comment or blank is added to the problems.

    No interpolation, no inline comments (passwords have % and #), no values of several lines. Entries under a header
    that cannot be read are left out.
    """
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except OSError as exc:
        problems.append(Problem(Where(str(path)), f"cannot be read: {exc.strerror}"))
        return []
    except UnicodeDecodeError as exc:
        text = f"expected UTF-8 text, found another byte at position {exc.start}"
        problems.append(Problem(Where(str(path)), text))
        return []
    blocks: list[Block] = []
    entries: list[Entry] = []  # of the current block; before the first they go nowhere
    for number, line in enumerate(lines, start=1):
        where = Where(str(path), number)
        stripped = line.strip()
        if not stripped or stripped[0] in "#;":
            continue
        if stripped[0] == "[":
            entries = []
        if text := _malformed(line.rstrip(), stripped, under_section=bool(blocks)):
            problems.append(Problem(where, text))
        elif stripped[0] == "[":
            blocks.append(Block(stripped[1:-1].strip(), where, entries))
        else:
            delimiter = min((mark for mark in "=:" if mark in stripped), key=stripped.index)
            key, _, value = stripped.partition(delimiter)
            entries.append(Entry(key.strip().upper(), value.strip(), where))
    return blocks


def _malformed(line: str, stripped: str, under_section: bool) -> str:
    """Never shows the line: it may be part of a password."""
    if not line.replace("\t", "").isprintable():
        return "expected text, found a control character"
    if line[0].isspace():
        return "expected no blanks before a key: a value stands on one line"
    if stripped[0] == "[":
        return "" if stripped[-1] == "]" else "expected [section], found no closing bracket"
    if "=" not in stripped and ":" not in stripped:
        return "expected KEY = value, [section] or a comment"
    return "" if under_section else "expected a [section] before the first key"
