"""What threads could break of Ansible, and the recorded playbooks do not show: waiting, state shared by hosts, and
what a host's result says after it. The comparison with stock Ansible is in test_differential.py."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runner_process import Preloaded, Runner, make_job, one_play, preloaded
from tests.servers.fleet import Fleet
from tests.servers.process import wait_for

Start = Callable[..., Runner]
BOTH = pytest.mark.parametrize("strategy", ["linear", "free"])
ASK = (
    "{name: wait, async_status: {jid: '{{ job.ansible_job_id }}'}, register: found, until: found.finished, "
    "retries: 1000, delay: 0}"
)


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Preloaded]:
    with preloaded(tmp_path_factory.mktemp("runners") / "log") as process:
        yield process


@pytest.fixture
def share(server_directory: Path) -> Path:
    """FILES_DIR, where the hosts, which are this machine, may write too."""
    server_directory.chmod(0o777)
    return server_directory


@pytest.fixture
def playbook(parent: Preloaded, fleet: Fleet, share: Path) -> Start:
    """Starts a playbook on these hosts, all its plays with one strategy."""

    def start(hosts: list[str], content: str, strategy: str = "linear", **fields: Any) -> Runner:
        strategies = (strategy,) * content.count("- hosts:")
        job = make_job(hosts, fleet.port, fleet.key, share, playbook_content=content, strategies=strategies, **fields)
        return parent.start(job)

    return start


@pytest.fixture
def play(playbook: Start) -> Start:
    """Starts one play of these tasks (a line of YAML each) on the hosts; more are further lines of the play."""

    def start(hosts: list[str], *tasks: str, strategy: str = "linear", more: str = "", **fields: Any) -> Runner:
        return playbook(hosts, one_play(*tasks, more=more), strategy, **fields)

    return start


def check(name: str, *conditions: str) -> str:
    """A task that asserts these on each host."""
    quoted = ", ".join(f'"{condition}"' for condition in conditions)
    return f"{{name: {name}, assert: {{that: [{quoted}]}}}}"


def rows(done: dict[str, Any]) -> list[tuple[str, str]]:
    return [(row["name"], row["status"]) for row in done["detail"]["tasks"]]


def statuses(found: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {host: done["status"] for host, done in found.items()}


def counts(found: dict[str, dict[str, Any]]) -> set[tuple[int, int]]:
    return {(done["tasks_ok"], done["tasks_total"]) for done in found.values()}


def all_fine(runner: Runner, tasks: int) -> dict[str, dict[str, Any]]:
    found = runner.ended()
    assert set(statuses(found).values()) == {"success"}, [(done["msg"], rows(done)) for done in found.values()]
    assert counts(found) == {(tasks, tasks)}
    return found


@BOTH
def test_a_task_in_the_background_is_asked_for_later(fleet: Fleet, play: Start, share: Path, strategy: str) -> None:
    go = f"{share}/{{{{ inventory_hostname }}}}"
    wait = f"until test -e {go}; do sleep 0.1; done"
    runner = play(
        fleet.hosts(count=3),
        f"{{name: start, shell: '{wait}; basename {go}', register: job, async: 100, poll: 0}}",
        ASK.replace("register: found, until: found.finished, ", "register: first, "),
        check("it runs", "first.finished == 0"),
        f"{{name: go, file: {{path: '{go}', state: touch}}}}",
        ASK,
        check("its own", "found.stdout == inventory_hostname"),
        strategy=strategy,
    )
    all_fine(runner, 6)


def test_a_task_left_in_the_background_outlives_the_run(fleet: Fleet, play: Start, share: Path) -> None:
    command = f"until test -e {share}/go; do sleep 0.1; done; touch {share}/done"
    all_fine(play(fleet.hosts(), f"{{name: start, shell: '{command}', async: 100, poll: 0}}"), 1)
    (share / "go").touch()
    wait_for("the background task", (share / "done").exists)


def test_delegated_tasks_run_where_they_are_sent_and_register_where_they_came_from(fleet: Fleet, play: Start) -> None:
    where = "echo $SSH_CONNECTION | cut -d' ' -f3"
    runner = play(
        fleet.hosts(count=4),
        f'{{name: sent, raw: "{where}", delegate_to: "{{{{ groups.all[0] }}}}", register: sent}}',
        f'{{name: stayed, raw: "{where}", register: stayed}}',
        check("there", "sent.stdout.strip() == groups.all[0]"),
        check("here", "stayed.stdout.strip() == inventory_hostname"),
    )
    all_fine(runner, 4)


def test_a_host_that_is_away_takes_with_it_only_what_was_sent_to_it(fleet: Fleet, play: Start) -> None:
    (fine,), (away,) = fleet.hosts(), fleet.hosts("refused")
    sent = f"delegate_to: {away}, when: inventory_hostname == '{fine}', ignore_unreachable: true"
    found = play([fine, away], f"{{name: sent, command: id, {sent}}}", "{name: own, command: id}").ended()
    assert rows(found[fine]) == [("sent", "ignored"), ("own", "ok")]
    assert statuses(found) == {fine: "success", away: "unreachable"}


def test_what_one_host_does_once_counts_for_all(fleet: Fleet, play: Start, share: Path) -> None:
    runner = play(
        fleet.hosts(count=4),
        f"{{name: once, shell: 'echo x >> {share}/once; echo said', run_once: true, register: found}}",
        check("all know", "found.stdout == 'said'"),
        "{name: breathe, pause: {seconds: 0}}",
    )
    all_fine(runner, 3)
    assert (share / "once").read_text() == "x\n"


def test_hosts_see_what_others_registered(fleet: Fleet, play: Start) -> None:
    hosts = fleet.hosts(count=8)
    runner = play(
        hosts,
        "{name: said, command: 'echo {{ inventory_hostname }}', register: said}",
        "{name: fact, set_fact: {mine: '{{ said.stdout }}'}}",
        "{name: of all, assert: {that: [\"groups.all | map('extract', hostvars, 'mine') | list == groups.all\"]}}",
        "{name: nested, assert: {that: [\"groups.all | map('extract', hostvars, ['said', 'rc']) | sum == 0\"]}}",
    )
    all_fine(runner, 4)


@BOTH
def test_throttle_lets_no_more_through(fleet: Fleet, play: Start, share: Path, strategy: str) -> None:
    alone = f"mkdir {share}/alone && sleep 0.05 && rmdir {share}/alone"
    all_fine(play(fleet.hosts(count=5), f"{{name: alone, shell: {alone}, throttle: 1}}", strategy=strategy), 1)


def test_without_throttle_they_do_meet(fleet: Fleet, play: Start, share: Path) -> None:
    meet = f"touch {share}/{{{{ inventory_hostname }}}}; until test `ls {share} | wc -l` -ge 5; do sleep 0.05; done"
    all_fine(play(fleet.hosts(count=5), f'{{name: together, shell: "{meet}", timeout: 60}}'), 1)


@BOTH
def test_a_task_over_its_timeout_is_ended_and_the_host_goes_on(fleet: Fleet, play: Start, strategy: str) -> None:
    slow, *others = fleet.hosts(count=3)
    sleeping = f"600.{time.time_ns() % 10**9:09d}"
    seconds = f"{{{{ {sleeping} if inventory_hostname == groups.all[0] else 0 }}}}"
    runner = play(
        [slow, *others],
        f'{{name: slow, command: "sleep {seconds}", timeout: 2, ignore_errors: true, register: found}}',
        check("said", "found is succeeded or '2 second' in found.msg"),
        "{name: after, command: echo}",
        strategy=strategy,
    )
    found = runner.ended()
    assert rows(found[slow]) == [("slow", "ignored"), ("said", "ok"), ("after", "ok")]
    assert all(rows(found[host])[0] == ("slow", "ok") for host in others)
    assert not [line for line in fleet.processes().values() if sleeping in line]


def test_a_timeout_ends_what_only_connects(fleet: Fleet, play: Start) -> None:
    began = time.monotonic()
    found = play(fleet.hosts("no_banner"), "{name: slow, command: id, timeout: 1}", connect_timeout_seconds=100).ended()
    (done,) = found.values()
    assert done["status"] == "failed"
    assert "timed out" in done["msg"].lower() or "timeout" in done["msg"].lower()
    assert time.monotonic() - began < 30


def test_a_timeout_of_one_task_does_not_reach_the_next_of_its_thread(fleet: Fleet, play: Start) -> None:
    runner = play(
        fleet.hosts(count=2),
        *["{name: limited, command: echo, timeout: 1}"] * 3,
        "{name: longer than the limits, command: sleep 1.5}",
        "{name: waits, wait_for: {timeout: 1}}",
    )
    all_fine(runner, 5)


@BOTH
def test_environments_and_variables_of_hosts_do_not_mix(fleet: Fleet, play: Start, strategy: str) -> None:
    runner = play(
        fleet.hosts(count=8),
        *["{name: own, shell: 'echo $ME {{ item }} $PLAY', loop: [1, 2], register: own}"] * 2,
        "{name: right, assert: {that: [\"own.results[1].stdout == inventory_hostname ~ ' 2 all'\"]}}",
        strategy=strategy,
        more="  environment: {ME: '{{ inventory_hostname }}', PLAY: all}\n",
    )
    all_fine(runner, 3)


def test_a_connection_is_kept_until_it_is_reset(fleet: Fleet, play: Start) -> None:
    runner = play(
        fleet.hosts(count=3),
        "{name: first, raw: echo $PPID, register: first}",
        "{name: second, raw: echo $PPID, register: second}",
        "{meta: reset_connection}",
        "{name: third, raw: echo $PPID, register: third}",
        check("kept", "first.stdout == second.stdout"),
        check("new", "first.stdout != third.stdout"),
    )
    all_fine(runner, 5)


def test_wait_for_connection_waits_until_the_host_is_there(fleet: Fleet, play: Start) -> None:
    hosts = fleet.hosts("flapping", 2)
    fleet.refuse_next(*hosts)
    runner = play(
        hosts,
        "{name: wait, wait_for_connection: {timeout: 60, sleep: 0, connect_timeout: 5}}",
        "{name: there, command: echo}",
    )
    all_fine(runner, 2)


def test_a_pause_that_asks_somebody_goes_on_by_itself(fleet: Fleet, play: Start) -> None:
    all_fine(play(fleet.hosts(count=2), "{name: ask, pause: {prompt: go on?}}", "{name: after, command: echo}"), 2)


def test_a_variable_that_is_asked_for_has_its_default(fleet: Fleet, play: Start) -> None:
    more = "  vars_prompt: [{name: given, prompt: what?, default: the default}]\n"
    all_fine(play(fleet.hosts(), check("it", "given == 'the default'"), more=more), 1)


@pytest.mark.parametrize("how", ["  debugger: on_failed\n", "  strategy: debug\n"])
def test_a_debugger_finds_nobody_and_the_run_ends(fleet: Fleet, play: Start, how: str) -> None:
    hosts = fleet.hosts(count=2)
    runner = play(hosts, "{name: bad, command: /bin/false}", more=how)
    runner.ended(code=1)
    (event,) = runner.named("unit_failed")
    assert "debugger" in event["reason"]


@BOTH
def test_a_host_that_ends_its_play_is_fine_and_others_go_on(fleet: Fleet, play: Start, strategy: str) -> None:
    first, second = fleet.hosts(count=2)
    runner = play(
        [first, second],
        "{name: one, command: echo}",
        f"{{meta: end_host, when: inventory_hostname == '{first}'}}",
        "{name: two, command: echo}",
        strategy=strategy,
    )
    found = runner.ended()
    assert statuses(found) == {first: "success", second: "success"}
    assert (rows(found[first]), rows(found[second])) == ([("one", "ok")], [("one", "ok"), ("two", "ok")])


def test_a_fatal_error_stops_the_others_and_says_so(fleet: Fleet, playbook: Start) -> None:
    bad, *others = fleet.hosts(count=3)
    content = f"""\
