"""Hosts as clients spell them, brought to the one spelling that is stored: ipaddress's form, names in lower case."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from distribute.errors import Problems

MAX_HOSTS = 200_000
MAX_NAME_CHARACTERS = 253
INVENTORY_GROUPS = ("all", "ungrouped", "target_hosts")  # what a play calls all its hosts: no host has such a name

_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}")
_LABEL = "[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?:{_LABEL}\.)*(?P<last>{_LABEL})")
_NUMBER = re.compile("[0-9]+|0x[0-9a-f]*")


@dataclass(frozen=True)
class Hosts:
    """Unique hosts in the order of the request, and how many entries named one again."""

    names: tuple[str, ...]
    duplicates: int


def spelled(host: str) -> str:
    """The stored spelling of one address or name. Raises ValueError with a sentence for what is neither."""
    if _IPV4.fullmatch(host):
        return host
    if ":" in host:
        return _ipv6(host)
    name = host.lower().removesuffix(".")
    match = _NAME.fullmatch(name)
    # A resolver reads a name that ends in a number as an address in another spelling.
    if match is None or len(name) > MAX_NAME_CHARACTERS or _NUMBER.fullmatch(match["last"]):
        raise ValueError(f"expected an IPv4 or IPv6 address or a DNS name, found {_shown(host)}")
    if name in INVENTORY_GROUPS:
        raise ValueError(f"expected a host, found {name}, which is the name of an inventory group")
    return name


def parse(ips: object) -> Hosts:
    """Hosts of a comma-separated string or a list; blanks and empty entries are ignored.

    Raises Problems: one for each entry that is no host, at its position ([3]), or one for the whole.
    """
    entries = ips.split(",") if isinstance(ips, str) else ips
    if not isinstance(entries, list | tuple):
        raise Problems.of("expected a comma-separated string or a list of hosts")
    hosts, count = _unique(entries)
    if not hosts:
        raise Problems.of("expected at least one host, found none")
    if len(hosts) > MAX_HOSTS:
        raise Problems.of(f"expected at most {MAX_HOSTS} hosts, found {len(hosts)}: send them as several tasks")
    return Hosts(hosts, count - len(hosts))


def _unique(entries: Iterable[object]) -> tuple[tuple[str, ...], int]:
    """The hosts in their stored spelling, each once, and how many entries were not empty."""
    found: dict[str, None] = {}
    wrong = []
    count = 0
    for position, entry in enumerate(entries):
        try:
            if not isinstance(entry, str):
                raise ValueError("expected a string")
            if host := entry.strip():
                count += 1
                found[spelled(host)] = None
        except ValueError as exc:
            wrong.append((f"[{position}]", str(exc)))
    if wrong:
        raise Problems(wrong)
    return tuple(found), count


def _ipv6(host: str) -> str:
    if "%" in host:
        raise ValueError(
            f"expected an IPv6 address without a zone, which differs from engine to engine: {_shown(host)}"
        )
    try:
        return str(ipaddress.IPv6Address(host))
    except ValueError as exc:
        raise ValueError(f"expected an IPv4 or IPv6 address or a DNS name, found {_shown(host)}") from exc


def _shown(host: str) -> str:
    return repr(host if len(host) <= 64 else f"{host[:61]}...")
