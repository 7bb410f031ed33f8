"""What a new user types first."""

from __future__ import annotations

import re
import subprocess

from tests.daemons import ROOT


def test_the_demo_names_the_sick_hosts_and_ends_with_0() -> None:
    ended = subprocess.run(["./script/demo"], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "116 of 120 hosts succeeded" in ended.stdout
    assert "14 of 15 hosts succeeded" in ended.stdout
    for sick in ("127.108.0.1  timeout", "127.108.0.2  timeout", "127.108.0.3  timeout", "127.107.0.1  unreachable"):
        assert sick in ended.stdout
    assert "127.109.0.1  timeout" in ended.stdout
    for task, hosts in (("shell", 30), ("say who it is", 15)):
        blame = (
            rf"running '{task}' for \d+ s on engine demo, no output for \d+ s; "
            rf"\d+ of the unit's {hosts} hosts had finished"
        )
        assert re.search(blame, ended.stdout)
