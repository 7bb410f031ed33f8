"""An engine with a wrong key fails fast, and must not eat what a good one could do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.daemons import Services
from tests.servers.fleet import Fleet, make_key
from tests.servers.process import wait_for


@pytest.mark.parametrize("backend", ["embedded"], indirect=True)
def test_an_engine_whose_units_end_unreachable_stops_claiming_and_says_so(
    services: Services, fleet: Fleet, tmp_path: Path
) -> None:
    services.start(engines=1, Exec_Engine={"SLOTS": 30, "NUMBER": 30})
    well = services.submit_adhoc(fleet.hosts("healthy", 30), "true", become=False)
    assert services.wait_task(well)["counts"]["success"] == 30
    wrong_key = tmp_path / "wrong"
    make_key(wrong_key)
    config = services.backend.config_file("engine-2", Ansible={"SSH_KEY_FILE": wrong_key}, Exec_Engine={"SLOTS": 200})
    services.start_engine(config)

    task_id = services.submit_adhoc(fleet.hosts("healthy", 240), "sleep 1", become=False)

    wait_for("the brake", lambda: "not on other engines" in _missing(services, "engine-2"), 120)
    counts = services.wait_task(task_id, seconds=240)["counts"]
    assert _missing(services, "engine-1") == ""
    by_engine = [item["engine"] for item in services.hosts(task_id, status="unreachable")]
    assert set(by_engine) == {"engine-2"}
    assert counts["success"] >= 30
    assert "the brake is on" in services.engines[1].log(100_000)


def _missing(services: Services, engine_id: str) -> str:
    engines = {engine["engine_id"]: engine for engine in services.api("/engines/")["data"]}
    return str(engines[engine_id]["missing"] or "")
