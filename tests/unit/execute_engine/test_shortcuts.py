from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible._internal._datatag._tags import Origin, TrustedAsTemplate
from ansible.config.manager import ConfigManager
from ansible.module_utils._internal._datatag import AnsibleTagHelper
from ansible.playbook.base import FieldAttributeBase
from ansible.playbook.block import Block
from ansible.playbook.play import Play
from ansible.playbook.play_context import PlayContext
from ansible.playbook.role_include import IncludeRole
from ansible.playbook.task import Task
from ansible.template import Templar

from execute_engine import shortcuts
from execute_engine.shortcuts import KEPT_MODULES

PATH = "/site-packages/ansible/modules/command.py"
VARIABLES = {"ansible_python_interpreter": "/usr/bin/python3", "inventory_hostname": "a"}


class Modify:
    """In place of Ansible's function: a new object for each call."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, **given: Any) -> object:
        self.calls += 1
        return object()


@pytest.fixture
def modify() -> Modify:
    return Modify()


@pytest.fixture
def build(modify: Modify) -> Callable[..., object]:
    once = shortcuts._modules_once(modify)

    def call(task_vars: dict[str, Any] = VARIABLES, path: str = PATH, **args: Any) -> object:
        return once(module_name="command", module_path=path, module_args=args, task_vars=task_vars, templar=object())

    return call


def test_a_module_is_built_once_for_all_hosts_with_the_same_arguments(build: Callable[..., object]) -> None:
    first = build(_raw_params="id")
    assert build({**VARIABLES, "inventory_hostname": "b"}, _raw_params="id") is first


@pytest.mark.parametrize(
    "other",
    [
        {"_raw_params": "id -u"},
        {"_raw_params": "id", "chdir": "/"},
        {"path": "/site-packages/ansible/modules/shell.py", "_raw_params": "id"},
        {"task_vars": {"ansible_python_interpreter": "/usr/bin/python4"}, "_raw_params": "id"},
    ],
)
def test_what_makes_another_payload_is_built_anew(build: Callable[..., object], other: dict[str, Any]) -> None:
    first = build(_raw_params="id")
    assert build(**other) is not first
    assert build(_raw_params="id") is first


@pytest.mark.parametrize(
    "task_vars",
    [
        {"ansible_python_interpreter": "auto"},
        {"ansible_python_interpreter": "/opt/{{ version }}/python"},
        {"inventory_hostname": "a"},
        {**VARIABLES, "ansible_python_module_rlimit_nofile": 100},
        {**VARIABLES, "_ansible_ansiballz_debugpy_config": {}},
    ],
)
def test_what_may_differ_from_host_to_host_is_built_for_each(
    build: Callable[..., object], modify: Modify, task_vars: dict[str, Any]
) -> None:
    build(task_vars, _raw_params="id")
    build(task_vars, _raw_params="id")
    assert modify.calls == 2


def test_the_oldest_one_is_forgotten(build: Callable[..., object], modify: Modify) -> None:
    for number in range(KEPT_MODULES + 1):
        build(_raw_params=str(number))
    build(_raw_params=str(KEPT_MODULES))
    assert modify.calls == KEPT_MODULES + 1
    build(_raw_params="0")
    assert modify.calls == KEPT_MODULES + 2


def test_arguments_that_cannot_be_compared_are_left_to_ansible(build: Callable[..., object], modify: Modify) -> None:
    build(_raw_params=lambda: None)
    assert modify.calls == 1


def test_plugin_folders_are_listed_once() -> None:
    listed = []

    class Loader:
        def all(self, **kwargs: Any) -> Any:
            listed.append(kwargs)
            yield "a.py"

    Loader.all = shortcuts._paths_once(Loader.all)  # type: ignore[method-assign]
    connections, lookups = Loader(), Loader()
    assert [list(connections.all(path_only=True)) for _ in range(2)] == [["a.py"], ["a.py"]]
    assert len(listed) == 1
    list(lookups.all(path_only=True))
    list(connections.all(class_only=True))
    assert len(listed) == 3


VALUES: list[Any] = [
    None, True, False, 0, 5, "", "yes", "22", "a b", "{{ name }}", "{% if %}", [], ["a"], {}, {"a": 1}, 1.5, b"a",
    TrustedAsTemplate().tag("{{ name }}"), TrustedAsTemplate().tag("plain"), Origin(path="/a").tag("yes"),
    Origin(path="/a").tag(22),
]  # fmt: skip


def outcome(work: Callable[[], Any]) -> tuple[Any, ...]:
    """All that can be told of what came of it."""
    try:
        value = work()
    except Exception as error:  # noqa: BLE001 - an error is an outcome too
        return type(error), str(error)
    tags = AnsibleTagHelper.tags(value)
    return type(value), value, tags


@pytest.mark.parametrize("owner", [Task, PlayContext, Block, Play, IncludeRole])
def test_every_keyword_is_validated_as_ansible_does_it(owner: type) -> None:
    ansible = inspect.unwrap(FieldAttributeBase.post_validate_attribute)
    templar = Templar(loader=None, variables={"name": "found"})
    left = []

    def leave(*given: Any, **more: Any) -> Any:
        left.append(given)
        return ansible(*given, **more)

    ours = shortcuts._plain_as_they_are(leave)
    names = list(owner.fattributes)  # type: ignore[attr-defined]
    for name in names:
        for value in VALUES:
            subject = owner()
            setattr(subject, name, value)
            found = outcome(functools.partial(ours, subject, name, templar=templar))
            assert found == outcome(functools.partial(ansible, subject, name, templar=templar)), (name, value)
    assert (len(left) < len(names) * len(VALUES)) == (owner is not IncludeRole)


DEFINITIONS: dict[str, dict[str, Any]] = {
    "port": {"type": "int", "default": 22, "vars": [{"name": "ansible_port"}], "keyword": [{"name": "the_port"}]},
    "user": {"type": "str", "aliases": ["remote_user"], "env": [{"name": "SHORTCUTS_USER"}], "default": "nobody"},
    "home": {"type": "str", "default": "/home/{{ name }}"},
    "groups": {"type": "list", "default": ["a"]},
    "sudo": {"type": "bool", "default": None},
    "must": {"type": "str", "required": True},
}


class Options(ConfigManager):
    """Asks Ansible's own function, and counts."""

    looks = 0

    def find(self, *given: Any, **more: Any) -> Any:
        self.looks += 1
        return inspect.unwrap(ConfigManager.get_config_value_and_origin)(self, *given, **more)

    once = shortcuts._options_once(find)


