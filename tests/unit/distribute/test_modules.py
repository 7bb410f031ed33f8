"""Which modules an ad hoc task may have: what works on the hosts, under any name that the installed Ansible knows."""

from __future__ import annotations

import pytest

from distribute import modules


@pytest.mark.parametrize(
    "name",
    ["shell", "command", "raw", "script", "copy", "template", "fetch", "setup", "ping", "package", "service", "reboot",
     "ansible.builtin.shell", "ansible.legacy.copy", "ansible.windows.win_shell", "community.general.ini_file",
     "win_ping", "ini_file", "mysql_user"],
)  # fmt: skip
def test_a_module_that_works_on_the_hosts_is_known_by_its_short_and_its_full_name(name: str) -> None:
    assert modules.problem_of(name) is None


@pytest.mark.parametrize(
    "name",
    ["add_host", "meta", "include_tasks", "import_tasks", "include_role", "import_role", "include_vars",
     "import_playbook", "group_by", "pause", "set_fact", "set_stats", "debug", "fail", "assert",
     "validate_argument_spec"],
)  # fmt: skip
def test_a_module_that_works_on_the_engine_is_refused_under_each_of_its_names(name: str) -> None:
    for full in (name, f"ansible.builtin.{name}", f"ansible.legacy.{name}"):
        assert modules.problem_of(full) == f"{full} does its work on the engine, not on the hosts: use it in a playbook"


@pytest.mark.parametrize(
    "name",
    ["", "shel", "Shell", " shell", "shell ", "shell\n", "ansible.builtin.", "ansible.builtin.win_ping",
     "builtin.shell", "ansible.builtin.ansible.builtin.shell", "ansible.legacy.ansible.legacy.copy", "async_wrapper",
     "__init__", "../x", "#", "controller", "a.b.c"],
)  # fmt: skip
def test_a_name_that_ansible_does_not_know_is_refused_and_shown(name: str) -> None:
    problem = f"expected a module of the installed Ansible, short or fully qualified, found {name!r}"
    assert modules.problem_of(name) == problem


def test_a_long_name_is_shown_in_part() -> None:
    assert len(modules.problem_of("x" * 1_000_000) or "") < 200


def test_the_list_names_every_module_of_the_installed_ansible_core() -> None:
    """Else somebody installed another Ansible and did not make the list again."""
    builtin = dict(modules._builtin())
    assert len(builtin) > 100
    known = modules._known()
    assert {name: known.get(name) for name in builtin} == builtin
