"""The tokens file: made, changed and read, and what it refuses."""

from __future__ import annotations

import json
import os
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from distribute import tokens
from distribute.errors import TokensError
from distribute.tokens import LiveTokens, Role, Token, sum_of


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


def _add(file: Path, name: str = "deploy", role: Role = Role.SUBMIT, **fields: Any) -> str:
    return tokens.add(file, name, role, fields.get("hosts", ()), fields.get("expires"))


def test_a_token_is_made_once_and_the_file_holds_only_its_sum(file: Path) -> None:
    expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    made = _add(file, hosts=("10.1.*", "web?"), expires=expires)
    assert made.startswith("ee_")
    assert len(made) > 40
    assert made not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert tokens.read(file) == (Token("deploy", sum_of(made), Role.SUBMIT, ("10.1.*", "web?"), expires),)
    assert _add(file, "other") != made
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_a_file_that_root_makes_or_changes_is_its_folders_owners(file: Path) -> None:
    os.chown(file.parent, 12345, 12346)
    for name in ("first", "second"):
        _add(file, name)
        assert (file.stat().st_uid, file.stat().st_gid) == (12345, 12346)


def test_a_changed_file_keeps_its_mode(file: Path) -> None:
    _add(file)
    file.chmod(0o640)
    _add(file, "other")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_a_name_is_given_once(file: Path) -> None:
    _add(file)
    before = file.read_bytes()
    with pytest.raises(TokensError, match="there is a token named deploy already"):
        _add(file)
    assert file.read_bytes() == before


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "ä", "a/b"])
def test_a_name_that_is_none_is_refused(file: Path, name: str) -> None:
    with pytest.raises(TokensError, match="expected a name of letters"):
        _add(file, name)
    assert not file.exists()


@pytest.mark.parametrize("pattern", ["WEB*", "a b", "[ab]", "a,b"])
def test_a_pattern_that_fits_no_host_is_refused(file: Path, pattern: str) -> None:
    with pytest.raises(TokensError, match="expected host patterns"):
        _add(file, hosts=(pattern,))
    assert not file.exists()


def test_who_is_revoked_is_gone_and_the_others_stay(file: Path) -> None:
    made = {name: _add(file, name) for name in ("a", "b")}
    live = LiveTokens(file)
    found = live.find(sum_of(made["a"]))
    assert found is not None
    assert found.name == "a"
    tokens.revoke(file, "a")
    assert live.find(sum_of(made["a"])) is None
    assert live.find(sum_of(made["b"])) is not None
    with pytest.raises(TokensError, match="no token named a"):
        tokens.revoke(file, "a")


def test_nothing_but_a_token_is_found(file: Path) -> None:
    made = _add(file)
    live = LiveTokens(file)
    for other in ("", made[:-1], made + "x", made.upper(), sum_of(made)):
        assert live.find(sum_of(other)) is None


def test_many_at_once_are_all_added(file: Path) -> None:
    threads = [threading.Thread(target=_add, args=(file, f"client-{number}")) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {token.name for token in tokens.read(file)} == {f"client-{number}" for number in range(20)}


def test_while_the_file_is_away_or_broken_nobody_is_found_and_afterwards_all_are(file: Path) -> None:
    made = _add(file)
    live = LiveTokens(file)
    assert live.find(sum_of(made))
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    with pytest.raises(TokensError, match="cannot be read"):
        live.find(sum_of(made))
    file.unlink()
    with pytest.raises(TokensError, match="No such file"):
        live.find(sum_of(made))
    file.write_bytes(whole)
    file.chmod(0o600)
    assert live.find(sum_of(made))


def test_a_file_that_others_can_write_lets_nobody_in(file: Path) -> None:
    _add(file)
    file.chmod(0o620)
    with pytest.raises(TokensError, match="mode 0620, expected 0600"):
        tokens.read(file)


GOOD = {"name": "a", "sha256": "0" * 64, "role": "read"}


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([GOOD, GOOD], "more than one token named a"),
        ([{**GOOD, "role": "root"}], r"tokens\[0\]: wrong role"),
        ([GOOD, {**GOOD, "sha256": "0"}], r"tokens\[1\]: wrong sha256"),
        ([{**GOOD, "hosts": "web*"}], r"tokens\[0\]: wrong hosts"),
        ([{**GOOD, "hosts": ["WEB"]}], r"tokens\[0\]: wrong hosts"),
        ([{**GOOD, "more": 1}], "expected an object with name"),
        ([{"name": "a"}], "expected an object with name"),
        ([{**GOOD, "expires": "2030-01-01T00:00:00"}], "has no time zone"),
        ([{**GOOD, "expires": "soon"}], "soon"),
        (["a"], "expected an object"),
    ],
)
def test_a_wrong_entry_is_named(file: Path, entries: list[Any], words: str) -> None:
    file.write_text(json.dumps({"tokens": entries}))
    os.chmod(file, 0o600)
    with pytest.raises(TokensError, match=words):
        tokens.read(file)


@pytest.mark.parametrize("hosts", [[], "", False, 0, {}])
def test_hosts_that_are_empty_are_not_all_hosts(file: Path, hosts: Any) -> None:
    file.write_text(json.dumps({"tokens": [{**GOOD, "hosts": hosts}]}))
    os.chmod(file, 0o600)
    with pytest.raises(TokensError, match=r"wrong hosts \(expected a list of patterns, or null for all hosts\)"):
        tokens.read(file)


def test_all_hosts_are_written_as_null_and_read_again_also_without_the_key(file: Path) -> None:
    _add(file)
    entries = json.loads(file.read_text())
    assert entries["tokens"][0].pop("hosts") is None
    assert tokens.read(file)[0].hosts == ()
    file.write_text(json.dumps(entries))
    assert tokens.read(file)[0].hosts == ()
