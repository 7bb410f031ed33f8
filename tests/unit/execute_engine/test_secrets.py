"""What the consumer takes out of results: all secrets that the engine reads."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from contract import config, secret
from execute_engine.consumer import _secrets
from execute_engine.output import Cleaner

TEXT = """\
[Fil_EXEC_MySQL]
PASSWORD = database-1
[Kafka_Cluster]
SASL_PASSWORD = kafka-kafka
[Ansible]
SSH_PASSWORD = ssh-ssh-ssh
SSH_SUDO_PASSWORD = sudo-sudo
VAULT_PASSWORD_FILE = conf/vault
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "conf/server.conf"
    path.parent.mkdir()
    path.write_text(TEXT)
    path.chmod(0o600)
    secret.new_key(path.parent / "secret.key")
    return path


def test_the_configurations_secrets_the_vaults_password_and_the_key_are_masked(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (file.parent / "vault").write_text("vault-password\n")
    key = (file.parent / "secret.key").read_text()
    cleaner = Cleaner(_secrets(config.load(file, "execute_engine")))
    said = f"database-1 kafka-kafka ssh-ssh-ssh sudo-sudo vault-password {key}"
    assert cleaner.mask(said).split() == ["***"] * 6
    assert caplog.records == []


def test_a_vault_password_that_is_too_short_is_named_once_at_the_start(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    (file.parent / "vault").write_text("short\n")
    assert "short" in _secrets(config.load(file, "execute_engine"))
    (record,) = caplog.records
    assert "VAULT_PASSWORD_FILE has fewer than 8 characters" in record.getMessage()
