"""Secret args and no_log through real daemons: they reach the host, and nothing else of them stays anywhere."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract import secret
from tests.daemons import Services
from tests.servers.fleet import Fleet
from tests.servers.process import wait_for

pytestmark = pytest.mark.parametrize("backend", ["embedded"], indirect=True)
WORDS = {name: f"planted-{name}-5f1c" for name in ("args", "object", "playbook", "no_log", "failing")}
UNREADABLE = "planted-unreadable-5f1c"
UNREADABLE_PLAYBOOKS = (
    f'- {{name: {UNREADABLE}, hosts: all, tasks: [{{name: {UNREADABLE}, shell: "echo it\'s {UNREADABLE}"}}]}}\n',
    f"- {{hosts: {UNREADABLE}, strategy: {UNREADABLE}, tasks: []}}\n",
    f"- {{hosts: all, {UNREADABLE}: x}}\n",
    f"- {{hosts: all, vars: {{a: '{UNREADABLE} {{{{ x'}}, tasks: [{{name: '{{{{ a }}}}', ping: x}}]}}\n",
)


def _texts(services: Services) -> Iterator[tuple[str, str]]:
    """Where it could have been left: every file of the services, and their processes' arguments and environments."""
    for path in services.backend.directory.rglob("*"):
        if path.is_file() and "conf" not in path.parts and "said" not in path.name:
            yield str(path), path.read_bytes().decode(errors="replace")
    for pid, line in services.processes().items():
        yield f"arguments of {pid}", line
        with contextlib.suppress(OSError):  # it has ended meanwhile
            yield f"environment of {pid}", Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")


def test_secrets_reach_the_host_and_stay_nowhere_else(services: Services, fleet: Fleet) -> None:
    config = services.backend.config_file()
    secret.new_key(config.parent / "secret.key")
    said, go = (services.backend.directory / name for name in ("said", "said-go"))
    services.start_distribute(config)
    services.start_engine(config)
    hosts = fleet.hosts(count=2)
    playbook = f"""\
- hosts: all
  gather_facts: false
  become: true
  vars: {{word: {WORDS["playbook"]}}}
  tasks:
    - {{name: write, shell: "echo {{{{ word }}}} >> {said}", no_log: true}}
    - {{name: show, shell: "echo {WORDS["no_log"]} | tee -a {said}", no_log: true}}
"""
    hold = f"while ! test -e {go}; do sleep 0.1; done"
    tasks = [
        services.submit_adhoc(hosts, f"echo {WORDS['args']} | tee -a {said}; {hold}", secret_args=True),
        services.submit_adhoc(hosts, {"cmd": f"echo {WORDS['object']} >> {said}; {hold}"}, secret_args=True),
        services.submit_adhoc(hosts, f"echo {WORDS['failing']} >> {said}; {hold}; exit 3", secret_args=True),
        services.submit_playbook(hosts, playbook, secret_args=True),
    ]
    unreadable = [
        services.submit_adhoc(hosts, f"echo it's {UNREADABLE}", secret_args=True),
        services.submit_adhoc(hosts, f"echo {{{{ {UNREADABLE} }}}}", template=True, secret_args=True),
        *(services.submit_playbook(hosts, text, secret_args=True) for text in UNREADABLE_PLAYBOOKS),
    ]
    wait_for("the commands to run", lambda: said.exists() and len(said.read_text().split()) == 10)
    meanwhile = list(_texts(services))
    go.touch()
    for task_id in (*tasks, *unreadable):
        services.wait_task(task_id)
    assert {word: said.read_text().count(word) for word in WORDS.values()} == dict.fromkeys(WORDS.values(), 2)

    assert [services.task(task_id)["counts"]["success"] for task_id in tasks] == [2, 2, 0, 2]
    assert [services.task(task_id)["counts"]["success"] for task_id in unreadable] == [0] * len(unreadable)
    answers = [services.api(f"/tasks/{task_id}/{part}") for task_id in (*tasks, *unreadable) for part in ("", "hosts/")]
    answers += [services.api(path) for path in (f"/adhoc/?ip={hosts[0]}", f"/playbook/?ip={hosts[0]}", "/audit/")]
    found = [*meanwhile, *_texts(services), ("answers", json.dumps(answers))]
    assert len(found) > 30
    words = [*WORDS.values(), UNREADABLE]
    assert [(place, word) for place, text in found for word in words if word in text] == []
    (failed, _) = services.hosts(tasks[2])
    assert failed["status"] == "failed"
    assert "hidden due to" in failed["msg"]


def test_an_engine_without_the_key_ends_the_task_with_the_reason(services: Services, fleet: Fleet) -> None:
    config = services.backend.config_file()
    key = config.parent / "secret.key"
    secret.new_key(key)
    services.start_distribute(config)
    task_id = services.submit_adhoc(fleet.hosts(count=2), "echo hi", secret_args=True)
    key.unlink()
    services.start_engine(config)
    assert services.wait_task(task_id)["counts"]["lost"] == 2
    assert "secret.key cannot be read" in services.hosts(task_id)[0]["blame"]
