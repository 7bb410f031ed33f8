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
FORCED = (
    "sleep 100000",
    "echo alive",
    "sleep 1 ",
)  # commands to which sshd delivers no signal: they stay on their hosts
CUT, CHANGED_KEY = "cut", "changed key"  # these two the test makes itself: power lost in mid run, and another host key
# kind -> statuses that are true, stages, and what blame or msg must say; None: nothing
Expected = tuple[set[str], set[str | None], str | None]
RUNNING = r"running '(shell|say)' for \d+ s on engine engine-1"
FINISHED = r"; \d+ of the unit's \d+ hosts had finished by then"
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
    "endless": ({"failed"}, {None}, r"wrote more than 64 MiB|wrote \d+ MiB while the unit's commands together"),
    CUT: ({"timeout"}, {"running"}, rf"{RUNNING}, no output for \d+ s{FINISHED}"),
    CHANGED_KEY: ({"unreachable"}, {None}, "the host key of .* has changed"),
}
BY_OPENSSH = {  # the client's own words; all that is known of a stage is that a client runs
    **BY_ASYNCSSH,
    "hang": ({"timeout"}, {"running"}, RUNNING),
    "block": ({"timeout"}, {"running"}, RUNNING),
    "stubborn": ({"timeout"}, {"running"}, RUNNING),
    **dict.fromkeys(("no_banner", "blackhole"), ({"unreachable"}, {None}, "timed out")),
    **dict.fromkeys(("refused", "flapping"), ({"unreachable"}, {None}, "Connection refused")),
    "unreachable": ({"unreachable"}, {None}, "No route to host"),
    "no_auth": ({"unreachable"}, {None}, "Permission denied"),
    "drop": ({"unreachable"}, {None}, None),
    CUT: ({"timeout"}, {"running"}, RUNNING),
    CHANGED_KEY: ({"unreachable"}, {None}, "Host key verification failed"),
}
STOPPED_ON_HOST = {
    "block": "yes",
    "hang": "no",
    "stubborn": "no",
    CUT: "unknown",
}  # by asyncssh; the others ended by themselves
WAYS = {
    "threads-asyncssh": BY_ASYNCSSH,
    "threads-openssh": BY_OPENSSH,
    "processes-asyncssh": BY_OPENSSH,  # worker processes cannot share asyncssh's connections
    "processes-openssh": BY_OPENSSH,
}
PLAYBOOK = "- hosts: all\n  gather_facts: false\n  tasks:\n    - {name: say, shell: echo hi}\n"


@pytest.mark.parametrize("backend", ["embedded"], indirect=True)
def test_each_kind_alone_beside_healthy_hosts(services: Services, fleet: Fleet, request: pytest.FixtureRequest) -> None:
    services.start()
    *well, changed = fleet.hosts("healthy", 3)
    _learn_keys(services, [*well, changed])
    flapping, cut = fleet.hosts("flapping", 2), fleet.hosts("slow", 4)[2:]
    fleet.change_key(changed)
    fleet.refuse_next(*flapping)
    request.addfinalizer(lambda: fleet.mend(*cut, changed))

    tasks = {
        submit(services, [*well, host]): (CUT, host) for host, submit in zip(cut, (_adhoc, _playbook), strict=True)
    }
    wait_for("the slow hosts to work", lambda: _at_work(fleet) == 2)
    fleet.cut(*cut)
    for number, submit in enumerate((_adhoc, _playbook), 1):
        for kind in BY_ASYNCSSH.keys() - {CUT}:
            host = changed if kind == CHANGED_KEY else fleet.hosts(kind, number)[-1]
            tasks[submit(services, [*well, host])] = (kind, host)

    wrong = []
    for task_id, (kind, sick) in tasks.items():
        services.wait_task(task_id, seconds=TIMEOUT_SECONDS + 90)
        items = {item["ip"]: item for item in services.hosts(task_id)}
        problem = _problem(BY_ASYNCSSH[kind], items[sick])
        if problem or {items[host]["status"] for host in well} != {"success"}:
            wrong.append((kind, problem, [items[host]["status"] for host in well]))
    assert not wrong