- hosts: all
  gather_facts: false
  any_errors_fatal: true
  tasks:
    - {{name: one, command: "test {{{{ inventory_hostname }}}} != {bad}"}}
    - {{name: two, command: echo}}
- hosts: all
  gather_facts: false
  tasks:
    - {{name: three, command: echo}}
"""
    found = playbook([bad, *others], content).ended()
    assert set(statuses(found).values()) == {"failed"}
    assert (found[bad]["rc"], found[bad]["detail"]["failed_task"]) == (1, "one")
    for host in others:
        assert rows(found[host]) == [("one", "ok")]
        assert "other hosts of its unit failed" in found[host]["msg"]
        assert (found[host]["tasks_ok"], found[host]["tasks_total"]) == (1, 3)


def test_a_batch_that_fails_keeps_the_next_from_starting(fleet: Fleet, play: Start) -> None:
    first, second, third = fleet.hosts(count=3)
    runner = play(
        [first, second, third],
        f'{{name: one, command: "test {{{{ inventory_hostname }}}} != {second}"}}',
        more="  serial: 1\n",
    )
    found = runner.ended()
    assert statuses(found) == {first: "success", second: "failed", third: "not_started"}
    assert "failures on other hosts of its unit" in found[third]["blame"]
    assert found[third]["started_at"] is None


def test_too_many_failures_stop_the_rest(fleet: Fleet, play: Start) -> None:
    hosts = fleet.hosts(count=4)
    runner = play(
        hosts,
        f'{{name: one, command: "test {{{{ inventory_hostname }}}} != {hosts[0]}"}}',
        "{name: two, command: echo}",
        more="  max_fail_percentage: 20\n",
    )
    found = runner.ended()
    assert set(statuses(found).values()) == {"failed"}
    assert found[hosts[1]]["msg"].startswith("Stopped because other hosts")


@BOTH
def test_a_host_that_failed_in_one_play_is_not_in_the_next(fleet: Fleet, playbook: Start, strategy: str) -> None:
    bad, fine, late = fleet.hosts(count=3)
    content = f"""\
