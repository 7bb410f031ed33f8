from __future__ import annotations

import json
import zlib
from pathlib import Path

import pytest

from execute_engine import progress
from execute_engine.progress import Progress, Report

SHOWN = {
    "incarnation": "a",
    "counter": 1,
    "figures": {"slots": 60},
    "totals": {"hosts_finished": 7},
    "silent": {"database": 0.5},
}


def checked(line: str) -> str:
    return f"{line}\n{zlib.crc32(line.encode()):08x}\n"


def test_progress_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert progress.read(tmp_path) is None
    report = Report(tmp_path, "a")
    report.write({"slots": 60}, {"hosts_finished": 7}, {"database": 0.5})
    assert progress.read(tmp_path) == Progress("a", 1, {"slots": 60}, {"hosts_finished": 7}, {"database": 0.5})
    assert json.loads((tmp_path / "progress").read_text().splitlines()[0]) == SHOWN
    report.write({})
    assert progress.read(tmp_path) == Progress("a", 2, {}, {}, {})


def test_anything_else_is_none(tmp_path: Path) -> None:
    former = {"counter": 3, "incarnation": "a", "slots": 60, "free_slots": 30}
    strange = [{**SHOWN, "figures": []}, {**SHOWN, "totals": {"x": "much"}}, {**SHOWN, "silent": None}]
    for text in ("", "[]", "{}", "{", "null", "3", *map(json.dumps, (former, *strange))):
        for written in (text, checked(text)):
            (tmp_path / "progress").write_text(written)
            assert progress.read(tmp_path) is None, written


def test_a_shorter_one_takes_the_place_of_a_longer_one(tmp_path: Path) -> None:
    report = Report(tmp_path, "a")
    report.write(dict.fromkeys(map(str, range(100)), 1))
    report.write({"slots": 60})
    assert progress.read(tmp_path) == Progress("a", 2, {"slots": 60}, {}, {})


def test_half_of_one_is_none(tmp_path: Path) -> None:
    """What a reader may find while it is written."""
    whole = checked(json.dumps(SHOWN))
    (tmp_path / "progress").write_text(whole)
    assert progress.read(tmp_path) is not None
    (tmp_path / "progress").write_text(whole.replace("60", "61"))
    assert progress.read(tmp_path) is None


def test_a_full_disk_is_logged_and_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Report(tmp_path / "nowhere", "a").write({})
    assert "STATE_DIR cannot be written" in caplog.text
