"""YAML text as a tree of nodes that know their lines, for text that a stranger wrote."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from distribute.errors import Problems

MAX_DEPTH = 100  # of lists and mappings in each other
MAX_NODES = 250_000  # with every alias counted as what it stands for

TAGS = ("!vault", "!vault-encrypted", "!unsafe")  # Ansible's own; the engine decides what it does with them
_YAML_TAGS = "tag:yaml.org,2002:"
_NO_DATA = (f"{_YAML_TAGS}python/", f"{_YAML_TAGS}java")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def compose(text: str) -> yaml.Node | None:
    """The only document of the text; None when it is empty. Nothing is constructed from it.

    Raises Problems with line and column: no YAML, a second document, a tag that Ansible does not know, more than
    MAX_DEPTH levels, or aliases that grow it over MAX_NODES.
    """
    if unprintable := yaml.reader.Reader.NON_PRINTABLE.search(text):
        before = text[: unprintable.start()]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        raise Problems.of(f"line {line}, column {column}: expected YAML, found the character {unprintable[0]!r}")
    try:
        _check_size(yaml.parse(text, Loader=_LOADER))
        return yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as exc:
        words = " ".join(part for part in (exc.context, exc.problem) if part)
        raise _problem(exc.problem_mark or exc.context_mark, f"expected YAML, found an error: {words}") from exc


def _check_size(events: Iterator[yaml.Event]) -> None:
    """Before any recursion: events come from a flat parser, whatever the text."""
    open_sizes = [0]  # nodes so far in each open collection
    anchors: list[str | None] = []
    sizes: dict[str | None, int] = {}
    for event in events:
        if isinstance(event, yaml.CollectionStartEvent):
            _check_tag(event)
            open_sizes.append(1)
            anchors.append(event.anchor)
            if len(anchors) > MAX_DEPTH:
                raise _problem(event.start_mark, f"expected at most {MAX_DEPTH} levels of lists and mappings")
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            size, anchor = open_sizes.pop(), anchors.pop()
        elif isinstance(event, yaml.ScalarEvent):
            _check_tag(event)
            size, anchor = 1, event.anchor
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor in anchors:
                raise _problem(event.start_mark, f"expected data that ends, found *{event.anchor} inside itself")
            size, anchor = sizes.get(event.anchor, 1), None
        else:
            continue
        open_sizes[-1] += size
        if anchor is not None:
            sizes[anchor] = size
        if open_sizes[-1] > MAX_NODES:
            raise _problem(event.start_mark, f"expected at most {MAX_NODES} values; aliases count as what they repeat")


def _check_tag(event: yaml.CollectionStartEvent | yaml.ScalarEvent) -> None:
    tag = event.tag
    if tag is None or tag == "!" or tag in TAGS:
        return
    if not tag.startswith(_YAML_TAGS) or tag.startswith(_NO_DATA):
        raise _problem(event.start_mark, f"expected plain YAML, !vault or !unsafe, found the tag {tag[:60]}")


def _problem(mark: Any, problem: str) -> Problems:
    return Problems.of(f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else problem)
