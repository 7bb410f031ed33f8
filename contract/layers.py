"""The values of all sections from the file and, above it, the environment; everything wrong with them is reported."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Any

from contract import options, secret
from contract.errors import SecretError
from contract.inifile import Block, Problem, Where
from contract.options import Option

PREFIX = "EXECUTE_ENGINE_"
_SHOWN_CHARACTERS = 80


@dataclass(frozen=True)
class Section:
    attribute: str  # of Config
    names: tuple[str, ...]  # in the file; the first is the one to write
    settings: type[Any]
    reader: str | None  # the only service that reads it, or at least the files it names; None: both
    live: frozenset[str] = frozenset()  # keys that a reload changes; * means all

    def is_live(self, key: str) -> bool:
        """A running service takes a change of it over at a reload; of all others it says that they wait for a start."""
        return bool(self.live & {key, "*"})

    def declared(self) -> Iterator[tuple[str, Field[Any], Option]]:
        """Each key as it stands in the file, with the field that declares it."""
        for item in fields(self.settings):
            yield item.name.upper(), item, options.of(item)


@dataclass(frozen=True)
class Given:
    """A value as somebody wrote it."""

    value: str
    where: Where


Layer = dict[tuple[str, str], Given]  # by Section.attribute and key


def of_file(blocks: Sequence[Block], sections: Sequence[Section], problems: list[Problem]) -> Layer:
    """What the file says."""
    by_name = {name: section for section in sections for name in section.names}
    layer: Layer = {}
    for block in blocks:
        if (section := by_name.get(block.name)) is None:
            names = ", ".join(by_name)
            problems.append(Problem(block.where, f"unknown section [{block.name}], expected one of {names}"))
            continue
        known = {key for key, _, _ in section.declared()}
        for entry in block.entries:
            if entry.key not in known:
                names = ", ".join(sorted(known))
                problems.append(
                    Problem(entry.where, f"unknown key {entry.key} in [{block.name}], expected one of {names}")
                )
            elif (slot := (section.attribute, entry.key)) in layer:
                problems.append(Problem(entry.where, f"{entry.key} was given at {layer[slot].where} already"))
            else:
                layer[slot] = Given(entry.value, entry.where)
    return layer


def of_environment(
    environment: Mapping[str, str],
    sections: Sequence[Section],
    others: frozenset[str],
    root: Path,
    problems: list[Problem],
) -> Layer:
    """What EXECUTE_ENGINE_SECTION_KEY says, for secrets the file that EXECUTE_ENGINE_SECTION_KEY_FILE names.

    others are variables with our prefix that mean something else.
    """
    known = {
        f"{PREFIX}{name.upper()}_{key}": ((section.attribute, key), option.secret)
        for section in sections
        for name in section.names
        for key, _, option in section.declared()
    }
    layer: Layer = {}
    for variable, value in environment.items():
        where = Where(variable)
        if not variable.startswith(PREFIX) or variable in others:
            continue
        slot, is_secret = known.get(variable, (None, False))
        holds_path = slot is None and known.get(variable.removesuffix("_FILE"), (None, False))[1]
        if holds_path:
            slot, _ = known[variable.removesuffix("_FILE")]
            value = _content(root / value, where, problems)
        if slot is None:
            problems.append(Problem(where, f"unknown variable, expected {PREFIX}SECTION_KEY"))
        elif is_secret:
            problems.append(
                Problem(where, f"a secret is not given by value, set {variable}_FILE to the path of its file")
            )
        elif slot in layer:
            problems.append(Problem(where, f"was given by {layer[slot].where} already"))
        else:
            layer[slot] = Given(value, where)
    return layer


def parse(layer: Layer, section: Section, root: Path, key_file: Path, problems: list[Problem]) -> dict[str, Any]:
    """The arguments for section.settings; an empty value means the default, a relative path starts at root."""
    arguments: dict[str, Any] = {}
    for key, item, option in section.declared():
        given = layer.get((section.attribute, key))
        value: Any = item.default
        if given is not None and given.value:
            try:
                value = _parsed(given.value, option, key_file)
            except (ValueError, SecretError) as exc:
                problems.append(Problem(given.where, f"[{section.names[0]}] {key}: {exc}"))
        if option.path and value is not None:
            value = Path(os.path.normpath(root / value))
        arguments[item.name] = value
    return arguments


def unreadable_files(layer: Layer, section: Section, settings: Any) -> Iterator[Problem]:
    """A problem for each file of the section that must be readable and is not."""
    for key, item, option in section.declared():
        path = getattr(settings, item.name)
        if option.must_be_readable and path is not None:
            try:
                _read(path)
            except OSError as exc:
                text = f"[{section.names[0]}] {key}: {path} cannot be read: {exc.strerror}"
                yield Problem(layer[section.attribute, key].where, text)


def _parsed(value: str, option: Option, key_file: Path) -> Any:
    if option.secret:
        return secret.decrypt(value, key_file) if value.startswith(secret.PREFIX) else value
    try:
        return option.parse(value)
    except ValueError as exc:
        raise ValueError(f"expected {exc}, found {value[:_SHOWN_CHARACTERS]!r}") from exc


def _content(path: Path, where: Where, problems: list[Problem]) -> str:
    try:
        return _read(path).decode().removesuffix("\n").removesuffix("\r")
    except OSError as exc:
        problems.append(Problem(where, f"{path} cannot be read: {exc.strerror}"))
    except UnicodeDecodeError:
        problems.append(Problem(where, f"{path}: expected UTF-8 text, found other bytes"))
    return ""


def _read(path: Path) -> bytes:
    """At most 64 KiB: nothing that is configured here is larger, and somebody may name /dev/zero."""
    with path.open("rb") as opened:
        return opened.read(65536)