- hosts: {bad}:{fine}
  gather_facts: false
  tasks:
    - {{name: one, command: "test {{{{ inventory_hostname }}}} != {bad}"}}
- hosts: all
  gather_facts: false
  tasks:
    - {{name: two, command: echo}}
"""
    found = playbook([bad, fine, late], content, strategy).ended()
    assert statuses(found) == {bad: "failed", fine: "success", late: "success"}
    assert [rows(found[host]) for host in (bad, fine, late)] == [
        [("one", "failed")],
        [("one", "ok"), ("two", "ok")],
        [("two", "ok")],
    ]
    assert [(found[host]["tasks_ok"], found[host]["tasks_total"]) for host in (bad, fine, late)] == [
        (0, 2),
        (2, 2),
        (1, 1),
    ]


def test_an_unreachable_host_that_is_brought_back_is_reported_once(fleet: Fleet, play: Start) -> None:
    (fine,), (away,) = fleet.hosts(), fleet.hosts("flapping")
    fleet.refuse_next(away)
    found = play(
        [fine, away], "{name: one, command: echo}", "{meta: clear_host_errors}", "{name: two, command: echo}"
    ).ended()
    assert rows(found[away]) == [("one", "unreachable"), ("two", "ok")]
    assert statuses(found) == {fine: "success", away: "unreachable"}


@BOTH
def test_handlers_run_once_and_where_they_were_told(fleet: Fleet, playbook: Start, share: Path, strategy: str) -> None:
    hosts = fleet.hosts(count=4)
    content = f"""\
