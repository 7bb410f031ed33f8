"""Hosts as clients spell them: what is one, its one spelling, and what is told of those that are none."""

from __future__ import annotations

import pytest

from distribute import hosts
from distribute.hosts import MAX_HOSTS, Hosts
from tests.unit.distribute.problems import problem_of, problems_of

NONE_OF_THEM = "expected an IPv4 or IPv6 address or a DNS name, found "


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("1.2.3.4", "1.2.3.4"),
        ("255.255.255.255", "255.255.255.255"),
        ("127.0.0.1", "127.0.0.1"),  # an address is not judged
        ("0.0.0.0", "0.0.0.0"),
        ("::1", "::1"),
        ("2001:DB8:0:0:0::0001", "2001:db8::1"),
        ("FE80::A", "fe80::a"),
        ("db-1", "db-1"),
        ("Web-01.Example.COM", "web-01.example.com"),
        ("web.example.com.", "web.example.com"),
        ("under_score", "under_score"),
        ("3com.example", "3com.example"),
        ("x" * 63, "x" * 63),
        (".".join(["x" * 49] * 5) + ".y1", ".".join(["x" * 49] * 5) + ".y1"),  # 252 characters
    ],
)
def test_an_address_or_a_name_has_one_spelling(written: str, stored: str) -> None:
    assert hosts.spelled(written) == stored
    assert hosts.spelled(stored) == stored


@pytest.mark.parametrize(
    "host",
    [
        "1.2.3.999",
        "256.2.3.4",
        "1.2.3.256",
        "1.2.3",
        "1.2.3.4.5",
        "01.2.3.4",  # octal for some, decimal for others
        "1.2.3.04",
        "127.1",
        "0x7f.0.0.1",
        "web.0x1",
        "web.1",
        "16909060",
        "1.2.3.4/24",
        "1.2.3.4:22",
        "[::1]",
        ":::1",
        "1::2::3",
        "12345::",
        "host:22",
        "user@host",
        "a b",
        "a..b",
        ".a",
        "a..",
        ".",
        "-a",
        "a-",
        "a.-b.c",
        "x" * 64,
        ".".join(["x" * 50] * 5),  # 254 characters
        "bücher.example",
        "a\nb",
        "a;reboot",
        "{{lookup('pipe','id')}}",
        "a\0",
    ],
)
def test_what_is_no_host_is_refused_and_shown(host: str) -> None:
    with pytest.raises(ValueError, match="expected an IPv4 or IPv6 address or a DNS name, found ") as caught:
        hosts.spelled(host)
    assert str(caught.value).startswith(NONE_OF_THEM)
    assert len(str(caught.value)) < 150


def test_a_zone_is_refused_because_it_differs_from_engine_to_engine() -> None:
    with pytest.raises(ValueError, match="without a zone, which differs from engine to engine: 'fe80::1%eth0'"):
        hosts.spelled("fe80::1%eth0")


@pytest.mark.parametrize("name", ["all", "ALL", "ungrouped", "target_hosts", "target_hosts."])
def test_the_name_of_an_inventory_group_is_no_host(name: str) -> None:
    with pytest.raises(ValueError, match="which is the name of an inventory group"):
        hosts.spelled(name)


@pytest.mark.parametrize(
    "ips",
    [
        "1.1.1.1,2.2.2.2",
        " 1.1.1.1 ,\t2.2.2.2\n",
        ",,1.1.1.1,, ,2.2.2.2,",
        ["1.1.1.1", "2.2.2.2"],
        ["", " 1.1.1.1", "  ", "2.2.2.2 "],
    ],
)
def test_a_string_and_a_list_are_read_alike_without_blanks_and_empty_entries(ips: object) -> None:
    assert hosts.parse(ips) == Hosts(("1.1.1.1", "2.2.2.2"), 0)


def test_a_host_that_is_named_again_in_any_spelling_is_dropped_and_counted() -> None:
    found = hosts.parse("b,a,B,::1,b.,0:0::1,,a")
    assert found == Hosts(("b", "a", "::1"), 4)


@pytest.mark.parametrize("ips", ["", " , ,", [], ["", " "]])
def test_no_host_at_all_is_a_problem(ips: object) -> None:
    assert problem_of(lambda: hosts.parse(ips)) == "expected at least one host, found none"


@pytest.mark.parametrize("ips", [None, 7, True, {"1.1.1.1": 1}])
def test_neither_a_string_nor_a_list_is_a_problem(ips: object) -> None:
    assert problem_of(lambda: hosts.parse(ips)) == "expected a comma-separated string or a list of hosts"


def test_every_wrong_entry_is_named_by_its_position() -> None:
    assert problems_of(lambda: hosts.parse(["ok", "1.2.3.999", "", 7, None, "all", "a b"])) == [
        ("[1]", f"{NONE_OF_THEM}'1.2.3.999'"),
        ("[3]", "expected a string"),
        ("[4]", "expected a string"),
        ("[5]", "expected a host, found all, which is the name of an inventory group"),
        ("[6]", f"{NONE_OF_THEM}'a b'"),
    ]
    assert problems_of(lambda: hosts.parse("ok,,x y")) == [("[2]", f"{NONE_OF_THEM}'x y'")]


def test_the_most_hosts_are_200_000_and_duplicates_do_not_count() -> None:
    assert MAX_HOSTS == 200_000
    most = [f"h{number}" for number in range(MAX_HOSTS)]
    assert hosts.parse([*most, "h7"]) == Hosts(tuple(most), 1)
    assert (
        problem_of(lambda: hosts.parse(",".join([*most, "h"])))
        == "expected at most 200000 hosts, found 200001: send them as several tasks"
    )
