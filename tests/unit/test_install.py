"""script/install: where it puts a release, and what it leaves alone; without root, systemd and Python."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.unit.scripts import call

SHIPPED = ("conf/server.conf", "conf/nginx/distribute.conf", "contract/__init__.py", "README.md")


def run(folder: Path, lines: str, **variables: str) -> str:
    """What lines print, with checkout, units and state below folder, and variables set first."""
    places = {"checkout": f"{folder}/checkout", "units": f"{folder}/units", "state": f"{folder}/state"}
    given = "\n".join(f"{name}={shlex.quote(value)}" for name, value in (places | variables).items())
    return call("install", "main ", f"manager_runs() {{ return 1; }}\n{given}\n{lines}").strip()


def write(folder: Path, text: str, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def chosen(folder: Path, *arguments: str, **variables: str) -> str:
    return run(folder, f"choose_prefix {shlex.join(arguments)}; echo $prefix", **variables)


def test_a_first_release_goes_to_app(tmp_path: Path) -> None:
    assert chosen(tmp_path) == "/app/execute-engine"
    assert chosen(tmp_path, PREFIX="/srv/ee/") == "/srv/ee"


def test_an_upgrade_goes_where_the_release_is(tmp_path: Path) -> None:
    write(tmp_path / "units", "[Service]\nWorkingDirectory=-/srv/ee\n", "execute-engine.service")
    assert chosen(tmp_path) == "/srv/ee"
    assert chosen(tmp_path, "--uninstall", "--purge") == "/srv/ee"
    assert chosen(tmp_path, PREFIX="/srv/other") == "/srv/other"


@pytest.mark.parametrize("prefix", ["ee", "/", "//", "/home/x/ee", "/srv/../root/ee", "/srv/a b", "/usr/", "/etc"])
def test_a_place_that_cannot_be_ours_is_refused(tmp_path: Path, prefix: str) -> None:
    with pytest.raises(AssertionError, match="script/install: "):
        chosen(tmp_path, PREFIX=prefix)