- hosts: all
  gather_facts: false
  tasks:
    - {{name: one, command: echo, notify: told}}
    - {{name: two, command: echo, notify: [told, by topic], changed_when: inventory_hostname == '{hosts[0]}'}}
  handlers:
    - {{name: told, shell: "echo {{{{ inventory_hostname }}}} >> {share}/told"}}
    - {{name: another, listen: by topic, include_tasks: handled.yml}}
"""
    (share / "handled.yml").write_text(f"- {{name: included, shell: 'echo topic >> {share}/topic'}}\n")
    found = playbook(hosts, content, strategy).ended()
    assert set(statuses(found).values()) == {"success"}
    assert sorted((share / "told").read_text().split()) == sorted(hosts)
    assert (share / "topic").read_text() == "topic\n"
    assert rows(found[hosts[0]])[2:] == [("told", "ok"), ("another", "ok"), ("included", "ok")]
    assert {(done["tasks_ok"], done["tasks_total"]) for done in found.values()} == {(5, 5), (3, 3)}


FILES = {
    "roles/first/defaults/main.yml": "kind: first\n",
    "roles/second/defaults/main.yml": "kind: second\n",
    "roles/first/tasks/main.yml": "- {name: 'of {{ kind }}', assert: {that: \"kind | upper == 'FIRST'\"}}\n",
    "roles/second/tasks/main.yml": """\
