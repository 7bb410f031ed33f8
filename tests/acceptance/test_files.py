"""Projects through the real daemons: kill -9 in the middle of a clone, and versions while tasks run."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.daemons import Services
from tests.runner_process import one_play
from tests.servers.git import GitServer
from tests.servers.process import wait_for

GROUP = "releases"


@pytest.fixture
def sections(git_server: GitServer) -> dict[str, dict[str, object]]:
    (address,) = git_server.fleet.hosts()
    gitlab = {"GROUP": GROUP, "SSH_KEY_FILE": git_server.fleet.key, "URL_TEMPLATE": git_server.ssh_template}
    return {"Gitlab": {"IP": address, **gitlab}, "Distribute": {"WORKERS": 1}}


@pytest.fixture
def app(git_server: GitServer, request: pytest.FixtureRequest) -> str:
    name = "".join(letter for letter in request.node.name if letter.isalnum())
    git_server.create(f"{GROUP}/{name}", {f"part-{number}": b"v1.0\n" for number in range(20)})
    return name


def clone(services: Services, app: str, **fields: object) -> Mapping[str, Any]:
    answer = services.api("/file/", {"project_name": app, **fields})
    assert answer["code"] == 200, answer
    data: Mapping[str, Any] = answer["data"]
    return data


def clone_in_vain(services: Services, app: str) -> threading.Thread:
    """Ask for it, and do not mind that nobody answers."""

    def ask() -> None:
        with contextlib.suppress(requests.RequestException, ValueError):
            services.api("/file/", {"project_name": app})

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    return thread


def versions(services: Services, app: str) -> set[str]:
    """Every version of the app, and whatever else lies beside them."""
    found = (services.backend.directory / "files/.versions" / app).iterdir()
    return {path.name for path in found}


@pytest.mark.kill
@pytest.mark.parametrize("backend", ["embedded"], indirect=True)
@pytest.mark.parametrize("point", ["version-made", "version-ready", "clone-stored"])
def test_who_dies_in_the_middle_of_a_clone_leaves_one_whole_version_shown_and_no_remains(
    services: Services,
    git_server: GitServer,
    sections: dict[str, dict[str, object]],
    app: str,
    point: str,
    tmp_path: Path,
) -> None:
    config = services.backend.config_file(**sections)
    services.start_distribute(config)
    old = clone(services, app)["commit"]
    services.distribute.kill()
    wait_for("all of distribute to end", lambda: not services.processes())

    changed = {f"part-{number}": b"v2\n" for number in range(20)}
    new = git_server.commit(f"{GROUP}/{app}", "main", changed)
    passed = tmp_path / "passed"
    services.start_distribute(config, {"EXECUTE_ENGINE_FAIL_POINT": f"{point}@{passed}"})
    asked = clone_in_vain(services, app)
    wait_for("somebody to die", passed.exists, 30)
    asked.join(30)
    shown = services.backend.directory / "files" / app
    if point == "clone-stored":  # its rows say what is shown: the next worker's sweep has the link follow them
        wait_for("the link to follow the rows", lambda: os.readlink(shown) == f".versions/{app}/{new}", 60)
    else:
        assert os.readlink(shown) == f".versions/{app}/{old}"
        assert {path.read_text() for path in shown.glob("part-*")} == {"v1.0\n"}

    wait_for("a new worker to answer", lambda: services.api("/file/")["code"] == 200, 60)
    assert clone(services, app)["commit"] == new
    assert {path.read_text() for path in shown.glob("part-*")} == {"v2\n"}
    assert len(list(shown.iterdir())) == 21
    assert versions(services, app) == {old, new, f".{old}", f".{new}"}
    assert not list((services.backend.directory / "files/.versions/.new").iterdir())


@pytest.mark.kill
@pytest.mark.parametrize("backend", ["cluster"], indirect=True)
def test_after_kill_9_of_distribute_git_and_ssh_are_gone_and_the_next_start_sweeps(
    services: Services, git_server: GitServer, sections: dict[str, dict[str, object]], app: str
) -> None:
    config = services.backend.config_file(**sections)
    services.start_distribute(config)
    old = clone(services, app)["commit"]
    name = f"{GROUP}/{app}"
    new = git_server.commit(name, "main", {"big": os.urandom(1 << 20)})
    git_server.stall(name)
    try:
        answer = services.api("/file/", {"project_name": app, "async": True})
        assert answer["code"] == 202
        job = f"/file/jobs/{answer['data']['job']}/"
        wait_for("git to fetch", lambda: services.processes("git") and services.processes("ssh"), 30)
        for pid in services.processes("distribute"):
            os.kill(pid, signal.SIGKILL)
        wait_for("everything to end", lambda: not services.processes(), 30)
    finally:
        git_server.go_on(name)
    half_made = services.backend.directory / "files/.versions/.new/left"
    half_made.mkdir()
    services.start_distribute(config)
    failed = services.api(job)["data"]
    assert (failed["state"], failed["error_code"]) == ("failed", 502)
    assert "interrupted" in failed["error"]
    assert services.api("/file/")["data"][0]["commit"] == old
    assert clone(services, app)["commit"] == new
    wait_for("the sweep", lambda: not half_made.exists(), 30)


@pytest.mark.parametrize("backend", ["cluster"], indirect=True)
def test_a_release_is_rolled_forward_and_back_and_every_task_sees_one_version(
    services: Services, git_server: GitServer, sections: dict[str, dict[str, object]], app: str, server_directory: Path
) -> None:
    """The roll forward comes while a task is between its two copies on 60 hosts."""
    name = f"{GROUP}/{app}"
    hosts = git_server.fleet.hosts("healthy", 60)
    server_directory.chmod(0o777)
    go_on = server_directory / "go-on"

    def roll_out(to: str) -> str:
        (server_directory / to).mkdir(mode=0o777)
        (server_directory / to).chmod(0o777)
        dest = f"{server_directory}/{to}/{{{{ inventory_hostname }}}}"
        tasks = (
            f"{{copy: {{src: {app}/part-1, dest: '{dest}.1'}}}}",
            f"{{wait_for: {{path: {go_on}, timeout: 100}}}}",
            f"{{copy: {{src: {app}/part-2, dest: '{dest}.2'}}}}",
        )
        return services.submit_playbook(hosts, one_play(*tasks), timeout=150)

    def arrived(at: str) -> set[str]:
        found = [path.read_text() for path in (server_directory / at).iterdir()]
        assert len(found) == 120
        return set(found)

    services.start(**sections, Exec_Engine={"SLOTS": 60})
    old = clone(services, app, ref="v1.0")["commit"]
    first = roll_out("first")
    wait_for("all hosts to wait", lambda: len(list((server_directory / "first").glob("*.1"))) == 60, 120)
    new = git_server.commit(name, "main", {f"part-{number}": b"v2\n" for number in range(20)})
    assert clone(services, app)["commit"] == new
    go_on.touch()
    assert services.wait_task(first)["counts"]["success"] == 60
    assert services.task(first)["projects"] == {app: old}
    assert arrived("first") == {"v1.0\n"}

    assert services.wait_task(roll_out("second"))["counts"]["success"] == 60
    assert arrived("second") == {"v2\n"}
    assert clone(services, app, ref=old[:10])["commit"] == old
    assert services.wait_task(roll_out("third"))["counts"]["success"] == 60
    assert arrived("third") == {"v1.0\n"}


@pytest.mark.parametrize("backend", ["cluster"], indirect=True)
def test_two_distributes_clone_a_project_at_the_same_time_and_one_does_the_work(
    services: Services, git_server: GitServer, sections: dict[str, dict[str, object]]
) -> None:
    services.start(engines=0, distributes=2, **sections)
    second = services.url("/file/")
    first = second.replace(str(services.backend.ports["engine-2"]), str(services.backend.ports["engine-1"]))
    assert first != second
    files = services.backend.directory / "files"

    def ask(url: str, project: str) -> dict[str, Any]:
        answer = requests.post(url, json={"project_name": project}, timeout=120)
        assert answer.status_code == 200, answer.text
        data: dict[str, Any] = answer.json()["data"]
        return data

    with ThreadPoolExecutor(2) as pool:
        for number in range(20):
            project = f"at-once-{number}"
            git_server.create(f"{GROUP}/{project}", {f"part-{part}": bytes(1000) for part in range(30)})
            answers = list(pool.map(ask, (first, second), (project, project)))
            assert {answer["commit"] for answer in answers} == {git_server.commit_id(f"{GROUP}/{project}")}
            assert len(list((files / project).iterdir())) == 31
            assert len(list((files / ".mirrors" / f"{project}.git").rglob("*.pack"))) == 1, "one has fetched"
    assert not list((files / ".versions/.new").iterdir())
