"""python -m distribute token, as somebody types it, and whether distribute starts without tokens."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from contract.config import DistributeSettings
from contract.errors import ConfigError
from distribute import exposure, tokens
from distribute.tokens import Role, sum_of

ROOT = Path(__file__).parents[3]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "conf" / "server.conf"
    path.parent.mkdir()
    path.write_text("[Distribute]\nTOKENS_FILE = conf/tokens\n")
    return path


def _run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "distribute", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=60, check=False)


def test_a_token_is_added_listed_and_revoked(config: Path) -> None:
    added = _run(
        "token", "--config", config, "add", "deploy", "--role", "submit", "--hosts", "10.1.*, web*", "--expires", "2"
    )
    assert added.returncode == 0, added.stderr
    made = added.stdout.strip()
    assert added.stdout == f"{made}\n"
    assert made not in added.stderr
    (token,) = tokens.read(config.parent / "tokens")
    assert (token.name, token.role, token.hosts, token.sha256) == (
        "deploy",
        Role.SUBMIT,
        ("10.1.*", "web*"),
        sum_of(made),
    )
    assert token.expires is not None
    listed = _run("--config", config, "token", "list")
    assert listed.stdout.split("\t")[:3] == ["deploy", "submit", "10.1.*,web*"]
    revoked = _run("token", "revoke", "deploy", "--config", config)
    assert (revoked.returncode, revoked.stdout) == (0, "")
    assert tokens.read(config.parent / "tokens") == ()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("add", "a"), 2, "--role"),
        (("add", "a", "--role", "root"), 2, "invalid choice: 'root'"),
        (("add", "a", "--role", "read", "--expires", "0"), 2, "expected days, more than 0"),
        (("add", "a b", "--role", "read"), 1, "expected a name of letters"),
        (("add", "a", "--role", "read", "--hosts", ""), 2, "expected host patterns, or no --hosts for all hosts"),
        (("add", "a", "--role", "read", "--hosts", " , "), 2, "expected host patterns, or no --hosts for all hosts"),
        (("revoke", "nobody"), 1, "there is no token named nobody"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_printed(
    config: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    done = _run("--config", config, "token", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr


def test_without_a_file_to_put_it_the_command_says_which_key_to_set(config: Path) -> None:
    config.write_text("")
    done = _run("--config", config, "token", "list")
    assert (done.returncode, done.stdout) == (78, "")
    assert "TOKENS_FILE is empty" in done.stderr


def test_a_tokens_file_that_is_missing_stops_the_start(config: Path) -> None:
    done = _run("--config", config)
    assert done.returncode == 78
    assert "TOKENS_FILE: the tokens file" in done.stderr
    assert "cannot be read: No such file" in done.stderr
    assert "token add NAME --role admin" in done.stderr


@pytest.mark.parametrize("role", [[], ["web"]])
def test_neither_the_service_nor_a_web_process_alone_listens_elsewhere_without_tokens(
    config: Path, role: list[str]
) -> None:
    config.write_text("[Distribute]\nHOST = 0.0.0.0\nPORT = 1\n")
    done = _run(*role, "--config", config)
    assert (done.returncode, done.stdout) == (78, "")
    assert "[Distribute] HOST = 0.0.0.0 can be reached from elsewhere, and TOKENS_FILE is empty" in done.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "distribute.example.com"])
def test_without_tokens_distribute_does_not_listen_elsewhere(host: str) -> None:
    with pytest.raises(ConfigError, match="TOKENS_FILE is empty"):
        exposure.check(DistributeSettings(host=host))
    assert "NO_AUTH = yes" in str(exposure.check(DistributeSettings(host=host, no_auth=True)))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost"])
def test_without_tokens_this_machine_is_answered_and_that_is_said(host: str) -> None:
    assert "only this machine" in str(exposure.check(DistributeSettings(host=host)))


def test_with_tokens_nothing_is_to_be_said(tmp_path: Path) -> None:
    tokens.add(tmp_path / "tokens", "a", Role.READ, (), None)
    assert exposure.check(DistributeSettings(host="0.0.0.0", tokens_file=tmp_path / "tokens")) is None
