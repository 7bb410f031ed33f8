"""script/setup: which packages each scope asks for on a machine that has none, and what containers may read."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest

from tests.daemons import ROOT
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


def test_what_containers_read_of_a_closed_clone_is_opened_to_them_and_the_secrets_are_not(tmp_path: Path) -> None:
    for folder in ("conf", "sql", "contract", "distribute", "execute_engine"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "conf/server.conf").chmod(0o600)
    call("setup", "if [", f"cd {tmp_path}; chmod -R go= {tmp_path}; prepare_compose")
    for name in ("conf/compose/nginx.conf", "sql", "contract/config.py"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) & 0o044 == 0o044, name
    for name in ("conf/server.conf", "secrets", "secrets/ssh_key", "secrets/tokens", ".env"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) & 0o077 == 0, name