@pytest.mark.parametrize("backend", ["embedded"], indirect=True)
@pytest.mark.parametrize("way", WAYS)
def test_each_kind_is_named_and_nothing_is_left(
    services: Services, fleet: Fleet, way: str, request: pytest.FixtureRequest
) -> None:
    workers, connection = way.split("-")
    services.start(Ansible={"WORKERS": workers, "CONNECTION": connection})
    *well, changed = fleet.hosts("healthy", HEALTHY + 1)
    slow, cut = fleet.hosts("slow", 2)
    own = {slow: "slow", cut: CUT, changed: CHANGED_KEY}
    sick = own | {fleet.hosts(kind)[0]: kind for kind in WAYS[way] if kind not in own.values()}
    _learn_keys(services, [*well, changed])
    before = _remains(services, fleet)
    fleet.change_key(changed)
    request.addfinalizer(lambda: fleet.mend(cut, changed))

    for submit in (_adhoc, _playbook):
        fleet.refuse_next(*fleet.hosts("flapping"))
        task_id = submit(services, [*well, *sick])
        wait_for("the slow hosts to work", lambda: _at_work(fleet) == 2)
        fleet.cut(cut)
        services.wait_task(task_id, seconds=TIMEOUT_SECONDS + 90)
        fleet.mend(cut)

        items = {item["ip"]: item for item in services.hosts(task_id)}
        assert {items[host]["status"] for host in well} == {"success"}
        wrong = {kind: problem for host, kind in sick.items() if (problem := _problem(WAYS[way][kind], items[host]))}
        assert not wrong, wrong
        if way == "threads-asyncssh":
            stopped = {kind: items[host]["stopped_on_host"] for host, kind in sick.items()}
            assert {kind: said for kind, said in stopped.items() if said} == STOPPED_ON_HOST

    with contextlib.suppress(TimeoutError):
        wait_for("what the tasks used to be gone", lambda: not _more(before, _remains(services, fleet)), 90)
    assert not _more(before, _remains(services, fleet))


def _learn_keys(services: Services, hosts: list[str]) -> None:
    services.wait_task(services.submit_adhoc(hosts, "true", become=False))


def _at_work(fleet: Fleet) -> int:
    """How many hosts of the kind slow have begun a command."""
    return list(fleet.processes().values()).count("sleep 5 ")


def _adhoc(services: Services, hosts: list[str]) -> str:
    return services.submit_adhoc(hosts, "echo hi", timeout=TIMEOUT_SECONDS, become=False)


def _playbook(services: Services, hosts: list[str]) -> str:
    return services.submit_playbook(hosts, PLAYBOOK, timeout=TIMEOUT_SECONDS)


def _problem(expected: Expected, item: dict[str, Any]) -> str:
    statuses, stages, words = expected
    said = f"{item['blame'] or ''} {item['msg'] or ''}"
    fits = item["status"] in statuses and item["stage"] in stages and (words is None or re.search(words, said))
    return "" if fits else f"{item['status']} at {item['stage']}: {said}"


def _remains(services: Services, fleet: Fleet) -> dict[str, set[str]]:
    """All that a unit could leave behind on the engine and on its hosts."""
    state_dir = services.backend.directory / "engine-1" / "state"
    (incarnation,) = services.live_incarnations("engine-1")
    return {
        "processes": {f"{pid} {title}" for pid, title in services.processes().items()},
        "open files": {
            name
            for pid, title in services.processes().items()
            for name in _open_files(pid, title)
            # A web worker that is asked twice at once opens the database once more, for its pool.
            if not ("web worker" in title and ".db" in name.rpartition("/")[2])
        },
        "STATE_DIR": {path.name for path in state_dir.iterdir() if not path.name.startswith("progress")},
        "/tmp": {path.name for path in Path("/tmp").glob(f"execute-engine-runner-{incarnation}-*")},
        "/dev/shm": {path.name for path in Path("/dev/shm").iterdir()},
        "on the hosts": {
            f"{pid} {line}"
            for pid, line in (fleet.processes() | fleet.sessions()).items()
            if not any(forced in line for forced in FORCED)
        },
    }


def _open_files(pid: int, title: str) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):  # it ended
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if not link.readlink().name.startswith("progress"):  # open for a moment each second
                    found.add(f"{title.strip()}: {link.name} {link.readlink()}")
    return found


def _more(before: dict[str, set[str]], after: dict[str, set[str]]) -> dict[str, set[str]]:
    """What is there now and was not, by where it is."""
    return {where: more for where, found in after.items() if (more := found - before[where])}
