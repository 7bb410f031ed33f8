"""Engines that die, pause, end or are short of something in mid unit: what becomes of their hosts, by real daemons."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.daemons import Services
from tests.servers.fleet import Fleet
from tests.servers.process import wait_for

pytestmark = pytest.mark.parametrize("backend", ["embedded"], indirect=True)
LEASE_SECONDS = 6  # of tests.daemons


class Load:
    """A command whose starts on the hosts are counted, one line each."""

    def __init__(self, services: Services, directory: Path) -> None:
        self._services = services
        self._file = directory / "starts"

    def submit(self, hosts: list[str], seconds: int, **fields: object) -> str:
        command = f"echo x >> {self._file}; sleep {seconds}; echo told"
        return self._services.submit_adhoc(hosts, command, **{"timeout": 200, **fields})

    @property
    def starts(self) -> int:
        return len(self._file.read_text().split()) if self._file.exists() else 0

    def wait_for_starts(self, count: int) -> None:
        wait_for(f"{count} starts", lambda: self.starts == count)


@pytest.fixture
def load(services: Services, tmp_path: Path) -> Load:
    return Load(services, tmp_path)


def _counts(services: Services, task_id: str) -> dict[str, int]:
    return {status: count for status, count in services.task(task_id)["counts"].items() if count}


def _has(services: Services, task_id: str, **counts: int) -> bool:
    return _counts(services, task_id) == counts


@pytest.mark.parametrize("titles", [("supervisor", "consumer"), ("",)], ids=["its services", "a wedged machine"])
def test_results_of_an_engine_that_was_paused_for_longer_than_its_lease_come_late(
    services: Services, fleet: Fleet, load: Load, titles: tuple[str, ...]
) -> None:
    services.start()
    task_id = load.submit(fleet.hosts(count=3), 4)
    load.wait_for_starts(3)
    paused = [pid for title in titles for pid in services.processes(f"execute-engine: {title}")]
    for pid in paused:
        os.kill(pid, signal.SIGSTOP)
    task = services.wait_task(task_id)
    assert task["counts"]["lost"] == 3
    assert all("gave no sign of life" in blame for blame in services.each(task_id, "blame"))
    for pid in reversed(paused):
        os.kill(pid, signal.SIGCONT)

    wait_for("the truth", lambda: _has(services, task_id, success=3))
    assert services.each(task_id, "late") == [True] * 3
    assert services.each(task_id, "stdout") == ["told"] * 3
    assert load.starts == 3
    again = load.submit(fleet.hosts(count=2), 0)
    assert services.wait_task(again)["counts"]["success"] == 2


def test_the_hosts_of_a_killed_engine_run_again_elsewhere_where_the_request_says_so(
    services: Services, fleet: Fleet, load: Load
) -> None:
    services.start(engines=2)
    rerun = load.submit(fleet.hosts(count=3), 8, on_engine_loss="rerun")
    load.wait_for_starts(3)
    (busy,) = [engine for engine in services.engines if engine.processes("execute-engine: runner")]
    busy.kill()
    assert services.wait_task(rerun)["counts"]["success"] == 3
    assert services.each(rerun, "attempt") == [2] * 3
    assert load.starts == 6


def test_while_the_database_is_away_what_may_run_again_ends_and_the_rest_goes_on(
    services: Services, fleet: Fleet, load: Load
) -> None:
    services.start()
    hosts = fleet.hosts(count=4)
    rerun = load.submit(hosts[:2], 15, on_engine_loss="rerun")
    report = load.submit(hosts[2:], 15)
    load.wait_for_starts(4)
    with _locked(services):
        wait_for("one runner to end", lambda: len(services.processes("execute-engine: runner")) == 1, 60)
    assert services.wait_task(report)["counts"]["success"] == 2
    assert services.wait_task(rerun)["counts"]["success"] == 2
    assert services.each(report, "attempt") == [1, 1]
    assert services.each(rerun, "attempt") == [2, 2]
    assert load.starts == 6


@contextlib.contextmanager
def _locked(services: Services) -> Iterator[None]:
    """Nobody else can write into the database."""
    with services.database.engine.connect() as connection:
        connection.exec_driver_sql("ROLLBACK")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("BEGIN")


def test_a_unit_whose_runners_die_is_tried_three_times(services: Services, fleet: Fleet, load: Load) -> None:
    services.start()
    task_id = load.submit(fleet.hosts(count=2), 600, on_engine_loss="rerun")
    for attempt in (1, 2, 3):
        load.wait_for_starts(2 * attempt)
        (runner,) = services.processes("execute-engine: runner")
        os.kill(runner, signal.SIGKILL)
        wait_for("the runner to be gone", lambda: runner not in services.processes("execute-engine: runner"))  # noqa: B023
    assert services.wait_task(task_id)["counts"]["lost"] == 2
    for item in services.hosts(task_id):
        assert (item["attempt"], item["late"]) == (3, False)
        assert "killed by SIGKILL" in item["blame"]
        assert "This was attempt 3 of 3." in item["blame"]
    assert load.starts == 6


def test_a_consumer_that_dies_right_after_it_gave_hosts_back_gives_them_back_once(
    services: Services, fleet: Fleet, load: Load, tmp_path: Path
) -> None:
    config, passed = services.backend.config_file(), tmp_path / "passed"
    services.start_distribute(config)
    services.start_engine(config, {"EXECUTE_ENGINE_FAIL_POINT": f"given-back@{passed}"})
    task_id = load.submit(fleet.hosts(count=2), 5, on_engine_loss="rerun")
    load.wait_for_starts(2)
    (runner,) = services.processes("execute-engine: runner")
    os.kill(runner, signal.SIGKILL)
    assert services.wait_task(task_id)["counts"]["success"] == 2
    assert passed.exists()
    assert services.each(task_id, "attempt") == [2, 2]
    assert load.starts == 4


def test_when_a_runner_dies_hosts_that_were_not_begun_run_and_the_others_are_lost(
    services: Services, fleet: Fleet, tmp_path: Path
) -> None:
    """serial: 1, so that only the first host is begun; it sleeps at its first attempt."""
    services.start()
    first, *others = fleet.hosts(count=3)
    flag = tmp_path / "begun"
    content = f"""\
