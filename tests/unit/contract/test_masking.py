"""Secrets are taken out of texts, however they are written there."""

from __future__ import annotations

import json
import shlex
import urllib.parse
from collections.abc import Callable

import pytest

from contract.masking import Mask

HARD = "pa\"ss\\wörd\t'/%&<x>"
LINES = "-----BEGIN KEY-----\nfirst line\nsecond line\nend"


@pytest.mark.parametrize(
    "write",
    [
        str, repr, json.dumps, lambda text: json.dumps(text, ensure_ascii=False),
        lambda text: json.dumps(json.dumps({"a": text})),
        lambda text: json.dumps(json.dumps([text], ensure_ascii=False)),
        shlex.quote, urllib.parse.quote, urllib.parse.quote_plus,
    ],
)  # fmt: skip
@pytest.mark.parametrize("secret", [HARD, LINES, "plain text", "päßwörter", "it's it's it's"])
def test_a_secret_is_found_as_others_write_it(write: Callable[[str], str], secret: str) -> None:
    written = write(secret)
    found = Mask([secret]).text(f"<{written}>")
    assert "***" in found
    assert len(found) <= len('<"\'\\"[***]\\""\'>') + 12, found


def test_a_secret_of_several_lines_is_found_line_by_line_and_as_a_terminal_shows_it() -> None:
    mask = Mask([LINES])
    assert mask.text(LINES.replace("\n", "\r\n")) == "***"
    assert mask.text('["first line", "second line"]') == '["***", "***"]'
    assert mask.text("> first line\n> second line\n> end") == "> ***\n> ***\n> end"


def test_short_secrets_are_no_secrets_and_of_two_the_longer_one_is_masked() -> None:
    assert Mask(["1234567", "", "password", "password-and-more"]).text("1234567 password-and-more password") == (
        "1234567 *** ***"
    )


@pytest.mark.parametrize("left", range(1, len(HARD)))
def test_at_a_cut_no_more_than_three_characters_of_a_secret_are_left(left: int) -> None:
    mask = Mask([HARD])
    for text, found in (
        (HARD[:left], mask.head(f"before {HARD[:left]}")),
        (HARD[-left:], mask.tail(f"{HARD[-left:]} x")),
    ):
        assert (text in found) == (left <= 3)


def test_a_text_without_secrets_stays_as_it_is() -> None:
    mask = Mask([HARD, "another secret"])
    assert mask.text("anything") == mask.head("anything") == mask.tail("anything") == "anything"
