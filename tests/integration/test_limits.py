"""host_timeout, task_timeout and on_timeout: one host is ended, for good, and the others go on."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runner_process import WAYS, Preloaded, make_job, preloaded
from tests.servers.fleet import Fleet
from tests.servers.process import wait_for


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Preloaded]:
    with preloaded(tmp_path_factory.mktemp("runners") / "log") as process:
        yield process


@pytest.fixture
def starts() -> Iterator[Path]:
    """A file to which each start on a host adds a line; every user may write there."""
    with tempfile.TemporaryDirectory(prefix="ee-starts-") as directory:
        Path(directory).chmod(0o777)
        yield Path(directory) / "starts"


def playbook(starts: Path, keywords: str, more: str = "") -> str:
    return f"""\
- hosts: all
  gather_facts: false
  tasks:
    - name: hang
      shell: "echo {{{{ inventory_hostname }}}} >> {starts}; test {{{{ slow }}}} = no || sleep 600"
      vars: {{slow: "{{{{ 'yes' if inventory_hostname == '127.100.0.1' else 'no' }}}}"}}
      {keywords}
    - name: after
      shell: "echo {{{{ inventory_hostname }}}} >> {starts}"
{more}"""


BLAME = r"running 'shell' for \d+ s on engine e1, no output for \d+ s; [01] of the unit's 2 hosts had finished by then"
STUBBORN = {
    "until": ("until: false\n      retries: 3\n      delay: 0\n      ignore_errors: true", 4),
    "loop": ("loop: [1, 2, 3]", 3),
    "ignore_errors": ("ignore_errors: true", 1),
    "ignore_unreachable": ("ignore_unreachable: true", 1),
    "notify": ("notify: told", 1),
}
HANDLER = '  handlers:\n    - name: told\n      shell: "echo handled-{{ inventory_hostname }} >> FILE"\n'
SECOND_PLAY = '- hosts: all\n  gather_facts: false\n  tasks:\n    - shell: "echo second >> FILE"\n'


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("keyword", STUBBORN)
def test_nothing_is_started_again_on_a_host_that_was_ended(
    parent: Preloaded, fleet: Fleet, tmp_path: Path, starts: Path, way: str, keyword: str
) -> None:
    if way != "threads-asyncssh" and keyword not in ("until", "ignore_unreachable"):
        return
    keywords, of_the_well = STUBBORN[keyword]
    more = (HANDLER + SECOND_PLAY).replace("FILE", str(starts))
    job = make_job(
        fleet.hosts(count=3), fleet.port, fleet.key, tmp_path, playbook_content=playbook(starts, keywords, more),
        strategies=("free", "free"), host_timeout_seconds=6.0, **WAYS[way],
    )  # fmt: skip
    runner = parent.start(job)

    assert runner.result() == 0

    done = runner.done()
    assert done["127.100.0.1"]["status"] == "timeout"
    assert done["127.100.0.1"]["stuck_task"] == "hang"
    lines = starts.read_text().split()
    assert lines.count("127.100.0.1") == 1
    assert "handled-127.100.0.1" not in lines
    assert lines.count("second") == 2
    for host in ("127.100.0.2", "127.100.0.3"):
        assert done[host]["status"] in ("success", "failed"), done[host]
        assert lines.count(host) == of_the_well + 1


def test_a_rescue_starts_nothing_on_a_host_that_was_ended(
    parent: Preloaded, fleet: Fleet, tmp_path: Path, starts: Path
) -> None:
    content = f"""\
- hosts: all
  gather_facts: false
  tasks:
    - block:
        - shell: "echo x >> {starts}; sleep 600"
      rescue:
        - shell: "echo x >> {starts}"
      always:
        - shell: "echo x >> {starts}"
"""
    job = make_job(
        fleet.hosts(count=1), fleet.port, fleet.key, tmp_path, playbook_content=content, host_timeout_seconds=4.0
    )
    runner = parent.start(job)

    assert runner.result() == 0
    assert runner.done()["127.100.0.1"]["status"] == "timeout"
    assert starts.read_text() == "x\n"


@pytest.mark.parametrize(
    ("command", "become"),
    [("sleep 603", False), ("sleep 604", True), ("trap '' TERM; while :; do sleep 1; : stubborn-605; done", False)],
    ids=["plain", "sudo", "traps TERM"],
)
def test_the_command_is_gone_from_the_host(
    parent: Preloaded, fleet: Fleet, tmp_path: Path, command: str, become: bool
) -> None:
    job = make_job(
        fleet.hosts(count=2), fleet.port, fleet.key, tmp_path,
        module="shell", args=command, become=become, host_timeout_seconds=5.0,
    )  # fmt: skip
    runner = parent.start(job)

    assert runner.result() == 0

    for done in runner.done().values():
        assert (done["status"], done["stopped_on_host"], done["stage"]) == ("timeout", "yes", "running")
        assert re.fullmatch(BLAME, done["blame"])
    mark = command.split()[-1] if command.startswith("sleep") else "stubborn-605"
    wait_for("the command to be gone", lambda: not _on_hosts(fleet, mark), 5)


def test_what_is_left_on_request_goes_on(parent: Preloaded, fleet: Fleet, tmp_path: Path) -> None:
    job = make_job(
        fleet.hosts(count=1), fleet.port, fleet.key, tmp_path,
        module="shell", args="sleep 8.25", become=False, host_timeout_seconds=3.0, on_timeout="leave",
    )  # fmt: skip
    runner = parent.start(job)

    assert runner.result() == 0
    (done,) = runner.done().values()
    assert (done["status"], done["stopped_on_host"]) == ("timeout", "no")
    assert _on_hosts(fleet, "sleep 8.25")


@pytest.mark.parametrize("strategy", ["free", "linear"])
def test_a_host_that_hangs_in_one_task_does_not_cost_the_others_theirs(
    parent: Preloaded, fleet: Fleet, tmp_path: Path, strategy: str
) -> None:
    tasks = "".join(f"    - raw: echo {number}\n" for number in range(6))
    content = (
        "- hosts: all\n  gather_facts: false\n  tasks:\n"
        "    - {name: hang, raw: sleep 600, when: inventory_hostname == '127.100.0.1'}\n" + tasks
    )
    job = make_job(
        fleet.hosts(count=5), fleet.port, fleet.key, tmp_path,
        playbook_content=content, strategies=(strategy,), task_timeout_seconds=4.0,
    )  # fmt: skip
    runner = parent.start(job)

    assert runner.result() == 0

    done = runner.done()
    assert done.pop("127.100.0.1")["status"] == "timeout"
    assert {(host["status"], host["tasks_ok"]) for host in done.values()} == {("success", 7)}


def test_the_wait_for_another_host_is_not_its_own_time(parent: Preloaded, fleet: Fleet, tmp_path: Path) -> None:
    content = """\
- hosts: all
  gather_facts: false
  tasks:
    - {name: hang, raw: sleep 600, when: inventory_hostname == '127.100.0.1'}
    - {name: after, raw: sleep 1}
"""
    job = make_job(
        fleet.hosts(count=3), fleet.port, fleet.key, tmp_path,
        playbook_content=content, strategies=("linear",), host_timeout_seconds=5.0,
    )  # fmt: skip
    runner = parent.start(job)

    assert runner.result() == 0
    statuses = {host: done["status"] for host, done in runner.done().items()}
    assert statuses == {"127.100.0.1": "timeout", "127.100.0.2": "success", "127.100.0.3": "success"}


def _on_hosts(fleet: Fleet, text: str) -> list[str]:
    return [line for line in fleet.processes().values() if text in line]
