"""Functions of the shell scripts, called one by one: a script's last lines, which start it, are left out."""

from __future__ import annotations

import os
import subprocess

from tests.daemons import ROOT


def call(script: str, start: str, lines: str) -> str:
    """What lines print with the functions of script/SCRIPT up to the line that begins with start.

    Raises AssertionError with both streams when they fail.
    """
    head, found, _ = (ROOT / "script" / script).read_text().partition(f"\n{start}")
    assert found, f"script/{script} has no line that begins with {start!r}"
    ended = subprocess.run(
        ["bash", "-c", f"{head}\n{lines}", str(ROOT / "script" / script)],
        env=dict(os.environ), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout
