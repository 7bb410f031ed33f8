"""script/units.py: what the units take from the configuration."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from contract import config
from contract.config import Config
from contract.supervisor import STOP_SPARE_SECONDS
from distribute.__main__ import ROLES
from execute_engine.__main__ import CONSUMER_END_SECONDS
from tests.daemons import ROOT, config_text

sys.path.insert(0, str(ROOT / "script"))
units = importlib.import_module("units")

ENGINE, DISTRIBUTE = units.SERVICES


def settings(folder: Path, **sections: dict[str, object]) -> Config:
    (folder / "conf").mkdir(exist_ok=True)
    (folder / "conf/server.conf").write_text(config_text(sections))
    return config.load(folder / "conf/server.conf")


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_the_stop_lasts_longer_than_the_longest_drain(tmp_path: Path) -> None:
    text = units.drop_in(ENGINE, settings(tmp_path, Exec_Engine={"DRAIN_SECONDS": 7}))
    assert f"TimeoutStopSec={7 + CONSUMER_END_SECONDS + STOP_SPARE_SECONDS:.0f}" in lines(text)
    assert "TimeoutStopSec" not in units.drop_in(DISTRIBUTE, settings(tmp_path))


def test_the_shipped_unit_waits_for_the_shipped_drain() -> None:
    shipped = config.load(ROOT / "conf/server.conf", "units")
    (line,) = re.findall("^TimeoutStopSec=.*$", units.unit(ENGINE, ROOT), re.MULTILINE)
    assert line in lines(units.drop_in(ENGINE, shipped))


def test_distribute_has_more_time_to_stop_than_its_children() -> None:
    (seconds,) = re.findall("^TimeoutStopSec=([0-9]+)$", units.unit(DISTRIBUTE, ROOT), re.MULTILINE)
    assert int(seconds) >= max(ROLES.values()) + STOP_SPARE_SECONDS


def test_places_that_are_written_to_are_opened_unless_they_are_below_the_state_directory(tmp_path: Path) -> None:
    given = settings(
        tmp_path,
        Exec_Engine={"STATE_DIR": '/srv/100% "state"'},
        Distribute={"FILES_DIR": "/srv/files"},
        Fil_EXEC_MySQL={"SQLITE_FILE": units.STATE / "execute_engine.db"},
    )
    assert 'ReadWritePaths="/srv/100%% \\"state\\""' in lines(units.drop_in(ENGINE, given))
    assert lines(units.drop_in(DISTRIBUTE, given)) == ["[Service]", 'ReadWritePaths="/srv/files"']


def test_a_link_to_the_state_directory_needs_no_line(tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(units.STATE)
    assert lines(units.drop_in(DISTRIBUTE, settings(tmp_path))) == ["[Service]"]


def test_a_database_elsewhere_opens_no_folder_for_sqlite(tmp_path: Path) -> None:
    given = settings(tmp_path, Fil_EXEC_MySQL={"IP": "10.0.0.1", "USER": "ee", "SQLITE_FILE": "/srv/sqlite/db"})
    assert "/srv/sqlite" not in units.drop_in(ENGINE, given)


def test_what_the_units_hide_is_said_by_its_key() -> None:
    shipped = config.load(ROOT / "conf/server.conf", "units")
    hidden = replace(
        shipped,
        ansible=replace(shipped.ansible, ssh_key_file=Path("/root/.ssh/id")),
        distribute=replace(shipped.distribute, files_dir=Path("/home/x/files"), tokens_file=Path("/homes/tokens")),
        engine=replace(shipped.engine, state_dir=Path("/srv/../tmp/engine")),
    )
    places = {units.ROOT / "data/engine", units.ROOT / "data/files", units.ROOT / "data/execute_engine.db"}
    said = [line for line in units.unseen(hidden) if not any(f"found {place};" in line for place in places)]
    assert [line.partition(":")[0] for line in said] == [
        "[Ansible] SSH_KEY_FILE", "[Distribute] FILES_DIR", "[Exec_Engine] STATE_DIR",
    ]  # fmt: skip
    for unit in units.SERVICES:
        assert {"ProtectHome=yes", "PrivateTmp=yes"} <= set(lines(units.unit(unit, ROOT)))


@pytest.mark.parametrize("service", units.SERVICES)
def test_a_release_at_another_place_has_units_of_its_own(service: str) -> None:
    text = units.unit(service, Path("/opt/ee"))
    assert "/app/" not in text
    assert f"/opt/ee/.venv/bin/python -m {service.replace('-', '_')} --config /opt/ee/conf/server.conf" in text


def test_check_says_every_problem_and_ends_with_78(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/server.conf").write_text("[Exec_Engine]\nSLOTS = many\nNUMBER = few\n")
    (tmp_path / "script").mkdir()
    (tmp_path / "script/units.py").write_bytes((ROOT / "script/units.py").read_bytes())
    command = [sys.executable, "script/units.py", "check"]
    ended = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr.count("expected a whole number")) == (78, 2), ended.stderr
