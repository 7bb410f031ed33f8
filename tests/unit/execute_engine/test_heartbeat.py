from __future__ import annotations

import json
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


def test_progress_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert progress.read(tmp_path) is None
    report = Report(tmp_path, "a")
    report.write({"slots": 60}, {"hosts_finished": 7}, {"database": 0.5})
    assert progress.read(tmp_path) == Progress("a", 1, {"slots": 60}, {"hosts_finished": 7}, {"database": 0.5})
    assert json.loads((tmp_path / "progress").read_text()) == SHOWN
    report.write({})
    assert progress.read(tmp_path) == Progress("a", 2, {}, {}, {})


def test_anything_else_is_none(tmp_path: Path) -> None:
    former = {"counter": 3, "incarnation": "a", "slots": 60, "free_slots": 30}
    strange = [{**SHOWN, "figures": []}, {**SHOWN, "totals": {"x": "much"}}, {**SHOWN, "silent": None}]
    for text in ("", "[]", "{}", "{", "null", "3", *map(json.dumps, (former, *strange))):
        (tmp_path / "progress").write_text(text)
        assert progress.read(tmp_path) is None, text


def test_a_full_disk_is_logged_and_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Report(tmp_path / "nowhere", "a").write({})
    assert "STATE_DIR cannot be written" in caplog.text
