"""Heartbeats of real services: what Zabbix gets, also of a hung consumer, and that nobody waits for Zabbix."""

from __future__ import annotations

import os
import signal

import pytest
import sqlalchemy as sa

from tests.daemons import Services
from tests.servers.fleet import Fleet
from tests.servers.process import wait_for
from tests.servers.trapper import Serve, TrapperServer, drips, hangs, takes


def zabbix(*servers: TrapperServer) -> dict[str, dict[str, object]]:
    addresses = ", ".join(f"127.0.0.1:{server.port}" for server in servers)
    return {"Zabbix": {"IP": addresses, "HOST": "engine-host"}, "Data_Send": {"ZABBIX": 2}}


def _all(servers: list[TrapperServer]) -> list[dict[str, str]]:
    return [values for server in servers for values in engines(server)]


def engines(server: TrapperServer) -> list[dict[str, str]]:
    """What the engine has sent; distribute sends to the same server."""
    return [values for values in server.received if "exec.engine.version" in values]


@pytest.mark.parametrize("backend", ["cluster"], indirect=True)
def test_figures_of_running_units_and_the_truth_about_a_hung_consumer(
    services: Services, fleet: Fleet, serve: Serve
) -> None:
    server = serve(takes())
    services.start(Exec_Engine={"DRAIN_SECONDS": 60}, **zabbix(server))
    well, failing = fleet.hosts("healthy", 3), fleet.hosts("refused", 1)
    task = services.submit_adhoc([*well, *failing], "sleep 10")

    def newest() -> dict[str, str]:
        return engines(server)[-1] if engines(server) else {}

    def is_busy() -> bool:
        shown = newest()
        return (shown.get("exec.engine.hosts"), shown.get("exec.engine.kafka")) == ("3", "1")

    wait_for("a busy engine", is_busy)
    busy = newest()
    assert busy["exec.engine.ping"] == busy["exec.engine.consumer"] == busy["exec.engine.units"] == "1"
    assert busy["exec.engine.slots_used"] == "3"
    assert busy["exec.engine.share"] == busy["exec.engine.database"] == "1"
    assert {"unkillable", "dropped", "braked", "spooled"} <= {key.split(".")[2] for key in busy}
    wait_for("an old host", lambda: int(newest()["exec.engine.oldest_host_seconds"]) >= 3)
    services.wait_task(task)
    wait_for("the lag", lambda: newest().get("exec.engine.claim_lag") == "0")

    def told(name: str) -> int:
        return sum(int(values.get(f"exec.engine.{name}", 0)) for values in engines(server))

    wait_for("all that ended", lambda: told("hosts_finished") >= 4)
    wait_for("an idle engine", lambda: newest()["exec.engine.hosts"] == newest()["exec.engine.spool_bytes"] == "0")
    assert (told("hosts_finished"), told("hosts_failed"), told("hosts_timed_out")) == (4, 1, 0)

    (consumer,) = services.engines[0].processes("execute-engine: consumer")
    os.kill(consumer, signal.SIGSTOP)
    stuck = wait_for("the truth", lambda: newest() if newest()["exec.engine.consumer"] == "0" else {})
    assert "exec.engine.ping" not in stuck
    assert "exec.engine.slots" not in stuck
    os.kill(consumer, signal.SIGCONT)
    wait_for("a ping", lambda: "exec.engine.ping" in newest())

    services.submit_adhoc(well, "sleep 15")
    wait_for("a busy engine", is_busy)
    services.engines[0].send(signal.SIGTERM)
    before = len(engines(server))
    wait_for("pings while it drains", lambda: sum("exec.engine.ping" in each for each in engines(server)[before:]) > 2)
    assert services.engines[0].processes("execute-engine: consumer")
    assert services.engines[0].stop() == 0


@pytest.mark.parametrize("backend", ["embedded"], indirect=True)
def test_units_finish_while_three_zabbix_servers_hang(services: Services, fleet: Fleet, serve: Serve) -> None:
    servers = [serve(hangs), serve(drips), serve(hangs)]
    services.start(**zabbix(*servers))
    heartbeats = services.processes(": heartbeat").keys()
    assert heartbeats
    wait_for("a beat that hangs", lambda: engines(servers[0]))
    for _ in range(2):
        task = services.wait_task(services.submit_adhoc(fleet.hosts("healthy", 30)))
        assert task["counts"]["success"] == 30
    wait_for("the last of them to be tried", lambda: engines(servers[2]))
    wait_for("a beat with figures", lambda: any("exec.engine.kafka" in values for values in _all(servers)))
    told = next(values for values in _all(servers) if "exec.engine.kafka" in values)
    assert (told["exec.engine.kafka"], told["exec.engine.claim_lag"]) == ("2", "0")  # the database is the queue
    assert services.processes(": heartbeat").keys() == heartbeats  # nobody had to kill one
    assert services.engine()["missing"] is None


@pytest.mark.parametrize("backend", ["embedded"], indirect=True)
def test_distribute_tells_what_waits_who_leads_and_how_often_it_failed(services: Services, serve: Serve) -> None:
    server = serve(takes())
    services.start(engines=0, **zabbix(server))

    def beats() -> list[dict[str, str]]:
        return [
            {key.removeprefix("exec.distribute."): value for key, value in values.items()}
            for values in server.received
            if "exec.distribute.version" in values
        ]

    def newest() -> dict[str, str]:
        return beats()[-1] if beats() else {}

    wait_for("a leader, and the web", lambda: newest().get("leader") == "1" and "ping" in newest())
    first = newest()
    del first["version"]
    assert first == {
        "ping": "1", "leader": "1", "tasks_queued": "0", "tasks_running": "0", "units_waiting": "0",
        "oldest_unit_seconds": "0", "errors": "0",
    }  # fmt: skip
    services.submit_adhoc(["192.0.2.1"])
    wait_for("a unit that waits", lambda: int(newest()["oldest_unit_seconds"]) >= 1)
    assert (newest()["tasks_queued"], newest()["units_waiting"]) == ("1", "1")

    _rename(services, "task", "elsewhere")
    for _ in range(3):
        assert services.api("/tasks/")["code"] >= 500
    _rename(services, "elsewhere", "task")
    wait_for("the errors", lambda: sum(int(each.get("errors", 0)) for each in beats()) == 3)
    wait_for("a ping", lambda: "ping" in newest())

    web = services.processes("distribute: web")
    for pid in web:
        os.kill(pid, signal.SIGSTOP)
    wait_for("no ping, for the web hangs", lambda: "ping" not in newest())
    assert newest()["leader"] == "1"
    for pid in web:
        os.kill(pid, signal.SIGCONT)
    wait_for("a ping", lambda: "ping" in newest())

    (dispatcher,) = services.processes("distribute: dispatcher")
    os.kill(dispatcher, signal.SIGSTOP)
    wait_for("no leader", lambda: newest()["leader"] == "0" and "ping" not in newest())
    assert newest()["units_waiting"] == "1"
    os.kill(dispatcher, signal.SIGCONT)
    wait_for("it leads again", lambda: newest()["leader"] == "1" and "ping" in newest())


def _rename(services: Services, old: str, new: str) -> None:
    services.database.write(lambda connection: connection.execute(sa.text(f"ALTER TABLE {old} RENAME TO {new}")))