@pytest.fixture
def options() -> Options:
    manager = Options()
    manager.initialize_plugin_configuration_definitions("connection", "ours", DEFINITIONS)
    return manager


GIVEN: list[dict[str, Any]] = [
    {},
    {"keys": {"the_port": 2200, "user": None, "other": 1}},
    {"keys": {"port": 2201}},
    {"keys": {"remote_user": "ops"}},
    {"variables": {"ansible_port": "2202", "name": "ann"}},
    {"variables": {"name": "bob"}},
    {"direct": {"user": "root", "groups": ["b"]}},
]


def test_every_option_is_what_ansible_finds_and_what_nothing_speaks_of_is_found_once(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHORTCUTS_USER", "from-the-environment")
    for given in (*GIVEN, *GIVEN):
        for name in (*DEFINITIONS, "unknown"):
            arguments = {"plugin_type": "connection", "plugin_name": "ours", **given}
            ours = outcome(functools.partial(options.once, name, **arguments))
            assert ours == outcome(functools.partial(Options.find, options, name, **arguments)), (name, given)
    options.looks = 0
    for name in ("port", "user", "sudo"):
        options.once(name, plugin_type="connection", plugin_name="ours", variables={"name": "c"}, keys={"other": 2})
    assert options.looks == 0


def test_an_option_that_is_defined_anew_is_looked_for_anew(options: Options) -> None:
    def port() -> Any:
        return options.once("port", plugin_type="connection", plugin_name="ours")[0]

    assert port() == 22
    changed = {"port": {**DEFINITIONS["port"], "default": 23}}
    options.initialize_plugin_configuration_definitions("connection", "ours", changed)
    assert port() == 23


def test_a_folder_that_is_made_for_who_asks_is_made_for_each(options: Options, tmp_path: Path) -> None:
    base = {"SHORTCUTS_TMP": {"type": "tmppath", "default": str(tmp_path)}}
    options.initialize_plugin_configuration_definitions("connection", "ours", base)
    first, second = (options.once("SHORTCUTS_TMP", plugin_type="connection", plugin_name="ours")[0] for _ in range(2))
    assert first != second


def test_an_option_of_ansible_itself_is_found_once(options: Options) -> None:
    found = options.once("DEFAULT_FORKS")
    assert (found, options.looks) == (options.once("DEFAULT_FORKS"), 1)


def test_a_mark_is_of_letters_and_never_the_same() -> None:
    marks = {shortcuts._mark() for _ in range(100)}
    assert len(marks) == 100
    assert all(re.fullmatch("[a-z]{32}", mark) for mark in marks)


def test_a_name_is_looked_up_once_and_its_answer_is_nobody_elses() -> None:
    looked_up = []

    class Context:
        def __init__(self, name: str, resolved: bool = True, deprecated: bool = False) -> None:
            self.original_name, self.resolved, self.deprecated = name, resolved, deprecated
            self.raw_error_list: list[Exception] = []

    class Loader:
        def find(self, name: str, *rest: Any) -> Context:
            looked_up.append((name, *rest))
            return Context(name, resolved="missing" not in name, deprecated=name == "old")

    find = shortcuts._names_once(Loader.find)
    modules, actions = Loader(), Loader()
    first = find(modules, "stat", collection_list=["a.b"])
    first.original_name = "changed"
    again = find(modules, "stat", collection_list=["a.b"])
    assert (again.original_name, len(looked_up)) == ("stat", 1)
    again.original_name = "changed"
    assert find(modules, "stat", collection_list=["a.b"]).original_name == "stat"
    for other in (
        lambda: find(actions, "stat", collection_list=["a.b"]),
        lambda: find(modules, "stat", collection_list=["c.d"]),
        lambda: find(modules, "stat", ".py", collection_list=["a.b"]),
    ):
        before = len(looked_up)
        other()
        assert len(looked_up) == before + 1
    for name, collections in (("old", None), ("missing", ["a.b"]), ("a.b.missing", None), ("a.b.missing", [])):
        before = len(looked_up)
        find(modules, name, collection_list=collections)
        find(modules, name, collection_list=collections)
        assert len(looked_up) == before + 2
    for name, collections in (("missing", None), ("ansible.legacy.missing", ["ansible.builtin", "ansible.legacy"])):
        before = len(looked_up)
        find(modules, name, collection_list=collections)
        find(modules, name, collection_list=collections)
        assert len(looked_up) == before + 1
