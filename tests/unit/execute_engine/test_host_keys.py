"""Which host key is accepted, what is asked for, and what the sentences say."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from execute_engine.ssh.host_keys import ALGORITHMS, HostKeys, described
from tests.servers.fleet import make_key

FIRST = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJhDl3AB6gkb5xNnN1Cmz5b0oVJcWq3DcGK3CS6kMNmQ"
SECOND = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMn5hEAR7fVnxtT5vHDvVQzXM7yMKqgXOkvVlBWEq0Jm"
RSA = "ssh-rsa AAAAB3NzaC1yc2E="


def test_no_accepts_everything_and_learns_nothing() -> None:
    keys = HostKeys("no", {"h1": (FIRST,)})
    assert keys.refusal("h1", SECOND) is None
    assert not keys.learn("h1", SECOND)
    assert not keys.learn("h2", SECOND)


@pytest.mark.parametrize("checking", ["accept-new", "yes"])
def test_a_known_key_is_accepted_and_is_no_news(checking: str) -> None:
    keys = HostKeys(checking, {"h1": (RSA, FIRST)})
    assert keys.refusal("h1", FIRST) is None
    assert not keys.learn("h1", FIRST)


def test_accept_new_learns_the_first_key_once_and_then_refuses_another() -> None:
    keys = HostKeys("accept-new", {})
    assert keys.refusal("h1", FIRST) is None
    assert keys.learn("h1", FIRST)
    assert not keys.learn("h1", FIRST)
    assert "has changed" in str(keys.refusal("h1", SECOND))
    assert keys.refusal("h2", SECOND) is None, "another host's key says nothing about this one"


@pytest.mark.parametrize("checking", ["accept-new", "yes"])
def test_a_changed_key_is_refused_with_both_fingerprints_and_what_to_do(checking: str) -> None:
    sentence = str(HostKeys(checking, {"h1": (FIRST,)}).refusal("h1", SECOND))
    assert f"the host key of h1 has changed: expected {described(FIRST)}, found {described(SECOND)}" in sentence
    assert "delete its rows from host_key" in sentence


def test_yes_refuses_what_is_not_known_and_says_what_to_do() -> None:
    sentence = str(HostKeys("yes", {"h2": (FIRST,)}).refusal("h1", FIRST))
    assert f"the host key of h1 is not known: found {described(FIRST)}" in sentence
    assert "accept-new" in sentence


def test_known_types_are_asked_for_first_and_all_others_too() -> None:
    asked = HostKeys("accept-new", {"h1": (RSA,)}).algorithms("h1")
    assert asked[:3] == ["rsa-sha2-512", "rsa-sha2-256", "ssh-rsa"]
    assert sorted(asked) == sorted(algorithm for signatures in ALGORITHMS.values() for algorithm in signatures)
    assert HostKeys("accept-new", {}).algorithms("h1")[0] == "ssh-ed25519"


def test_the_fingerprint_is_what_ssh_keygen_prints(tmp_path: Path) -> None:
    make_key(tmp_path / "key")
    line = (tmp_path / "key.pub").read_text()
    printed = subprocess.run(
        ["ssh-keygen", "-lf", str(tmp_path / "key.pub")], capture_output=True, text=True, check=True
    ).stdout
    assert described(line) == f"ssh-ed25519 {printed.split()[1]}"


@pytest.mark.parametrize("key", ["ssh-ed25519", "ssh-ed25519 ", "ssh-ed25519 not-base64!"])
def test_a_damaged_key_is_called_so(key: str) -> None:
    assert described(key) == "ssh-ed25519 (damaged)"
