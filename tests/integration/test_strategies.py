"""Under `free` no host waits for a moment longer than its own tasks need."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runner_process import make_job, preloaded
from tests.servers.fleet import Fleet

TASKS = 15
PLAYBOOK = f"""\
- hosts: all
  gather_facts: false
  tasks:
{"".join(f"    - raw: echo {number}{chr(10)}" for number in range(TASKS))}"""


@pytest.mark.parametrize("strategy", ["free", "linear"])
def test_a_strategy_is_woken_whenever_there_is_something_to_do(fleet: Fleet, tmp_path: Path, strategy: str) -> None:
    with preloaded(tmp_path / "log", {"STRATEGY_SAFETY_SECONDS": "3600"}) as parent:
        job = make_job(
            fleet.hosts(count=6), fleet.port, fleet.key, tmp_path, playbook_content=PLAYBOOK, strategies=(strategy,)
        )
        runner = parent.start(job)  # read() fails when nothing comes for long: a missed wake-up costs an hour here
        assert runner.result() == 0
        assert [done["tasks_ok"] for done in runner.done().values()] == [TASKS] * 6
