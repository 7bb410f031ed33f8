"""Results survive on the engine's disk what happens to its processes and to the database."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from execute_engine import spool
from tests.daemons import Services
from tests.servers.fleet import Fleet
from tests.servers.process import wait_for

pytestmark = pytest.mark.parametrize("backend", ["embedded"], indirect=True)


def _spooled(services: Services) -> int:
    return sum(len(leftover.rows) for leftover in spool.leftovers(_state_dir(services) / "spool"))


def _state_dir(services: Services) -> Path:
    return services.backend.directory / "engine-1" / "state"


def test_results_of_an_outage_are_stored_though_the_consumer_was_killed_in_it(
    services: Services, fleet: Fleet, tmp_path: Path
) -> None:
    services.start()
    starts = tmp_path / "starts"
    task_id = services.submit_adhoc(fleet.hosts(count=4), f"echo x >> {starts}; sleep 3; echo told")
    wait_for("the commands to run", lambda: starts.exists() and len(starts.read_text().split()) == 4)

    with services.database.engine.connect() as connection:
        connection.exec_driver_sql("ROLLBACK")
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # nobody else can write
        wait_for("the results to be on disk", lambda: _spooled(services) == 4)
        (consumer,) = services.processes("execute-engine: consumer")
        os.kill(consumer, signal.SIGKILL)
        wait_for("another consumer", lambda: services.processes("execute-engine: consumer").keys() - {consumer})
        assert _spooled(services) == 4
        connection.exec_driver_sql("ROLLBACK")
        connection.execute(sa.text("SELECT 1"))

    assert services.wait_task(task_id)["counts"]["success"] == 4
    assert {item["stdout"] for item in services.hosts(task_id)} == {"told"}
    assert len(starts.read_text().split()) == 4
    wait_for("the spool to be empty", lambda: not list((_state_dir(services) / "spool").iterdir()))


@pytest.fixture
def small_disk(services: Services) -> Iterator[Path]:
    """The engine's STATE_DIR is a file system of 4 MB."""
    state_dir = _state_dir(services)
    state_dir.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(state_dir)], check=True)
    yield state_dir
    services.stop()
    subprocess.run(["umount", str(state_dir)], check=True)


def test_with_a_full_disk_the_engine_finishes_what_it_has_and_claims_nothing_more(
    services: Services, fleet: Fleet, small_disk: Path
) -> None:
    services.start()
    filling = small_disk / "filling"
    with pytest.raises(OSError, match="No space left"):
        filling.write_bytes(bytes(8 << 20))

    first = services.submit_adhoc(fleet.hosts(count=3), "echo fine", become=False)
    assert services.wait_task(first)["counts"]["success"] == 3
    wait_for("the engine to say so", lambda: "No space left" in str(services.engine()["missing"]))
    second = services.submit_adhoc(fleet.hosts(count=3), "echo fine", become=False)
    wait_for("its unit to be published", lambda: services.task(second)["units_by_state"]["published"] == 1)
    filling.unlink()
    assert services.wait_task(second)["counts"]["success"] == 3
    assert "results are kept on disk again" in services.engines[0].log()
    wait_for("nothing to be missing", lambda: services.engine()["missing"] is None)
