"""Of two distributes one leads: what happens when it stands still at the worst moment, and comes back."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.daemons import Services
from tests.servers.fleet import Fleet
from tests.servers.process import wait_for

pytestmark = pytest.mark.parametrize("backend", ["cluster"], indirect=True)


def test_a_leader_that_is_stopped_before_it_settles_a_dead_engine_does_no_harm_when_it_comes_back(
    services: Services, fleet: Fleet, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """It has read which units a dead engine holds; when it comes back they have been settled, and run elsewhere."""
    starts, stopped = tmp_path / "starts", tmp_path / "stopped"
    leading = services.backend.config_file("engine-1")
    services.start_distribute(leading, {"EXECUTE_ENGINE_FAIL_POINT": f"stop:settling@{stopped}"})
    first = services.distributes[0]
    wait_for("it to lead", lambda: "this dispatcher leads" in first.log())
    services.start_distribute(services.backend.config_file("engine-2"))
    engine = services.start_engine(leading)
    command = f"echo x >> {starts}; sleep 6; echo told"
    report = services.submit_adhoc(fleet.hosts(count=2), command)
    rerun = services.submit_adhoc(fleet.hosts(count=4)[2:], command, on_engine_loss="rerun")
    wait_for("the commands to run", lambda: starts.exists() and len(starts.read_text().split()) == 4)

    engine.kill()
    wait_for("the leader to stop", stopped.exists)
    (supervisor,) = first.processes("distribute: supervisor")
    os.kill(supervisor, signal.SIGSTOP)  # it would kill a dispatcher that is silent for 30 s
    request.addfinalizer(lambda: os.kill(supervisor, signal.SIGCONT))
    services.start_engine(services.backend.config_file("engine-3"))
    assert services.wait_task(report)["counts"]["lost"] == 2
    wait_for("the second attempt", lambda: len(starts.read_text().split()) == 6)
    (dispatcher,) = first.processes("distribute: dispatcher")
    os.kill(dispatcher, signal.SIGCONT)

    assert services.wait_task(rerun)["counts"]["success"] == 2
    wait_for("it to see that another one leads", lambda: "another dispatcher has taken over" in first.log())
    assert [item["attempt"] for item in services.hosts(rerun)] == [2, 2]
    assert services.task(report)["counts"]["lost"] == 2
    assert len(starts.read_text().split()) == 6
