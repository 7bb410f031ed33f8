"""A runner whose args or playbook are secret says nothing of their text, whatever Ansible makes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runner_process import WAYS, Preloaded, Runner, make_job, preloaded
from tests.servers.fleet import Fleet

WORD = "planted5f1c"
PLAY = "- hosts: all\n  gather_facts: false\n"
TASKS = f"{PLAY}  tasks:\n"

ADHOC: dict[str, dict[str, Any]] = {
    "unbalanced quotes": {"module": "shell", "args": f"echo it's {WORD}"},
    "an unclosed template": {"module": "shell", "args": f"echo {{{{ {WORD}"},
    "what is no key=value": {"module": "copy", "args": f"dest=/tmp/x {WORD}"},
    "an unknown argument": {"module": "copy", "args": {"dest": "/tmp/x", WORD: "y"}},
    "a broken template": {"module": "shell", "args": f"echo {{{{ {WORD} | nofilter }}}}", "template": True},
    "an undefined variable": {"module": "debug", "args": f"msg={{{{ {WORD} }}}}", "template": True},
    "a refused lookup": {"module": "debug", "args": f"msg={{{{ lookup('file', '/{WORD}') }}}}", "template": True},
    "a wrong value": {"module": "file", "args": f"path=/tmp state={WORD}"},
    "a failing command": {"module": "command", "args": f"/bin/false {WORD}"},
    "a missing program": {"module": "command", "args": WORD},
    "a time limit": {"module": "shell", "args": f"sleep 60; echo {WORD}", "host_timeout_seconds": 1.0},
}
PLAYBOOKS = {
    "no list of plays": f"{WORD}: x\n",
    "an unknown keyword of a play": f"{PLAY}  {WORD}: x\n",
    "an unknown keyword of a task": f"{TASKS}    - {{shell: echo, {WORD}: x}}\n",
    "an unknown module": f"{TASKS}    - {{{WORD}: x}}\n",
    "two modules": f"{TASKS}    - {{shell: echo {WORD}, command: echo}}\n",
    "unbalanced quotes": f'{TASKS}    - shell: "echo it\'s {WORD}"\n    - copy: "dest=\'{WORD}"\n',
    "a key given twice": f"{TASKS}    - {{name: x, name: {WORD}, shell: echo}}\n",
    "a wrong value of a keyword": f"{PLAY}  serial: {{{WORD}: 1}}\n  tasks: []\n",
    "a broken template": f"{TASKS}    - shell: 'echo {WORD} {{{{ x | nofilter }}}}'\n",
    "a template that does not end": f"{TASKS}    - shell: 'echo {WORD} {{{{ x'\n",
    "a broken condition": f"{TASKS}    - {{shell: echo, when: '{WORD} =='}}\n",
    "an undefined variable": f"{TASKS}    - debug: {{msg: '{{{{ {WORD} }}}}'}}\n",
    "a broken template in vars": f"{PLAY}  vars: {{a: '{WORD} {{{{ x'}}\n  tasks: [{{debug: {{var: a}}}}]\n",
    "hosts that are not there": f"- hosts: {WORD}\n  gather_facts: false\n  tasks: [{{shell: echo}}]\n",
    "hosts by a broken template": f"- hosts: '{{{{ {WORD} }}}}'\n  tasks: [{{shell: echo}}]\n",
    "names": f"- name: {WORD}\n  hosts: all\n  gather_facts: false\n  tasks: [{{name: {WORD}, shell: echo}}]\n",
    "a name made of a variable": f"{PLAY}  vars: {{a: {WORD}}}\n  tasks: [{{name: 'x {{{{ a }}}}', shell: echo}}]\n",
    "a failing task": f"{TASKS}    - {{name: {WORD}, shell: 'echo {WORD}; exit 3'}}\n",
    "a failing task that is ignored": f"{TASKS}    - {{name: {WORD}, shell: exit 3, ignore_errors: true}}\n",
    "a failing loop": f"{TASKS}    - {{shell: 'echo {{{{ item }}}}; exit 3', loop: [a, {WORD}]}}\n",
    "words of fail": f"{TASKS}    - fail: {{msg: {WORD}}}\n",
    "an assertion": f"{TASKS}    - assert: {{that: \"'{WORD}' == 1\"}}\n",
    "a missing file of tasks": f"{TASKS}    - include_tasks: {WORD}.yml\n",
    "a missing file of tasks, early": f"{TASKS}    - import_tasks: {WORD}.yml\n",
    "a missing role": f"{PLAY}  roles: [{WORD}]\n",
    "a missing file of variables": f"{PLAY}  vars_files: [{WORD}.yml]\n  tasks: [{{shell: echo}}]\n",
    "a missing playbook": f"- import_playbook: {WORD}.yml\n",
    "an imported playbook": f"- import_playbook: other.yml\n  vars: {{word: {WORD}}}\n",
    "a refused lookup": f"{TASKS}    - debug: {{msg: \"{{{{ lookup('file', '/{WORD}') }}}}\"}}\n",
    "a handler": f"{TASKS}    - {{shell: echo, notify: {WORD}}}\n  handlers: [{{name: {WORD}, shell: exit 3}}]\n",
    "an unknown handler": f"{TASKS}    - {{shell: echo, notify: {WORD}}}\n",
    "a time limit": f"{TASKS}    - {{name: {WORD}, shell: sleep 60}}\n",
    "a debugger": f"{PLAY}  debugger: on_failed\n  tasks: [{{name: {WORD}, shell: exit 3}}]\n",
    "vaulted text": f"{PLAY}  vars: {{a: !vault \"$ANSIBLE_VAULT;1.1;AES256\\n{WORD}\"}}\n  tasks: []\n",
}  # fmt: skip
BY_PROCESSES = (
    "an unknown module",
    "an undefined variable",
    "names",
    "a failing loop",
    "a missing file of tasks",
    "a debugger",
)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runners") / "log"


@pytest.fixture(scope="module")
def parent(log: Path) -> Iterator[Preloaded]:
    with preloaded(log) as process:
        yield process


@pytest.fixture
def share(tmp_path: Path) -> Path:
    (tmp_path / "other.yml").write_text(
        f"{TASKS}    - {{name: '{{{{ word }}}}', shell: 'echo {{{{ word }}}}; exit 3'}}\n"
    )
    return tmp_path


def said(runner: Runner, log: Path) -> str:
    """All that it has told anybody."""
    before = log.stat().st_size
    runner.result()
    return json.dumps(runner.seen, ensure_ascii=False) + log.read_text()[before:]


def run(parent: Preloaded, fleet: Fleet, share: Path, way: str = "threads-asyncssh", **fields: Any) -> Runner:
    limit = 1.0 if "sleep 60" in str(fields) else None
    more = {"host_timeout_seconds": limit, **WAYS[way], **fields}
    return parent.start(make_job(fleet.hosts(), fleet.port, fleet.key, share, no_log=True, **more))


@pytest.mark.parametrize("case", ADHOC)
def test_secret_args_are_in_nothing_that_a_runner_says(
    parent: Preloaded, log: Path, fleet: Fleet, share: Path, case: str
) -> None:
    assert WORD not in said(run(parent, fleet, share, **ADHOC[case]), log)


@pytest.mark.parametrize("case", PLAYBOOKS)
def test_a_secret_playbook_is_in_nothing_that_a_runner_says(
    parent: Preloaded, log: Path, fleet: Fleet, share: Path, case: str
) -> None:
    assert WORD not in said(run(parent, fleet, share, playbook_content=PLAYBOOKS[case]), log)


@pytest.mark.parametrize("case", BY_PROCESSES)
def test_worker_processes_are_as_silent(parent: Preloaded, log: Path, fleet: Fleet, share: Path, case: str) -> None:
    runner = run(parent, fleet, share, "processes", playbook_content=PLAYBOOKS[case])
    assert WORD not in said(runner, log)


def test_what_cannot_be_run_is_said_by_kind_and_line(parent: Preloaded, fleet: Fleet, share: Path) -> None:
    runner = run(parent, fleet, share, playbook_content=PLAYBOOKS["an unknown keyword of a task"])
    runner.result()
    (failed,) = runner.named("unit_failed")
    assert "AnsibleParserError in line 4" in failed["reason"]
    assert "without secret_args" in failed["reason"]


def test_tasks_are_named_by_their_line(parent: Preloaded, fleet: Fleet, share: Path) -> None:
    (done,) = run(parent, fleet, share, playbook_content=PLAYBOOKS["a failing task"]).ended().values()
    assert [row["name"] for row in done["detail"]["tasks"]] == ["playbook.yml:4"]
    assert done["detail"]["failed_task"] == "playbook.yml:4"


def test_a_task_that_hides_nothing_shows_its_result(parent: Preloaded, fleet: Fleet, share: Path) -> None:
    text = f"{TASKS}    - {{shell: echo shown; exit 3, no_log: false}}\n"
    (done,) = run(parent, fleet, share, playbook_content=text).ended().values()
    assert done["stdout"] == "shown"
