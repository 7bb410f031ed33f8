"""What a playbook's text says: its plays, the strategy of each and why, and what splitting the hosts changes."""

from __future__ import annotations

import textwrap

import pytest

from distribute import playbooks
from distribute.playbooks import Playbook
from tests.unit.distribute.problems import problem_of, problems_of

HARMLESS = """
- name: deploy
  hosts: all
  become: true
  gather_facts: false
  vars: {groups_of: x, run: "{{ inventory_hostname }}"}
  tasks:
    - name: groups and hostvars are words
      shell: "echo {{ item }}"
      loop: [a, b]
      when: ansible_facts.os_family == 'Debian'
      environment: {WHICH: groups}
      run_once: false
      throttle: 0
      notify: told
    - block:
        - command: "true"
      rescue:
        - meta: flush_handlers
      always:
        - meta: end_host
  handlers:
    - name: told
      command: "true"
"""


def play(keywords: str) -> Playbook:
    """A playbook of one play with these keywords."""
    return playbooks.parse("- hosts: all\n" + textwrap.indent(textwrap.dedent(keywords).strip("\n"), "  ") + "\n")


def task(text: str) -> Playbook:
    return play(f"tasks:\n  - {text}")


def test_a_play_in_which_no_host_needs_another_is_free() -> None:
    playbook = playbooks.parse(HARMLESS)
    assert playbook.text == HARMLESS
    assert playbook.strategies == ("free",)
    assert playbook.warnings(units=9) == [
        "line 2: play 'deploy' runs with strategy free, because nothing in it makes one host depend on another"
    ]


@pytest.mark.parametrize(
    "keyword",
    ["serial: 1", "serial: [1, 50%]", "max_fail_percentage: 10", "any_errors_fatal: true", "order: sorted",
     "run_once: yes", "throttle: 3"],
)  # fmt: skip
def test_a_keyword_that_binds_the_hosts_makes_a_play_linear(keyword: str) -> None:
    name = keyword.partition(":")[0]
    playbook = play(keyword)
    assert playbook.strategies == ("linear",)
    assert playbook.warnings(units=1) == [f"line 1: play 'all' runs with strategy linear, because of {name} in line 2"]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("{shell: x, run_once: true}", "run_once"),
        ("{shell: x, throttle: '{{ n }}'}", "throttle"),
        ("pause: {seconds: 1}", "pause"),
        ("ansible.builtin.pause: {seconds: 1}", "pause"),
        ("add_host: {name: x}", "add_host"),
        ("group_by: {key: x}", "group_by"),
        ("meta: end_play", "meta end_play"),
        ("ansible.builtin.meta: end_batch", "meta end_batch"),
        ("meta: clear_host_errors", "meta clear_host_errors"),
        ("meta: refresh_inventory", "meta refresh_inventory"),
        ("include_tasks: x.yml", "include_tasks"),  # what is in them is not seen here
        ("import_role: {name: x}", "import_role"),
        ("action: pause seconds=1", "pause"),
        ("action: {module: ansible.builtin.add_host, name: x}", "add_host"),
        ("local_action: meta end_play", "meta"),
        ("debug: {msg: \"{{ hostvars['a'].x }}\"}", "hostvars"),
        ("debug: {msg: \"{% for h in groups.all %}{{ h }}{% endfor %}\"}", "groups"),
        ("debug: {var: play_hosts}", "play_hosts"),
        ("{shell: x, when: inventory_hostname in ansible_play_hosts}", "ansible_play_hosts"),
        ("{shell: x, when: [a, 'b in groups.web']}", "groups"),
        ("{shell: x, loop: \"{{ ansible_play_batch }}\"}", "ansible_play_batch"),
        ("{shell: x, with_inventory_hostnames: all}", "with_inventory_hostnames"),
        ("{shell: x, until: hostvars.a.done}", "hostvars"),
        ("assert: {that: [groups.all | length == 3]}", "groups"),
        ("block: [{shell: x}, {block: [{pause: }]}]", "pause"),
        ("{block: [{shell: x}], rescue: [{shell: x, run_once: true}]}", "run_once"),
        ("{block: [{shell: x}], always: [{meta: end_play}]}", "meta end_play"),
        ("{block: [{shell: x}], run_once: true}", "run_once"),
    ],
)  # fmt: skip
def test_a_task_that_looks_at_other_hosts_makes_its_play_linear(text: str, word: str) -> None:
    playbook = task(text)
    assert playbook.strategies == ("linear",)
    assert playbook.warnings(units=1) == [f"line 1: play 'all' runs with strategy linear, because of {word} in line 3"]


