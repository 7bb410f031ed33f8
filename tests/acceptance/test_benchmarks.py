"""The benchmarks' smallest sizes, so that they do not rot. What they find says nothing here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.daemons import ROOT

ANSIBLE = ("engine", "ansible", "ansible, tuned")
CONTESTANTS = {
    "adhoc-cpu": {"ping: engine, key", "ping: engine, password", "ping: ansible", "ping: ansible, tuned"},
    "raw": {"engine", "clush", "clush, tuned", "parallel-ssh", "ansible, tuned"},
    "copy-template": {f"{module}: {who}" for module in ("copy", "template") for who in ANSIBLE},
    "playbook": {"engine", "ansible-playbook", "ansible-playbook, tuned"},
    "hung-cost": {"4 units", "8 units"},
    "idle-memory": {"engine", "distribute"},
    "large-post": {"answer", "first host, after the answer"},
    "fairness": {"engine, alone", "engine, behind the large task"},
    "engines": {"1 engine", "2 engines"},
    "results": {"the engine's writer", "one executemany of INSERTs"},
    "stream": {"web worker, growth"},
    "simulation": {"all engines"},
}


@pytest.mark.parametrize("name", CONTESTANTS)
def test_the_smallest_size_measures_each_contestant_and_writes_it_down(name: str, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "benchmarks", name, "--smallest", "--json", str(tmp_path)]
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    report = json.loads((tmp_path / f"{name}.json").read_text())
    assert report["contestants"].keys() >= CONTESTANTS[name]
    assert report["goals"]
    for contestant, figures in report["contestants"].items():
        assert f"\n{contestant} " in ended.stdout
        assert len(figures["samples"]) == 1
        assert figures["median"] >= 0
    for goal in report["goals"]:
        assert f"\ngoal: {goal['goal']}: " in ended.stdout


def test_the_smallest_flame_graphs_are_drawn(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "benchmarks", "flames", "--smallest", "--json", str(tmp_path)]
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    for kind, function in (("shell", "TaskExecutor.run"), ("playbook", "StrategyModule.run"), ("copy", "Hosts._serve")):
        assert function in (tmp_path / f"flames-{kind}.svg").read_text()
