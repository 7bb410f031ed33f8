"""script/setup: which packages each scope asks for on a machine that has none of them."""

from __future__ import annotations

import pytest

from tests.unit.scripts import call

NOTHING_IS_THERE = """
command() { return 1; }
php() { return 1; }
runs() { return 1; }
missing_packages
"""


@pytest.mark.parametrize(
    ("scope", "packages"),
    [
        ("service", {"openssh-client", "git", "python3", "python3-venv"}),
        ("demo", {"openssh-server", "python3", "python3-venv"}),
    ],
)
def test_a_scope_asks_for_no_more_than_it_needs(scope: str, packages: set[str]) -> None:
    assert set(call("setup", "if [", f"scope={scope}\n{NOTHING_IS_THERE}").split()) == packages


def test_everything_is_asked_for_by_the_scope_of_the_tests() -> None:
    assert {"php-mysql", "podman", "openssh-server"} <= set(
        call("setup", "if [", f"scope=all\n{NOTHING_IS_THERE}").split()
    )
