"""The lock files hold what requirements*.txt ask for: each package in one version, with the hashes of its files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PIN = re.compile(r"([A-Za-z0-9._-]+)(?:\[[a-z,]+\])?==([^\s;]+)")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")
BOTH = [("requirements.txt", "requirements.lock"), ("requirements-dev.txt", "requirements-dev.lock")]


def _lines(file: str) -> list[str]:
    """Without comments; a line that goes on after a backslash is one."""
    text = (ROOT / file).read_text().replace("\\\n", "")
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _name(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _pins(file: str) -> dict[str, str]:
    """Version by name of all that a file asks for, and those that it includes. Fails where a line is no pin."""
    pins: dict[str, str] = {}
    for line in _lines(file):
        if line.startswith("-r "):
            pins |= _pins(line.removeprefix("-r "))
        else:
            found = PIN.match(line)
            assert found, f"{file}: expected NAME==VERSION, found {line[:80]!r}"
            assert pins.setdefault(_name(found[1]), found[2]) == found[2], f"{file}: two versions of {found[1]}"
    return pins


@pytest.mark.parametrize(("inputs", "lock"), BOTH)
def test_the_lock_has_every_pin(inputs: str, lock: str) -> None:
    locked = _pins(lock)
    assert {name: locked.get(name) for name in _pins(inputs)} == _pins(inputs), "run script/lock"


@pytest.mark.parametrize(("inputs", "lock"), BOTH)
def test_all_in_the_lock_has_hashes_and_says_nothing_of_where_it_comes_from(inputs: str, lock: str) -> None:
    for line in _lines(lock):
        requirement, *hashes = re.split(r"\s+(?=--hash)", line)
        assert re.fullmatch(rf"{PIN.pattern}( ; [^-]+)?", requirement), line[:80]
        assert hashes, f"{requirement} has no hash"
        assert all(HASH.fullmatch(each) for each in hashes), requirement
    assert "://" not in (ROOT / lock).read_text()


def test_what_runs_is_what_was_tested() -> None:
    """Both locks agree on each package of the services."""
    assert _pins("requirements.lock").items() <= _pins("requirements-dev.lock").items()
