"""script/install: where it puts a release, and what it leaves alone; without root, systemd and Python."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

import pytest

from tests.daemons import ROOT
from tests.unit.scripts import call

SHIPPED = ("conf/server.conf", "conf/nginx/distribute.conf", "contract/__init__.py", "README.md")


def run(folder: Path, lines: str, **variables: str) -> str:
    """What lines print, with checkout, units and state below folder, and variables set first."""
    places = {"checkout": f"{folder}/checkout", "units": f"{folder}/units", "state": f"{folder}/state"}
    given = "\n".join(f"{name}={shlex.quote(value)}" for name, value in (places | variables).items())
    return call("install", "main ", f"manager_runs() {{ return 1; }}\n{given}\n{lines}").strip()


def test_a_python_in_somebodys_home_is_not_taken(tmp_path: Path) -> None:
    for home, seen in (("/home/x/python/bin/python3.11", False), ("/root/python/bin/python", False), ("/bin/sh", True)):
        (tmp_path / "python").unlink(missing_ok=True)
        (tmp_path / "python").symlink_to(home)
        lines = f"as_service() {{ :; }}; services_see_python {tmp_path}/python && echo seen || echo hidden"
        assert run(tmp_path, lines) == ("seen" if seen else "hidden")


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming somebody else needs root")
def test_what_is_tried_as_the_services_user_has_none_of_roots_rights(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    shutil.copy("/bin/true", tmp_path / "program")  # and no script, which its shell would have to read
    for program, told in (("/bin/true", "started"), (f"{tmp_path}/program", "refused")):
        lines = f"as_service {program} 2>/dev/null && echo started || echo refused"
        assert run(tmp_path, lines, user="daemon") == told


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


def test_the_folders_of_conf_that_are_shipped_are_those_of_the_repository(tmp_path: Path) -> None:
    folders = {path.name for path in (ROOT / "conf").iterdir() if path.is_dir()}
    assert set(run(tmp_path, "echo ${shipped[*]}").split()) == folders


def upgrade(folder: Path, *, before: str = "") -> Path:
    """The release of folder/checkout, instead of what is in folder/prefix; before is run between the two steps."""
    write(folder / "checkout", "shipped", *SHIPPED)
    small = "release=(contract README.md) shipped=(nginx)"
    steps = f"{small}\nprepare_release $prefix.new\n{before}\ntake_place $prefix.new\nlink_data $prefix"
    run(folder, steps, prefix=f"{folder}/prefix")
    assert {path.name for path in folder.glob("prefix*")} == {"prefix"}
    return folder / "prefix"


def test_a_first_release_has_the_configuration_of_its_checkout(tmp_path: Path) -> None:
    write(tmp_path / "checkout", "the checkout's", "conf/secret.key")
    prefix = upgrade(tmp_path)
    assert {(prefix / f"conf/{name}").read_text() for name in ("server.conf", "server.conf.shipped")} == {"shipped"}
    assert (prefix / "conf/secret.key").read_text() == "the checkout's"
    assert (prefix / "data").readlink() == tmp_path / "state"


def test_an_upgrade_keeps_what_is_the_operators_whatever_the_checkout_has(tmp_path: Path) -> None:
    operators = ("conf/server.conf", "conf/secret.key", "conf/tokens", "conf/nginx/own.conf", "note", ".hidden")
    write(tmp_path / "prefix", "the operator's", *operators)
    write(tmp_path / "prefix", "old", "conf/nginx/distribute.conf", "contract/__init__.py", "contract/gone.py")
    (tmp_path / "prefix/link").symlink_to("nowhere")
    (tmp_path / "big").mkdir()
    (tmp_path / "prefix/data").symlink_to(tmp_path / "big")
    write(tmp_path / "checkout", "the checkout's", "conf/secret.key", "conf/tokens")
    prefix = upgrade(tmp_path)
    assert {name: (prefix / name).read_text() for name in operators} == dict.fromkeys(operators, "the operator's")
    assert {(prefix / name).read_text() for name in SHIPPED[1:]} == {"shipped"}
    assert not (prefix / "contract/gone.py").exists()
    assert (prefix / "link").readlink() == Path("nowhere")
    assert (prefix / "data").readlink() == tmp_path / "big"


def test_a_token_that_is_revoked_while_the_engine_drains_stays_revoked(tmp_path: Path) -> None:
    write(tmp_path / "prefix", "two tokens", "conf/tokens", "conf/server.conf")
    prefix = upgrade(tmp_path, before="echo one token >$prefix/conf/tokens")
    assert (prefix / "conf/tokens").read_text() == "one token\n"


@pytest.mark.parametrize("has_new", [False, True])
def test_an_upgrade_that_was_cut_short_loses_nothing(tmp_path: Path, has_new: bool) -> None:
    write(tmp_path / "prefix.replaced", "the operator's", "conf/server.conf", "data/db")
    if has_new:
        write(tmp_path / "prefix", "the operator's", "conf/server.conf")
    run(tmp_path, "resume", prefix=f"{tmp_path}/prefix")
    for name in ("conf/server.conf", "data/db"):
        assert (tmp_path / "prefix" / name).read_text() == "the operator's"
    assert not (tmp_path / "prefix.replaced").exists()


def test_a_failure_after_the_stop_starts_what_ran(tmp_path: Path) -> None:
    write(tmp_path / "prefix", "the operator's", "conf/server.conf")
    started = run(
        tmp_path,
        """
