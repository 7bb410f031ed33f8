"""An engine whose network is cut: it lives, and nobody hears of it. Its way to the database is a link of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.daemons import Services
from tests.servers.fleet import Fleet
from tests.servers.link import Link
from tests.servers.process import wait_for

pytestmark = pytest.mark.parametrize("backend", ["mariadb alone"], indirect=True)


@pytest.fixture
def cut_off(services: Services, mariadb_link: Link) -> Services:
    """A distribute, and engine-1 behind the mariadb_link."""
    services.start_distribute(services.backend.config_file())
    services.start_engine(services.backend.config_file(Fil_EXEC_MySQL={"PORT": mariadb_link.port}))
    return services


def _lines(file: Path) -> int:
    return len(file.read_text().split()) if file.exists() else 0


def test_what_it_ran_counts_as_lost_until_it_is_heard_again(
    cut_off: Services, fleet: Fleet, mariadb_link: Link, tmp_path: Path
) -> None:
    """Its hosts are cut off as well: they end their work, and it hears of it when the network is back."""
    starts = tmp_path / "starts"
    hosts = fleet.hosts(count=3)
    task_id = cut_off.submit_adhoc(hosts, f"echo x >> {starts}; sleep 3; echo told", timeout=200)
    wait_for("three starts", lambda: _lines(starts) == 3)
    mariadb_link.cut()
    fleet.cut(*hosts)
    try:
        assert cut_off.wait_task(task_id)["counts"]["lost"] == 3
        assert all("gave no sign of life" in blame for blame in cut_off.each(task_id, "blame"))
        waiting = cut_off.submit_adhoc(hosts, "echo hi", timeout=200)
    finally:
        fleet.mend(*hosts)
    assert cut_off.task(waiting)["counts"]["queued"] == 3
    mariadb_link.mend()

    wait_for("the truth", lambda: cut_off.task(task_id)["counts"]["success"] == 3)
    assert cut_off.each(task_id, "late") == [True] * 3
    assert cut_off.each(task_id, "stdout") == ["told"] * 3
    assert _lines(starts) == 3
    assert cut_off.wait_task(waiting)["counts"]["success"] == 3
    assert cut_off.each(waiting, "attempt") == [1] * 3


def test_what_may_run_again_ends_on_its_hosts_before_it_begins_elsewhere(
    cut_off: Services, fleet: Fleet, mariadb_link: Link, tmp_path: Path
) -> None:
    """It can still reach its hosts: were its commands not ended by then, the others would find their locks taken."""
    starts, overlaps = tmp_path / "starts", tmp_path / "overlaps"
    lock = f"{tmp_path}/{{{{ inventory_hostname }}}}.lock"
    command = f"echo x >> {starts}; exec 9> {lock}; flock -n 9 || echo x >> {overlaps}; sleep 12; echo told"
    hosts = fleet.hosts(count=3)
    task_id = cut_off.submit_adhoc(hosts, command, timeout=200, template=True, on_engine_loss="rerun")
    wait_for("three starts", lambda: _lines(starts) == 3)
    cut_off.start_engine(cut_off.backend.config_file("engine-2"))
    mariadb_link.cut()
    wait_for("three more starts", lambda: _lines(starts) == 6)
    assert not cut_off.engines[0].processes("execute-engine: runner")
    mariadb_link.mend()

    assert cut_off.wait_task(task_id)["counts"]["success"] == 3
    assert cut_off.each(task_id, "attempt") == [2] * 3
    assert cut_off.each(task_id, "engine") == ["engine-2"] * 3
    assert cut_off.each(task_id, "late") == [False] * 3
    assert (_lines(starts), _lines(overlaps)) == (6, 0)

    def all_well() -> bool:
        return [(engine["state"], engine["missing"]) for engine in cut_off.api("/engines/")["data"]] == [
            ("live", None)
        ] * 2

    wait_for("both engines to take part", all_well)
