"""A share of project files that is away, or hangs: who needs it waits, all others run. Real daemons, real ssh."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from contract import project_files
from contract.tables import task
from tests.daemons import Services
from tests.project_share import A, B, add_version, mark_share
from tests.runner_process import one_play
from tests.servers.fleet import Fleet
from tests.servers.process import wait_for

COPY = "src=app/text dest={}"


@pytest.fixture
def shares(server_directory: Path) -> list[Path]:
    """FILES_DIR as two engines see it."""
    server_directory.chmod(0o777)
    found = [server_directory / "one", server_directory / "two"]
    for files_dir in found:
        for commit in (A, B):
            add_version(files_dir, "app", commit, {"text": f"of {commit[0]}"})
    return found


def remove(mark: Path) -> str:
    mark.unlink()
    return "not mounted, there is no .share"


def make_hang(mark: Path) -> str:
    mark.unlink()
    os.mkfifo(mark)
    return "reading it hangs for "


def with_files(services: Services, submit: Callable[[], str]) -> str:
    """Submit a task that needs files, and sees version A of the project."""
    assert services.api("/hold/", method="POST")["code"] == 200
    task_id = submit()
    wanted = sa.update(task).where(task.c.id == task_id).values(needs_files=True, projects={"app": A})
    services.database.write(lambda connection: connection.execute(wanted))
    assert services.api("/release/", method="POST")["code"] == 200
    return task_id


def engines(services: Services) -> dict[str, dict[str, Any]]:
    return {item["engine_id"]: item for item in services.api("/engines/")["data"]}


@pytest.mark.parametrize(("backend", "fails"), [("cluster", remove), ("embedded", make_hang)], indirect=["backend"])
def test_a_dead_share_keeps_only_those_waiting_who_need_it(
    services: Services, fleet: Fleet, shares: list[Path], server_directory: Path, fails: Callable[[Path], str]
) -> None:
    hosts = fleet.hosts()

    def copy(name: str) -> str:
        args = COPY.format(server_directory / name)
        return with_files(services, lambda: services.submit_adhoc(hosts, args, module="copy", become=False))

    services.start(Exec_Engine={"FILES_DIR": shares[0]})
    wait_for("an engine without trouble", lambda: services.engine()["missing"] is None)
    mark = shares[0] / project_files.SHARE_MARK
    says = fails(mark)
    wait_for("the engine to say so", lambda: says in str(services.engine()["missing"]), 60)
    waiting = copy("first")
    wait_for("the task to say so", lambda: "no live engine sees" in str(services.task(waiting)["waits_for"]))

    assert services.wait_task(services.submit_adhoc(hosts, become=False))["counts"]["success"] == 1
    assert services.task(waiting)["units_by_state"]["waiting"] == 1
    mark.unlink(missing_ok=True)
    mark_share(shares[0])
    assert services.wait_task(waiting, 60)["counts"]["success"] == 1
    assert (server_directory / "first").read_text() == "of a"
    wait_for("an engine without trouble", lambda: services.engine()["missing"] is None)

    fails(mark)
    wait_for("the engine to say so", lambda: says in str(services.engine()["missing"]), 60)
    waiting = copy("second")
    services.start_engine(services.backend.config_file("engine-2", Exec_Engine={"FILES_DIR": shares[1]}))
    assert services.wait_task(waiting, 60)["counts"]["success"] == 1
    assert (server_directory / "second").read_text() == "of a"
    assert services.each(waiting, "engine") == ["engine-2"]
    assert "project files" not in str(engines(services)["engine-2"]["missing"])
    assert services.engines[0].log().count(f"is away: {says}") == 2, "each change is logged once"
    mark.unlink(missing_ok=True)


@pytest.mark.parametrize("backend", ["embedded"], indirect=True)
@pytest.mark.parametrize("workers", ["threads", "processes"])
def test_a_read_that_hangs_on_the_share_ends_at_the_units_deadline(
    services: Services, fleet: Fleet, shares: list[Path], workers: str
) -> None:
    os.mkfifo(project_files.version(shares[0], "app", A) / "pipe")
    services.start(Exec_Engine={"FILES_DIR": shares[0]}, Ansible={"WORKERS": workers})
    wait_for("an engine without trouble", lambda: services.engine()["missing"] is None)
    content = one_play("{ping: }", "{name: read the pipe, debug: {msg: \"{{ lookup('file', 'app/pipe') }}\"}}")
    hosts = fleet.hosts(count=3)
    hanging = with_files(services, lambda: services.submit_playbook(hosts[:2], content, timeout=20, become=False))
    wait_for("it to run", lambda: services.task(hanging)["counts"]["running"] == 2)

    assert services.wait_task(services.submit_adhoc(hosts[2:], become=False))["counts"]["success"] == 1
    assert services.task(hanging)["counts"]["running"] == 2
    assert services.wait_task(hanging, 90)["counts"]["timeout"] == 2
    for host in services.hosts(hanging):
        assert "'read the pipe'" in host["blame"], host
    wait_for("the unit's processes to be gone", lambda: not services.processes("execute-engine: runner"))
    assert not services.processes("execute-engine: guard")
    wait_for("all slots to be free", lambda: services.engine()["free_slots"] == services.engine()["slots"])
