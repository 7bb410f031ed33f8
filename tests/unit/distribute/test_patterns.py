"""What a token's patterns fit. tests/integration/test_patterns.py asks the databases the same."""

from __future__ import annotations

import contextlib
import random

import pytest

from distribute import hosts, patterns

HOSTS = (
    "10.1.2.3", "10.1.23.3", "10.11.2.3", "10.2.1.3", "110.1.2.3", "127.0.0.1",
    "::1", "2001:db8::1", "2001:db8::a1", "2001:db8:1::1", "fe80::10",
    "10.1.x.nip.io", "10.1.2.3.example.org", "10.1.2.3-x", "10-1", "1e", "a_b", "a-b", "axb", "ab", "beef", "be.ef",
    "web", "web1", "web-1", "web-12", "web.evil.example.org", "web1.example.org", "db.web.example.org", "example.org",
    "xweb", "webxexample.org",
)  # fmt: skip
IPV4 = {host for host in HOSTS if host.replace(".", "").isdecimal()}
IPV6 = {host for host in HOSTS if ":" in host}
FITS: dict[str, set[str]] = {
    "*": set(HOSTS),
    "**": IPV4,
    "*.*": IPV4,
    "*:*": IPV6,
    "10.1.*": {"10.1.2.3", "10.1.23.3"},
    "10.1*": {"10.1.2.3", "10.1.23.3", "10.11.2.3"},
    "10.1.?.3": {"10.1.2.3"},
    "10.1.??.3": {"10.1.23.3"},
    "10.1?2.3.4": set(),
    "10?1.2.3": set(),
    "*.3": {"10.1.2.3", "10.1.23.3", "10.11.2.3", "10.2.1.3", "110.1.2.3"},
    "10.*.3": {"10.1.2.3", "10.1.23.3", "10.11.2.3", "10.2.1.3"},
    "1*": IPV4,
    "10.1.2.3": {"10.1.2.3"},
    "10.1.2": set(),
    "2001:db8:*": {"2001:db8::1", "2001:db8::a1", "2001:db8:1::1"},
    "2001:db8::?": {"2001:db8::1"},
    "*:1": {"::1", "2001:db8::1", "2001:db8:1::1"},
    "::1": {"::1"},
    "web*": {"web", "web1", "web-1", "web-12"},
    "*web": {"web", "xweb"},
    "web-?": {"web-1"},
    "web*.example.org": {"web1.example.org"},
    "web.*.example.org": {"web.evil.example.org"},
    "web.*": set(),
    "web?example.org": {"webxexample.org"},
    "*.example.org": {"web1.example.org"},
    "*.*.example.org": {"web.evil.example.org", "db.web.example.org"},
    "example.org": {"example.org"},
    "10.1.*.nip.io": {"10.1.x.nip.io"},
    "10-*": {"10-1"},
    "be*": {"beef"},
    "?e": {"1e"},
    "a?b": {"a_b", "a-b", "axb"},
    "a_b": {"a_b"},
    "a*b": {"a_b", "a-b", "axb", "ab"},
}

LETTERS = "10.:afw-_"  # few, so that many of the patterns fit one of the hosts


def _words(count: int, letters: str, seed: int) -> list[str]:
    chance = random.Random(seed)
    return ["".join(chance.choices(letters, k=chance.randint(1, 7))) for _ in range(count)]


def random_patterns() -> list[str]:
    return [word for word in _words(500, f"{LETTERS}***??", seed=1) if patterns.is_pattern(word)]


def random_hosts() -> tuple[str, ...]:
    """In their stored spelling, each once: names, IPv4 and IPv6 addresses."""
    found = []
    for word in _words(1500, LETTERS, seed=2):
        with contextlib.suppress(ValueError):
            found.append(hosts.spelled(word))
    chance = random.Random(3)
    for _ in range(100):
        found.append(".".join(chance.choices(("0", "1", "10", "11", "100", "101"), k=4)))
        found.append(hosts.spelled(":".join(chance.choices(("0", "1", "a", "f0"), k=8))))
    return tuple(dict.fromkeys(found))


def test_the_hosts_of_the_table_are_such_as_are_stored() -> None:
    assert tuple(map(hosts.spelled, HOSTS)) == HOSTS


@pytest.mark.parametrize("pattern", FITS)
def test_a_pattern_fits_what_it_says_and_nothing_else(pattern: str) -> None:
    assert patterns.is_pattern(pattern)
    assert {host for host in HOSTS if patterns.fits((pattern,), host)} == FITS[pattern]


def _kind(host: str) -> str:
    return "IPv6" if ":" in host else "IPv4" if host.replace(".", "").isdecimal() else "name"


def test_no_pattern_but_the_one_for_all_fits_hosts_of_two_kinds() -> None:
    names = random_hosts()
    kinds = [{_kind(host) for host in names if patterns.fits((one,), host)} for one in random_patterns() if one != "*"]
    assert [sum(kind in found for found in kinds) > 5 for kind in ("name", "IPv4", "IPv6")] == [True] * 3
    assert max(map(len, kinds)) == 1


def test_one_of_several_patterns_is_enough() -> None:
    several = ("10.1.*", "web-?", "beef")
    assert [host for host in HOSTS if patterns.fits(several, host)] == ["10.1.2.3", "10.1.23.3", "beef", "web-1"]


@pytest.mark.parametrize("text", ["", "WEB*", "a b", "[ab]", "a,b", "a%", "web:*", "x::1", "a" * 254])
def test_what_can_fit_no_host_is_no_pattern(text: str) -> None:
    assert not patterns.is_pattern(text)
