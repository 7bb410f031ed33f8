from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from contract import secret
from contract.errors import SecretError


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "secret.key"
    secret.new_key(path)
    return path


def command(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "contract.secret", *arguments], input=text, capture_output=True, text=True, timeout=120
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_a_key_that_root_makes_is_its_folders_owners(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12346)
    secret.new_key(key := tmp_path / "of-root.key")
    assert (key.stat().st_uid, key.stat().st_gid, key.stat().st_mode & 0o777) == (12345, 12346, 0o600)


@pytest.mark.parametrize("value", ["päss wörd %#;", "x" * 5000, "enc:nested"])
def test_what_is_encrypted_can_be_decrypted(key: Path, value: str) -> None:
    encrypted = secret.encrypt(value, key)
    assert encrypted.startswith("enc:")
    assert value not in encrypted
    assert secret.decrypt(encrypted, key) == value


def test_a_fingerprint_is_the_same_for_the_same_value_and_key(key: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.key"
    secret.new_key(other)
    seen = {secret.fingerprint(value, path) for value in ("a", "b") for path in (key, other, key)}
    assert len(seen) == 4
    assert all(len(found) == 64 for found in seen)


def test_a_new_key_is_readable_by_its_owner_only_and_never_replaces_one(key: Path) -> None:
    before = key.read_bytes()
    assert key.stat().st_mode & 0o777 == 0o600
    with pytest.raises(SecretError, match="is there already"):
        secret.new_key(key)
    assert key.read_bytes() == before


def test_another_key_or_damage_is_told_without_the_value(key: Path, tmp_path: Path) -> None:
    encrypted = secret.encrypt("the password", key)
    other = tmp_path / "other.key"
    secret.new_key(other)
    for text, path in ((encrypted, other), (encrypted[:-10], key), ("enc:", key), ("enc:äöü", key)):
        with pytest.raises(SecretError, match="damaged or was encrypted with another key") as caught:
            secret.decrypt(text, path)
        assert encrypted[4:] not in str(caught.value)


def test_a_key_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    path = tmp_path / "key"
    with pytest.raises(SecretError, match="cannot be read: No such file"):
        secret.encrypt("x", path)
    path.write_text("no key at all")
    path.chmod(0o644)
    with pytest.raises(SecretError, match="has mode 0644, expected 0600"):
        secret.encrypt("x", path)
    path.chmod(0o400)
    with pytest.raises(SecretError, match="holds no key"):
        secret.encrypt("x", path)


def test_the_key_file_is_named_by_the_environment_or_stands_beside_the_configuration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("EXECUTE_ENGINE_SECRET_KEY_FILE", raising=False)
    assert secret.key_file(Path("/x/conf")) == Path("/x/conf/secret.key")
    monkeypatch.setenv("EXECUTE_ENGINE_SECRET_KEY_FILE", "/run/key")
    assert secret.key_file(Path("/x/conf")) == Path("/run/key")


def test_the_command_makes_a_key_encrypts_and_checks(tmp_path: Path) -> None:
    key = str(tmp_path / "k")
    assert command("new-key", "--key-file", key).returncode == 0
    encrypted = command("encrypt", "--key-file", key, text="a password\n")
    assert encrypted.stdout.startswith("enc:")
    assert encrypted.stderr == ""
    assert secret.decrypt(encrypted.stdout.strip(), Path(key)) == "a password"
    checked = command("check", "--key-file", key, text=encrypted.stdout)
    assert (checked.returncode, checked.stdout) == (0, "")
    assert "a password" not in checked.stderr


@pytest.mark.parametrize(
    ("action", "text", "said"),
    [
        ("encrypt", "", "expected a value on standard input"),
        ("check", "enc:nonsense", "damaged"),
        ("new-key", "", "there"),
    ],
)
def test_the_command_fails_with_one_line(key: Path, action: str, text: str, said: str) -> None:
    failed = command(action, "--key-file", str(key), text=text)
    assert failed.returncode == 1
    assert said in failed.stderr
    assert failed.stderr.count("\n") == 1


def test_the_command_takes_no_value_from_its_arguments(key: Path) -> None:
    assert command("encrypt", "a password", "--key-file", str(key)).returncode == 2


def test_importing_it_does_not_load_the_cipher() -> None:
    code = "import contract.config, sys; sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ, timeout=120).returncode == 0