- hosts: all
  gather_facts: false
  serial: 1
  tasks:
    - {{name: work, shell: "test -e {flag} || (touch {flag}; sleep 600)", become: true}}
"""
    task_id = services.submit_playbook([first, *others], content, timeout=200)
    wait_for("the first host", flag.exists)
    (runner,) = services.processes("execute-engine: runner")
    os.kill(runner, signal.SIGSEGV)
    services.wait_task(task_id)
    by_host = {item["ip"]: item for item in services.hosts(task_id)}
    assert (by_host[first]["status"], by_host[first]["attempt"]) == ("lost", 1)
    assert "killed by SIGSEGV" in by_host[first]["blame"]
    assert {(by_host[host]["status"], by_host[host]["attempt"]) for host in others} == {("success", 2)}


@pytest.mark.parametrize("signals", [1, 2])
def test_the_end_of_a_drain_settles_what_runs_at_once(
    services: Services, fleet: Fleet, load: Load, signals: int
) -> None:
    """The deadline of the drain, or a second SIGTERM before it."""
    services.start(engines=1, Exec_Engine={"DRAIN_SECONDS": 2 if signals == 1 else 600, "LEASE_SECONDS": 600})
    report = load.submit(fleet.hosts(count=2), 500)
    rerun = load.submit(fleet.hosts(count=4)[2:], 500, on_engine_loss="rerun")
    load.wait_for_starts(4)
    engine = services.engines[0]
    (consumer,) = engine.processes("execute-engine: consumer")
    engine.send(signal.SIGTERM)
    if signals == 2:
        wait_for("the drain", lambda: "draining" in engine.log())
        os.kill(consumer, signal.SIGTERM)
    wait_for("the engine to end", lambda: not engine.processes(), 90)

    assert services.wait_task(report)["counts"]["lost"] == 2
    for item in services.hosts(report):
        assert item["blame"].startswith("the engine was stopped: running 'shell' for ")
        assert item["stopped_on_host"] == "yes"
    wait_for("the others to wait", lambda: _has(services, rerun, queued=2))
    assert load.starts == 4


def test_an_engine_without_descriptors_gives_its_units_back_and_says_so(
    services: Services, fleet: Fleet, load: Load
) -> None:
    services.start()
    (pid,) = services.processes("execute-engine: consumer")
    consumer = psutil.Process(pid)
    _, most = consumer.rlimit(psutil.RLIMIT_NOFILE)
    consumer.rlimit(psutil.RLIMIT_NOFILE, (consumer.num_fds() + 1, most))
    task_id = load.submit(fleet.hosts(count=2), 0)

    def said() -> bool:
        return "no unit can be started" in str(services.engine()["missing"])

    wait_for("the engine to say so", said)
    assert _counts(services, task_id).keys() == {"queued"}
    consumer.rlimit(psutil.RLIMIT_NOFILE, (most, most))
    assert services.wait_task(task_id)["counts"]["success"] == 2
    assert services.each(task_id, "attempt") == [1, 1]
