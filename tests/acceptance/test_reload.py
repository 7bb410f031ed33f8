"""SIGHUP, as `systemctl reload` sends it: what can change does, nothing that runs notices, and what cannot is named."""

from __future__ import annotations

import contextlib
import signal
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.acceptance.service_manager import ServiceManager
from tests.acceptance.test_start import wait_log
from tests.daemons import Daemon, Services
from tests.servers.fleet import Fleet
from tests.servers.process import wait_for

pytestmark = pytest.mark.parametrize("backend", ["embedded"], indirect=True)


@pytest.fixture
def trappers() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two Zabbix servers that take connections and never answer."""
    with ExitStack() as stack:
        first, second = (stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2))
        first.setblocking(False)
        second.setblocking(False)
        yield first, second


@pytest.fixture
def go() -> Iterator[Path]:
    """A file that commands on the hosts can wait for."""
    with tempfile.TemporaryDirectory(prefix="execute-engine-go-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "go"


def reload(services: Services, daemon: Daemon, **sections: Mapping[str, object]) -> None:
    """With a file that has these keys from now on, and no others than the tests' own."""
    services.backend.config_file(**sections)
    daemon.send(signal.SIGHUP)


def wait_beat(trapper: socket.socket) -> None:
    def accepted() -> bool:
        with contextlib.suppress(BlockingIOError):
            trapper.accept()[0].close()
            return True
        return False

    wait_for("a heartbeat", accepted)


def test_an_engine_that_runs_units_is_reloaded(
    services: Services,
    fleet: Fleet,
    service_manager: ServiceManager,
    trappers: tuple[socket.socket, socket.socket],
    go: Path,
) -> None:
    has_heard = service_manager.has_heard
    config = services.backend.config_file(Exec_Engine={"SLOTS": 2, "NUMBER": 1})
    services.start_distribute(config)
    engine = services.start_engine(config, service_manager.environment)
    command = f"while ! test -e {go}; do sleep 0.1; done"
    first = services.submit_adhoc(fleet.hosts(count=4), command, become=False)
    wait_for("two units to run", lambda: len(engine.processes("execute-engine: runner")) == 2)
    before = engine.processes("execute-engine: ")
    wait_for("the status", lambda: has_heard("consumer: 2 of 2 slots in use, 2 units running, last claim "))

    zabbix = {"IP": "127.0.0.1", "ZABBIX_PORT": trappers[0].getsockname()[1]}
    wanted: dict[str, dict[str, object]] = {"Zabbix": zabbix, "Data_Send": {"ZABBIX": 1}}
    reload(services, engine, Exec_Engine={"SLOTS": 8, "LOG_LEVEL": "debug", "DRAIN_SECONDS": 7}, **wanted)
    wait_log(engine, "process=supervisor", "needs a restart: [Exec_Engine] DRAIN_SECONDS")
    wait_for("the other units to run as well", lambda: len(engine.processes("execute-engine: runner")) == 4)
    wait_for("others to know the slots", lambda: services.engine()["slots"] == 8)
    wait_log(engine, "level=debug", "process=consumer")
    wait_beat(trappers[0])
    wait_for("the service manager to hear the end", lambda: service_manager.count("READY=1") == 2)
    said = [line.split("=")[0] for line in service_manager.heard if not line.startswith("STATUS=")]
    assert said == ["READY", "RELOADING", "MONOTONIC_USEC", "READY"]

    zabbix["ZABBIX_PORT"] = trappers[1].getsockname()[1]
    reload(services, engine, Exec_Engine={"SLOTS": 1}, **wanted)
    wait_beat(trappers[1])
    wait_for("the slots to be fewer than the hosts", lambda: has_heard("4 of 1 slots in use"))
    second = services.submit_adhoc(fleet.hosts(count=2), "echo hi", become=False)

    reload(services, engine, Exec_Engine={"SLOTS": "many", "RUNNERS": -1}, **wanted)
    for key in ("SLOTS", "RUNNERS"):
        wait_log(engine, "process=supervisor", "nothing is changed", f"[Exec_Engine] {key}: expected a whole number")
    wait_for("the status", lambda: has_heard("STATUS=not reloaded: ", "[Exec_Engine] "))
    wait_beat(trappers[1])
    assert before.items() <= engine.processes("execute-engine: ").items()
    assert services.task(second)["counts"]["queued"] == 2

    go.touch()
    assert services.wait_task(first)["counts"]["success"] == 4
    assert services.wait_task(second)["counts"]["success"] == 2
    reload(services, engine, Exec_Engine={"SLOTS": 1})
    wait_for("the heartbeat to end", lambda: not engine.processes("execute-engine: heartbeat"))
    wait_for("the status", lambda: has_heard("STATUS=consumer: 0 of 1 slots in use, 0 units running, "))


def test_a_distribute_that_answers_is_reloaded(
    services: Services, service_manager: ServiceManager, trappers: tuple[socket.socket, socket.socket]
) -> None:
    zabbix = {"IP": "127.0.0.1", "ZABBIX_PORT": trappers[0].getsockname()[1]}
    wanted: dict[str, dict[str, object]] = {"Zabbix": zabbix, "Data_Send": {"ZABBIX": 1}}
    distribute = services.start_distribute(services.backend.config_file(**wanted), service_manager.environment)
    wait_for(
        "the status",
        lambda: service_manager.has_heard("STATUS=web: answers on 127.0.0.1, port ", "leads; tasks open: 0"),
    )
    wait_for("both workers", lambda: len(distribute.processes("distribute: web worker")) == 2)
    before = distribute.processes("distribute: ")

    wait_beat(trappers[0])
    limited = {"REQUESTS_PER_SECOND": 1, "LOG_LEVEL": "warning", "WORKERS": 3}
    reload(services, distribute, Distribute=limited, **wanted)
    wait_log(distribute, "process=supervisor", 'changed="[Distribute] REQUESTS_PER_SECOND, [Distribute] LOG_LEVEL"')
    wait_log(distribute, "process=supervisor", 'msg="needs a restart: [Distribute] WORKERS"')
    wait_for("a request too many", lambda: services.api("/tasks/")["code"] == 429)

    zabbix["ZABBIX_PORT"] = trappers[1].getsockname()[1]
    reload(services, distribute, Distribute={"REQUESTS_PER_SECOND": 0}, **wanted)
    wait_beat(trappers[1])
    wait_for(
        "all requests to be answered again", lambda: all(services.api("/tasks/")["code"] == 200 for _ in range(40))
    )
    assert distribute.processes("distribute: ").keys() == before.keys()


@pytest.mark.parametrize("module", ["distribute", "execute_engine"])
def test_a_configuration_that_cannot_be_used_is_named_in_the_status(
    services: Services, service_manager: ServiceManager, module: str
) -> None:
    config = services.backend.config_file(Kafka_Cluster={"PARTITIONS": "many"}, Fil_EXEC_MySQL={"PORT": 0})
    daemon = Daemon(services.backend.directory, "broken", module, config, "broken")
    daemon.launch(service_manager.environment)
    wait_for("its end", lambda: not daemon.alive)
    assert daemon.stop() == 78
    assert service_manager.has_heard(f"STATUS={config}:", "PARTITIONS: expected a whole number")
    assert [line.count("expected a whole number") for line in daemon.log().splitlines()] == [0, 1, 1]
