from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks.cpu import spent_by, tree_cpu_seconds, tree_pss_mb

SECONDS = 0.3
BURN = f"import time\nwhile time.process_time() < {SECONDS}: pass\n"
# As ssh's masters: it leaves the command's process group and session, and outlives it. The command waits for its work.
ORPHAN = f"""
import os
reads, writes = os.pipe()
if os.fork() == 0:
    os.setsid()
    {BURN.replace(chr(10), chr(10) + "    ")}
    os.write(writes, str(os.getpid()).encode())
    time.sleep(1000)
open("orphan", "w").write(os.read(reads, 100).decode())
"""


def test_of_a_command_its_orphans_count_too_and_end_with_it(tmp_path: Path) -> None:
    spent = spent_by([sys.executable, "-c", ORPHAN], dict(os.environ), tmp_path)

    assert spent.cpu_seconds >= SECONDS
    assert not psutil.pid_exists(int((tmp_path / "orphan").read_text()))


def test_what_is_no_command_of_it_does_not_count(tmp_path: Path) -> None:
    idle = spent_by(["true"], dict(os.environ), tmp_path)

    assert idle.cpu_seconds < SECONDS


def test_a_command_that_fails_is_no_sample(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"ended with 7:\nno such host"):
        spent_by(["sh", "-c", "echo no such host; exit 7"], dict(os.environ), tmp_path)


def test_a_tree_has_the_time_of_children_that_have_ended(tmp_path: Path) -> None:
    parent = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {BURN!r}])
print("ready", flush=True)
sys.stdin.read()
"""
    with psutil.Popen([sys.executable, "-c", parent], stdin=-1, stdout=-1) as process:
        assert process.stdout.readline() == b"ready\n"
        assert tree_cpu_seconds(process.pid) >= SECONDS - 0.02, "the kernel counts in hundredths of a second"
        assert tree_pss_mb(process.pid) > 1
        process.stdin.close()
