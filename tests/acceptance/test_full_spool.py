"""More results than SPOOL_SIZE wait for the database: the engine says so, lives on, and takes nothing more."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.daemons import Services
from tests.servers.fleet import Fleet
from tests.servers.process import wait_for

pytestmark = pytest.mark.parametrize("backend", ["mariadb alone"], indirect=True)


def _said(services: Services) -> bool:
    return "the spool has reached SPOOL_SIZE (1 MB)" in str(services.engine()["missing"])


def test_nothing_is_claimed_until_its_results_are_stored(services: Services, fleet: Fleet, tmp_path: Path) -> None:
    """Somebody keeps the rows of the first task locked, and those alone."""
    services.start(Exec_Engine={"SPOOL_SIZE": 1, "LEASE_SECONDS": 30})
    starts = tmp_path / "starts"
    command = f"echo x >> {starts}; sleep 4; head -c 60000 /dev/zero | tr '\\0' x"
    full = services.submit_adhoc(fleet.hosts(count=24), command)
    wait_for("its commands to run", lambda: starts.exists() and len(starts.read_text().split()) == 24)
    with services.database.engine.connect() as connection:
        locked = connection.execute(sa.text("SELECT id FROM host_result FOR UPDATE")).all()
        assert len(locked) == 24
        wait_for("the engine to say so", lambda: _said(services))
        after = services.submit_adhoc(fleet.hosts(count=3), "echo fine")
        wait_for("its unit to be published", lambda: services.task(after)["units_by_state"]["published"] == 1)
        beats = {_beat(services)}
        wait_for("signs of life", lambda: beats.add(_beat(services)) or len(beats) == 3)
        assert services.engine()["state"] == "live"
        assert services.task(after)["units_by_state"]["published"] == 1
        connection.rollback()

    assert services.wait_task(full)["counts"]["success"] == 24
    assert {len(item["stdout"]) for item in services.hosts(full)} == {60000}
    assert services.wait_task(after)["counts"]["success"] == 3
    wait_for("nothing to be missing", lambda: services.engine()["missing"] is None)
    assert "the spool has reached SPOOL_SIZE" in services.engines[0].log()


def _beat(services: Services) -> int:
    return services.database.read(lambda connection: int(connection.scalar(sa.text("SELECT beat FROM engine")) or 0))