- {name: "of {{ kind }}", assert: {that: "'::1' is ansible.utils.ipv6 and (kind | community.general.counter).s == 1"}}
""",
}


@BOTH
def test_roles_beside_the_playbook_are_found_by_all_hosts_at_once(
    fleet: Fleet, playbook: Start, share: Path, strategy: str
) -> None:
    """Their plugins, of installed collections, are loaded at their first use, by many threads in the same moment."""
    for path, text in FILES.items():
        (share / path).parent.mkdir(parents=True, exist_ok=True)
        (share / path).write_text(text)
    content = """\
- hosts: all
  gather_facts: false
  roles: [first]
  tasks:
    - {name: include, include_role: {name: second}}
    - {name: import, import_role: {name: second}}
    - {name: loop, include_role: {name: second}, loop: [1, 2]}
"""
    found = playbook(fleet.hosts(count=10), content, strategy).ended()
    assert set(statuses(found).values()) == {"success"}, [done["msg"] for done in found.values()]
    names = ["of first", "include", "of second", "of second", "loop", "of second", "of second"]
    assert [rows(done) for done in found.values()] == [[(name, "ok") for name in names]] * 10
    assert counts(found) == {(7, 7)}


def test_facts_of_many_hosts_at_once_are_each_hosts_own(fleet: Fleet, play: Start) -> None:
    runner = play(
        fleet.hosts(count=12),
        "{name: facts, setup: {gather_subset: [min]}}",
        "{name: own, set_fact: {one: '{{ ansible_facts.env.SSH_CONNECTION.split()[2] }}'}}",
        check("right", "one == inventory_hostname"),
        strategy="free",
    )
    all_fine(runner, 3)


@BOTH
def test_blocks_inside_blocks_are_rescued_on_each_host_by_itself(fleet: Fleet, playbook: Start, strategy: str) -> None:
    hosts = fleet.hosts(count=4)
    content = f"""\
- hosts: all
  gather_facts: false
  tasks:
    - block:
        - block:
            - {{name: inner, command: "test {{{{ inventory_hostname }}}} != {hosts[0]}"}}
          rescue:
            - {{name: mended, assert: {{that: [ansible_failed_task.name == 'inner']}}}}
            - {{name: again, command: /bin/false}}
      rescue:
        - {{name: outer, assert: {{that: [ansible_failed_task.name == 'again']}}}}
      always:
        - {{name: always, command: echo}}
"""
    found = playbook(hosts, content, strategy).ended()
    assert set(statuses(found).values()) == {"success"}
    first, *others = [rows(found[host]) for host in hosts]
    assert first == [("inner", "rescued"), ("mended", "ok"), ("again", "rescued"), ("outer", "ok"), ("always", "ok")]
    assert others == [[("inner", "ok"), ("always", "ok")]] * 3
