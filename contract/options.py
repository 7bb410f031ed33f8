"""How one key of the configuration is declared: a dataclass field that knows its default, its limits and its words.

The declaration is the only list of keys: parsing, defaults, ranges, the environment's overrides and the shipped file
all come from it. Each function below returns a dataclasses.field(); its type is the one that the class says.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_METADATA_KEY = "option"
_MAPPED_BITS = 96  # of ::ffff:0:0
_YES = ("yes", "true", "on", "1")
_NO = ("no", "false", "off", "0")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Option:
    """parse turns the text of a value (never empty: that is the default) into the field's value.

    It raises ValueError with the words that follow "expected".
    """

    parse: Callable[[str], Any]
    words: str  # what the shipped file says about it, unit included
    secret: bool = False
    path: bool = False  # relative ones are resolved against the installation's folder
    must_be_readable: bool = False
    written: str | None = None  # what the shipped file has where that is not simply the default


def of(item: dataclasses.Field[Any]) -> Option:
    """The declaration behind a field of a section."""
    option = item.metadata[_METADATA_KEY]
    assert isinstance(option, Option)
    return option


def default_text(item: dataclasses.Field[Any]) -> str:
    """The default as it is written in the file; empty where there is none to write."""
    if (written := of(item).written) is not None:
        return written
    match item.default:
        case None:
            return ""
        case bool() as switched:
            return "yes" if switched else "no"
        case tuple() as entries:
            return ", ".join(entries)
        case default:
            return str(default)


def text(default: str, words: str, *, pattern: str = ".*", expected: str = "") -> Any:
    def parse(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(expected)
        return value

    return _field(default, Option(parse, words))


def secret(words: str) -> Any:
    return dataclasses.field(default="", repr=False, metadata={_METADATA_KEY: Option(str, words, secret=True)})


def integer(default: int | None, lowest: int, highest: int, words: str) -> Any:
    def parse(value: str) -> int:
        if not re.fullmatch("[+-]?[0-9]{1,18}", value) or not lowest <= int(value) <= highest:
            raise ValueError(f"a whole number from {lowest} to {highest}")
        return int(value)

    return _field(default, Option(parse, words))


def decimal(default: float, lowest: float, highest: float, words: str) -> Any:
    def parse(value: str) -> float:
        if not re.fullmatch(r"[+-]?[0-9]{1,18}(\.[0-9]{1,18})?", value) or not lowest <= float(value) <= highest:
            raise ValueError(f"a number from {lowest} to {highest}")
        return float(value)

    return _field(default, Option(parse, words))


def switch(default: bool, words: str) -> Any:
    def parse(value: str) -> bool:
        if value.lower() not in _YES + _NO:
            raise ValueError("yes or no")
        return value.lower() in _YES

    return _field(default, Option(parse, words))


def choice(default: str, choices: tuple[str, ...], words: str) -> Any:
    def parse(value: str) -> str:
        if value not in choices:
            raise ValueError("one of " + ", ".join(choices))
        return value

    return _field(default, Option(parse, words))


def listing(words: str, *, pattern: str, expected: str, default: tuple[str, ...] = ()) -> Any:
    """Comma-separated entries as a tuple; blanks and empty entries do not count."""

    def parse(value: str) -> tuple[str, ...]:
        entries = tuple(entry.strip() for entry in value.split(",") if entry.strip())
        if not all(re.fullmatch(pattern, entry) for entry in entries):
            raise ValueError(expected)
        return entries

    return _field(default, Option(parse, words))


def networks(default: str, words: str) -> Any:
    """Comma-separated addresses and networks (CIDR) as a tuple of networks; an address is a network of its own."""

    def parse(value: str) -> tuple[Network, ...]:
        try:
            found = tuple(_network(entry.strip()) for entry in value.split(",") if entry.strip())
        except ValueError:
            found = ()
        if not found or any(network.prefixlen == 0 for network in found):  # whoever comes would be believed anything
            raise ValueError("addresses and networks such as 10.1.0.0/24, not of all addresses, comma-separated")
        return found

    return _field(parse(default), Option(parse, words, written=default))


def _network(text: str) -> Network:
    """Of IPv4 also what is mapped into IPv6. Raises ValueError, also for the address of a host with a prefix."""
    found = ipaddress.ip_network(text)
    mapped = found.network_address.ipv4_mapped if isinstance(found, ipaddress.IPv6Network) else None
    if mapped is None or found.prefixlen < _MAPPED_BITS:
        return found
    return ipaddress.IPv4Network((mapped, found.prefixlen - _MAPPED_BITS))


def folder(default: str, words: str, *, written: str | None = None) -> Any:
    """A path that the services make themselves where it is missing."""
    return _field(Path(default), Option(Path, words, path=True, written=written))


def file(words: str, *, must_be_readable: bool = True) -> Any:
    """The path of a file that somebody else has made; None when it is not given."""
    return _field(None, Option(Path, words, path=True, must_be_readable=must_be_readable))


def _field(default: Any, option: Option) -> Any:
    return dataclasses.field(default=default, metadata={_METADATA_KEY: option})
