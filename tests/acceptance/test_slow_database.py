"""A database that answers after five seconds: it counts as away, and delays no unit and no deadline."""

from __future__ import annotations

from dataclasses import replace

import pytest
import requests

from tests.daemons import Backend, Services
from tests.servers.fleet import Fleet
from tests.servers.link import Link
from tests.servers.process import wait_for

pytestmark = pytest.mark.parametrize("backend", ["mariadb alone"], indirect=True)


def test_requests_are_refused_with_when_to_come_again_and_units_go_on(
    backend: Backend, fleet: Fleet, mariadb_link: Link
) -> None:
    services = Services(replace(backend, database_settings=replace(backend.database_settings, port=mariadb_link.port)))
    try:
        services.start()
        hosts = fleet.hosts(count=3)
        hung = fleet.hosts("hang")
        task_id = services.submit_adhoc([*hosts, *hung], "sleep 3; echo told", timeout=15, become=False)
        wait_for("the hosts to run", lambda: services.task(task_id)["counts"]["running"] == 4)
        mariadb_link.delay_seconds = 5
        answer = requests.get(services.url("/tasks/"), timeout=60)
        assert (answer.status_code, answer.json()["code"]) == (503, 503)
        assert int(answer.headers["Retry-After"]) > 0
        wait_for("the unit to end on time", lambda: not services.processes("execute-engine: runner"), 60)
        assert requests.get(services.url("/tasks/"), timeout=60).status_code == 503
        mariadb_link.delay_seconds = 0

        task = services.wait_task(task_id)
        assert {status: count for status, count in task["counts"].items() if count} == {"success": 3, "timeout": 1}
        again = services.submit_adhoc(hosts, "echo hi", become=False)
        assert services.wait_task(again)["counts"]["success"] == 3
    except BaseException:
        print(services.logs())
        raise
    finally:
        mariadb_link.delay_seconds = 0
        services.stop()