@pytest.mark.parametrize("list_", ["pre_tasks", "tasks", "post_tasks", "handlers"])
def test_every_list_of_tasks_is_looked_at(list_: str) -> None:
    assert play(f"{list_}: [{{shell: x, run_once: true}}]").strategies == ("linear",)


@pytest.mark.parametrize(
    "keyword", ["roles: [web]", "vars: {others: \"{{ groups['all'] }}\"}", "environment: {A: '{{ hostvars.a }}'}"]
)
def test_a_play_hides_in_its_roles_and_variables_what_binds_it(keyword: str) -> None:
    assert play(keyword).strategies == ("linear",)


@pytest.mark.parametrize(
    "keyword", ["roles: []", "any_errors_fatal: false", "any_errors_fatal: no", "throttle: 0", "serial:", "serial: ~"]
)
def test_a_keyword_that_is_switched_off_binds_nothing(keyword: str) -> None:
    assert play(keyword).strategies == ("free",)


def test_an_anchor_binds_where_it_is_used() -> None:
    playbook = playbooks.parse(
        "- hosts: all\n  vars: {x: &task {shell: x, run_once: true}}\n"
        "- {hosts: all, tasks: [*task]}\n- {hosts: all, tasks: [{<<: *task}]}\n- {hosts: all, tasks: [{shell: x}]}\n"
        "- {hosts: all, tasks: [{<<: [{name: y}, *task]}]}\n"
    )
    assert playbook.strategies == ("free", "linear", "linear", "free", "linear")


@pytest.mark.parametrize(
    ("named", "strategy"),
    [("free", "free"), ("ansible.builtin.free", "free"), ("linear", "linear"), ("debug", "linear")],
)
def test_a_strategy_that_the_play_names_stays(named: str, strategy: str) -> None:
    playbook = play(f"strategy: {named}\nserial: 2")
    assert playbook.strategies == (strategy,)
    assert playbook.warnings(units=1) == [f"line 1: play 'all' runs with the strategy that it names, {named}"]


def test_in_more_than_one_unit_the_warnings_say_what_means_the_unit() -> None:
    playbook = playbooks.parse(
        "- hosts: target_hosts\n"
        "  serial: 5\n"
        "  tasks:\n"
        "    - {shell: x, run_once: true}\n"
        "    - debug: {msg: '{{ groups.all }}'}\n"
        "    - pause:\n"
    )
    reason = "line 1: play 'target_hosts' runs with strategy linear, because of serial in line 2"
    assert playbook.warnings(units=1) == [reason]
    assert playbook.warnings(units=3) == [
        reason,
        "line 2: serial means each of the 3 units, not the whole task",
        "line 4: run_once means each of the 3 units, not the whole task",
        "line 5: groups knows the hosts of its own unit, one of 3, not all",
    ]


def test_each_play_has_its_own_strategy_and_hosts_that_are_unknown_are_named() -> None:
    playbook = playbooks.parse(
        "- {hosts: web, tasks: []}\n"
        "- {hosts: '{{ x }}', tasks: []}\n"
        "- {ansible.builtin.import_playbook: x.yml}\n"
        "- {hosts: [all], serial: 1}\n"
    )
    assert playbook.strategies == ("free", "free", "linear", "linear")
    warnings = playbook.warnings(units=1)
    assert warnings[1] == (
        "line 1: play 'web' names hosts 'web': only the task's own hosts, all and target_hosts are known"
    )
    assert warnings[3:] == [
        "line 3: this play runs with strategy linear, because of import_playbook in line 3",
        "line 4: this play runs with strategy linear, because of serial in line 4",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "expected a list of plays, found nothing"),
        ("[]", "line 1, column 1: expected a list of plays, found an empty list"),
        ("\nhosts: all", "line 2, column 1: expected a list of plays, found a mapping"),
        ("hello", "line 1, column 1: expected a list of plays, found a single value"),
        ("- hosts: all\n  tasks: [", "line 3, column 1: expected YAML, found an error: while parsing a flow node"),
    ],
)
def test_what_is_no_list_of_plays_is_told_with_its_place(text: str, problem: str) -> None:
    assert problem_of(lambda: playbooks.parse(text)).startswith(problem)


def test_every_entry_that_is_no_play_is_told() -> None:
    assert problems_of(lambda: playbooks.parse("- hosts: all\n- x\n- {tasks: []}\n- [a]\n")) == [
        ("", "line 2, column 3: expected a play, found a single value"),
        ("", "line 3, column 3: expected a play with hosts, or import_playbook, found neither"),
        ("", "line 4, column 3: expected a play, found a list"),
    ]


def test_a_playbook_does_not_show_its_text_in_a_log() -> None:
    assert "s3cret" not in repr(playbooks.parse("- {hosts: all, vars: {password: s3cret}}"))
