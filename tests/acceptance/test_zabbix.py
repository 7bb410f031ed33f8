"""Real services before a real Zabbix: their figures arrive, faults become problems, and the dashboard shows both.

--zabbix-picture docs/zabbix-dashboard.png keeps the dashboard of a run with some minutes of load before the faults.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from contract import __version__
from execute_engine.zabbix import items, provisioning
from tests.daemons import Daemon, Services
from tests.servers.fleet import Fleet
from tests.servers.process import wait_for
from tests.servers.zabbix import Zabbix

ENGINES = ("engine-1", "engine-2")
NO_PING, STUCK = "Engine: no ping", "Engine: consumer is stuck"
RESTARTS = "Engine: children end again and again"
ENOUGH_RESTARTS = 3
BEAT_SECONDS = 2
LOAD_SECONDS = 120
SIZE = (1500, 1070)


@pytest.mark.parametrize("backend", ["cluster"], indirect=True)
def test_work_and_faults_show_as_what_they_are(
    services: Services, zabbix: Zabbix, fleet: Fleet, pytestconfig: pytest.Config
) -> None:
    for name in ENGINES:
        server = {"IP": "127.0.0.1", "ZABBIX_PORT": zabbix.trapper_port, "HOST": name}
        config = services.backend.config_file(
            name, Zabbix=server, Data_Send={"ZABBIX": BEAT_SECONDS}, Exec_Engine={"SLOTS": 60}
        )
        zabbix.provision(config, "both" if name == ENGINES[0] else "engine")
        if name == ENGINES[0]:
            services.start_distribute(config)
        services.start_engine(config)
    for name in ENGINES:
        wait_for(f"a ping of {name}", lambda name=name: zabbix.history(name, "exec.engine.ping"))  # type: ignore[misc]

    task = services.submit_adhoc([*fleet.hosts("healthy", 4), *fleet.hosts("hang")], timeout=5, unit_hosts=2)
    services.wait_task(task)
    wait_for("its counts", lambda: _counts(zabbix) == {"hosts_finished": 5, "hosts_failed": 0, "hosts_timed_out": 1})
    known = {"exec.engine.alive", "exec.distribute.leaders"}  # worked out once a minute
    for template in items.TEMPLATES:
        for item in template.items:
            if item.key not in known:
                assert zabbix.history(ENGINES[0], item.key, item.is_text), f"{item.key} has no value"
    assert set(zabbix.history(ENGINES[0], "exec.engine.version", is_text=True)) == {__version__}
    wait_for("the end of what a slow start may show", lambda: not _faults(zabbix), 240)

    picture: Path | None = pytestconfig.getoption("zabbix_picture")
    if picture:
        _load(services, fleet)
    hung, stopped = services.engines
    stopped.stop()
    wait_for("both faults", _while_hung(hung, lambda: _shows(zabbix, {NO_PING, STUCK}, {NO_PING})), 240)
    _look(zabbix, picture)
    _consumers(hung, signal.SIGCONT)
    stopped.launch()
    wait_for("no fault", lambda: not _faults(zabbix), 240)
    _kill_again_and_again(stopped, zabbix)


def _kill_again_and_again(engine: Daemon, zabbix: Zabbix) -> None:
    """Each consumer is killed when it is seen to work, so that Zabbix takes the engine for alive."""
    name = ENGINES[1]
    before = zabbix.history(name, "exec.engine.restarts")
    assert sum(map(int, before)) == 0
    for _ in range(ENOUGH_RESTARTS):
        assert RESTARTS not in zabbix.problems(name)
        count = len(zabbix.history(name, "exec.engine.ping"))
        wait_for("pings", lambda: len(zabbix.history(name, "exec.engine.ping")) > count + 1)  # noqa: B023
        _consumers(engine, signal.SIGKILL)
    wait_for("the problem", lambda: RESTARTS in zabbix.problems(name))
    assert NO_PING not in zabbix.problems(name)
    told = lambda: sum(map(int, zabbix.history(name, "exec.engine.restarts")))  # noqa: E731
    assert told() == ENOUGH_RESTARTS


def _load(services: Services, fleet: Fleet) -> None:
    """So much to do that the picture has something to show; some hosts hang, some refuse."""
    end = time.monotonic() + LOAD_SECONDS
    number = 0
    while time.monotonic() < end:
        hosts = fleet.hosts("healthy", 12 + 9 * (number % 4))
        sick = [*fleet.hosts("hang", number % 3), *fleet.hosts("no_auth", number % 2)]
        services.submit_adhoc([*hosts, *sick], args="sleep $(( $(date +%N | cut -c 3) ))", timeout=20, unit_hosts=12)
        number += 1
        time.sleep(12)


def _counts(zabbix: Zabbix) -> dict[str, int]:
    return {
        name: sum(int(value) for engine in ENGINES for value in zabbix.history(engine, f"exec.engine.{name}"))
        for name in ("hosts_finished", "hosts_failed", "hosts_timed_out")
    }


def _consumers(engine: Daemon, number: signal.Signals) -> None:
    for pid in engine.processes("execute-engine: consumer"):
        os.kill(pid, number)


def _while_hung(engine: Daemon, condition: Callable[[], bool]) -> Callable[[], bool]:
    """The supervisor ends a consumer that hangs and starts another one, which has to hang as well."""

    def look() -> bool:
        _consumers(engine, signal.SIGSTOP)
        return condition()

    return look


def _faults(zabbix: Zabbix) -> set[str]:
    return {NO_PING, STUCK} & (zabbix.problems(ENGINES[0]) | zabbix.problems(ENGINES[1]))


def _shows(zabbix: Zabbix, *problems: set[str]) -> bool:
    return all(expected <= zabbix.problems(name) for name, expected in zip(ENGINES, problems, strict=True))


def _look(zabbix: Zabbix, picture: Path | None) -> None:
    """At the dashboard, in a browser."""
    zabbix.open_to_guests(items.HOST_GROUP)
    path = zabbix.dashboard(provisioning.DASHBOARD)
    page = zabbix.page(path)
    for graph in provisioning.GRAPHS:
        assert graph.name in page
    assert page.count("svg-graph-line") >= len(provisioning.GRAPHS), "the graphs have no data"
    assert page.count(NO_PING) >= len(ENGINES)
    if picture:
        zabbix.picture(path, picture.resolve(), SIZE)
