"""Every kind of sick host beside healthy ones, ad hoc and as a playbook: a true name for each, and nothing stays."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

import pytest

from tests.daemons import Services
from tests.servers.fleet import Fleet
from tests.servers.process import wait_for

TIMEOUT_SECONDS = 30
HEALTHY = 4
# kind -> statuses that are true, stages, and what blame or msg must say; None: nothing
Expected = tuple[set[str], set[str | None], str | None]
RUNNING = r"running '(shell|say)' for \d+ s on engine engine-1"
FINISHED = rf"; \d+ of the unit's {HEALTHY + 14} hosts had finished by then"
BY_ASYNCSSH: dict[str, Expected] = {
    "hang": ({"timeout"}, {"running"}, rf"{RUNNING}, no output for \d+ s{FINISHED}"),
    "block": ({"timeout"}, {"running"}, rf"{RUNNING}, no output for \d+ s{FINISHED}"),
    "stubborn": ({"timeout"}, {"output"}, rf"{RUNNING}, no more output for \d+ s{FINISHED}"),
    "no_banner": ({"unreachable"}, {None}, r"accepts TCP connections, but sent no SSH greeting within 10 s"),
    "blackhole": ({"unreachable"}, {None}, r"no TCP answer from \S+ within 10 s"),
    "refused": ({"unreachable"}, {None}, "refuses the connection"),
    "unreachable": ({"unreachable"}, {None}, "no route to"),
    "no_auth": ({"unreachable"}, {None}, "refuses the key"),
    "drop": ({"unreachable"}, {None}, "outcome unknown"),
    "flapping": ({"unreachable"}, {None}, "refuses the connection"),
    "slow": ({"success"}, {None}, None),
    "binary": ({"success"}, {None}, None),
    "new_key": ({"success"}, {None}, None),
    "flood": ({"failed", "success"}, {None}, None),
}
BY_OPENSSH = {  # the client's own words; all that is known of a stage is that a client runs
    **BY_ASYNCSSH,
    "hang": ({"timeout"}, {"running"}, RUNNING),
    "block": ({"timeout"}, {"running"}, RUNNING),
    "stubborn": ({"timeout"}, {"running"}, RUNNING),
    **dict.fromkeys(("no_banner", "blackhole"), ({"unreachable"}, {None}, "timed out")),
    # A client that is gone before it was given the module leaves no words of its own.
    **dict.fromkeys(("refused", "flapping"), ({"unreachable"}, {None}, "Connection refused|could not be sent")),
    "unreachable": ({"unreachable"}, {None}, "No route to host|could not be sent"),
    "no_auth": ({"unreachable"}, {None}, "Permission denied"),
    "drop": ({"unreachable"}, {None}, None),
}
WAYS = {
    "threads-asyncssh": BY_ASYNCSSH,
    "threads-openssh": BY_OPENSSH,
    "processes-asyncssh": BY_OPENSSH,  # worker processes cannot share asyncssh's connections
    "processes-openssh": BY_OPENSSH,
}
PLAYBOOK = "- hosts: all\n  gather_facts: false\n  tasks:\n    - {name: say, shell: echo hi}\n"


@pytest.mark.parametrize("backend", ["embedded"], indirect=True)
@pytest.mark.parametrize("way", WAYS)
def test_each_kind_is_named_and_nothing_is_left(services: Services, fleet: Fleet, way: str) -> None:
    workers, connection = way.split("-")
    services.start(Ansible={"WORKERS": workers, "CONNECTION": connection})
    warm = services.submit_adhoc(fleet.hosts("healthy", 2), "true", become=False)
    services.wait_task(warm)
    before = _remains(services)

    sick = {fleet.hosts(kind)[0]: kind for kind in WAYS[way]}
    for submit in (_adhoc, _playbook):
        fleet.refuse_next(*fleet.hosts("flapping"))
        well = fleet.hosts("healthy", HEALTHY)
        task_id = submit(services, [*well, *sick])
        services.wait_task(task_id, seconds=TIMEOUT_SECONDS + 90)

        items = {item["ip"]: item for item in services.hosts(task_id)}
        assert {items[host]["status"] for host in well} == {"success"}
        wrong = {kind: problem for host, kind in sick.items() if (problem := _problem(WAYS[way][kind], items[host]))}
        assert not wrong, wrong

    with contextlib.suppress(TimeoutError):
        wait_for("what the tasks used to be gone", lambda: _remains(services) == before, 20)
    assert _remains(services) == before


def _adhoc(services: Services, hosts: list[str]) -> str:
    return services.submit_adhoc(hosts, "echo hi", timeout=TIMEOUT_SECONDS, become=False)


def _playbook(services: Services, hosts: list[str]) -> str:
    return services.submit_playbook(hosts, PLAYBOOK, timeout=TIMEOUT_SECONDS)


def _problem(expected: Expected, item: dict[str, Any]) -> str:
    statuses, stages, words = expected
    said = f"{item['blame'] or ''} {item['msg'] or ''}"
    fits = item["status"] in statuses and item["stage"] in stages and (words is None or re.search(words, said))
    return "" if fits else f"{item['status']} at {item['stage']}: {said}"


def _remains(services: Services) -> dict[str, Any]:
    """All that a unit could leave behind: processes, open files, files."""
    processes = services.processes()
    files = {
        title: len(list(Path(f"/proc/{pid}/fd").iterdir()))
        for pid, title in processes.items()
        if title.startswith(("execute-engine: launcher", "execute-engine: supervisor"))
    }
    state_dir = services.backend.directory / "engine-1" / "state"
    (incarnation,) = services.live_incarnations("engine-1")
    return {
        "processes": sorted(processes.items()),
        "open files": files,
        "STATE_DIR": sorted(path.name for path in state_dir.iterdir() if not path.name.startswith("progress")),
        "/tmp": sorted(path.name for path in Path("/tmp").glob(f"execute-engine-runner-*-{incarnation}-*")),
        "/dev/shm": sorted(path.name for path in Path("/dev/shm").iterdir()),
    }