running() { echo execute-engine; echo distribute; }
systemctl() { [ "$1" = stop ] || echo "$@"; }
install_python() { :; }
protect_configuration() { :; }
check_configuration() { :; }
take_place() { mv $prefix $prefix.replaced; exit 3; }
(trap finish EXIT; install_services $prefix.new) || echo "ended with $?"
""",
        prefix=f"{tmp_path}/prefix",
    )
    assert started.splitlines()[-3:] == ["start distribute.service", "start execute-engine.service", "ended with 3"]
    assert (tmp_path / "prefix/conf/server.conf").exists()


@pytest.mark.parametrize("is_checkout", [False, True])
def test_uninstall_takes_the_release_and_keeps_what_is_the_operators(tmp_path: Path, is_checkout: bool) -> None:
    operators = ("prefix/conf/tokens", "prefix/note", "prefix/data/db", "units/distribute.service.d/60-local.conf")
    write(tmp_path, "the operator's", *operators)
    units = ("distribute.service", "execute-engine.service.d/50-configuration.conf")
    write(tmp_path / "units", "ours", *units, "distribute.service.d/50-configuration.conf")
    write(tmp_path / "prefix", "ours", *SHIPPED, ".venv/bin/python")
    if not is_checkout:
        write(tmp_path / "prefix", "ours", "conf/server.conf.shipped")
    run(tmp_path, "chown() { :; }; uninstall ''", prefix=f"{tmp_path}/prefix")
    assert {(tmp_path / name).read_text() for name in operators} == {"the operator's"}
    assert [path.name for path in (tmp_path / "units").iterdir()] == ["distribute.service.d"]
    assert (tmp_path / "prefix/conf/server.conf").exists()
    assert not (tmp_path / "prefix/.venv").exists()
    assert (tmp_path / "prefix/contract").exists() == is_checkout


def test_uninstall_takes_the_link_to_the_state_and_no_other(tmp_path: Path) -> None:
    for target, stays in ((tmp_path / "state", False), (tmp_path / "big", True)):
        write(tmp_path / "prefix", "ours", "conf/server.conf.shipped")
        (tmp_path / "prefix/data").symlink_to(target)
        run(tmp_path, "uninstall ''", prefix=f"{tmp_path}/prefix")
        assert (tmp_path / "prefix/data").is_symlink() == stays
