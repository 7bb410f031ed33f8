"""Secrets taken out of texts, however they are written there. The logs and the results of hosts use the same."""

from __future__ import annotations

import json
import shlex
import urllib.parse
from collections.abc import Iterable, Sequence

MASK = "***"
MASKABLE_CHARACTERS = 8  # a shorter secret would blank out words that are none; the services say so at their start
_TOLD_AT_A_CUT = 3  # characters of a secret that may be left where a text was cut in the middle of it


class Mask:
    """Knows secrets, of one line or several, and never shows them.

    Each is found as it is, as JSON (once and twice), repr(), a URL and a shell would write it, and line by line. Not
    found are other spellings: base64, or a secret that is broken over two lines.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        """Those with fewer than MASKABLE_CHARACTERS are left out."""
        parts = {part for secret in secrets for part in (secret, *secret.splitlines())}
        spellings = {spelling for part in parts if len(part) >= MASKABLE_CHARACTERS for spelling in _spellings(part)}
        self._spellings = sorted(spellings, key=len, reverse=True)  # one within another is masked with the longer one

    @property
    def spellings(self) -> Sequence[str]:
        return self._spellings

    def text(self, text: str) -> str:
        """With MASK in place of each secret. A plain search for each is several times faster than one regex for all."""
        for spelling in self._spellings:
            text = text.replace(spelling, MASK)
        return text

    def head(self, text: str) -> str:
        """A text whose end was cut off: without the beginning of a secret that stands at its end."""
        for spelling in self._spellings:
            for length in range(min(len(spelling) - 1, len(text)), _TOLD_AT_A_CUT, -1):
                if text.endswith(spelling[:length]):
                    return text[:-length] + MASK
        return text

    def tail(self, text: str) -> str:
        """A text whose beginning was cut off: without the end of a secret that stands at its beginning."""
        for spelling in self._spellings:
            for length in range(min(len(spelling) - 1, len(text)), _TOLD_AT_A_CUT, -1):
                if text.startswith(spelling[-length:]):
                    return MASK + text[length:]
        return text


def _spellings(secret: str) -> set[str]:
    as_json = {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    return {
        secret,
        secret.replace("\n", "\r\n"),  # as a terminal shows it
        *as_json,
        *(json.dumps(text)[1:-1] for text in as_json),
        repr(secret)[1:-1],
        shlex.quote(secret).strip("'"),
        urllib.parse.quote(secret, errors="surrogateescape"),
        urllib.parse.quote_plus(secret, errors="surrogateescape"),
    }
