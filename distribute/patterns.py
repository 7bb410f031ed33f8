"""The host patterns of tokens: what they mean, as one regular expression that Python and the databases read alike.

    *                                    every host
    digits, dots, wildcards: 10.1.*      IPv4 addresses and nothing else; * is any digits and dots, ? one digit
    with a colon: 2001:db8:*             IPv6 addresses in their short spelling; * is any part of one, ? one digit
    all others: web-?, *.example.org     DNS names; * and ? stay within one label, as in a certificate

No pattern of an address fits a name: whoever has the name could let it lead to any address.
"""

from __future__ import annotations

import functools
import re

MEANING = (
    "* alone: every host; 10.1.*: IPv4 addresses, 2001:db8:*: IPv6 addresses, never names; web*, *.example.org: names,"
    " where * and ? stay within one label, so that web* is web1 and not web1.example.org"
)
_IPV4 = re.compile("[0-9.*?]+")
_IPV6 = re.compile("[0-9a-f.*?]*:[0-9a-f:.*?]*")
_NAME = re.compile("[a-z0-9._*?-]+")
_MOST_CHARACTERS = 253


def is_pattern(text: str) -> bool:
    """Whether it could fit a host in its stored spelling."""
    return len(text) <= _MOST_CHARACTERS and bool(_NAME.fullmatch(text) or _IPV6.fullmatch(text))


def fits(patterns: tuple[str, ...], host: str) -> bool:
    """Whether the host, which is in its stored spelling, fits one of the patterns."""
    return expression(patterns).search(host) is not None


@functools.lru_cache(maxsize=1024)
def expression(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """To be searched for in a host. Written with what re, PCRE (MariaDB) and ICU (MySQL) mean the same by."""
    return re.compile(f"^(?:{'|'.join(map(_expression, patterns))})$")


def _expression(pattern: str) -> str:
    if pattern == "*":
        return ".*"
    if ":" in pattern:
        many, one = "[0-9a-f:.]*", "[0-9a-f]"
    elif _IPV4.fullmatch(pattern):  # a host of digits and dots alone is an address
        many, one = "[0-9.]*", "[0-9]"
    else:
        many, one = "[a-z0-9_-]*", "[a-z0-9_-]"
    return "".join({"*": many, "?": one, ".": "[.]"}.get(character, character) for character in pattern)
