"""What Ansible does again for every host although the answer is the same, done once.

- Each result's facts are compared with the names of all connection plugins, for which Ansible lists five folders: 4% of
  what a host of a shell task costs. No loader is given another folder once Ansible is loaded (fence).
- A module with its arguments is put together for each host: 10%. It depends on few variables besides the arguments:
  where none of those that may differ from host to host is there, what was put together for one host goes to all.
- Each of 118 keywords of a task, its blocks and its connection is templated and converted to its type: 10%. Nearly all
  have a value that this leaves as it is: none, or one of the type already that holds no template.
- Each option of Ansible or a plugin is looked for in keywords, variables, environment, file and defaults: 5%. Nearly
  all are in no keyword and no variable.
- A plugin's or module's name is looked up in folders: 3%. An answer without reservations is kept.
- Whether errors are to have tracebacks is worked out four times: 1%.
- The mark by which become knows its command is put together of 32 single draws: 1%.
"""

from __future__ import annotations

import copy
import functools
import os
import pickle
import string
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ansible.config.manager import ConfigManager
from ansible.module_utils._internal import _traceback
from ansible.playbook.base import FieldAttributeBase
from ansible.playbook.role_include import IncludeRole
from ansible.plugins import action, become
from ansible.plugins.loader import PluginLoader
from ansible.utils.sentinel import Sentinel

_TYPES = {"bool": bool, "int": int, "string": str, "list": list}
_SKIPPED = object  # in place of a type
_NONE = type(None)
KEPT_MODULES = 32  # with their arguments; 130 KB each
_LETTERS = (string.ascii_lowercase * 10)[:256].encode()  # of each byte
_OWN_COLLECTIONS = frozenset(("ansible.builtin", "ansible.legacy"))
_FOLDERS = ("temppath", "tmppath", "tmp")
_INTERPRETER = "ansible_python_interpreter"
_VARIABLES = (  # that module_common reads besides the interpreter
    "ansible_python_module_rlimit_nofile",
    "ansible_syslog_facility",
    "_ansible_ansiballz_coverage_config",
    "_ansible_ansiballz_debugpy_config",
    "_ansible_ansiballz_pydevd_config",
)


def install() -> None:
    """In this process and its forks, for good; when all folders of plugins are known."""
    PluginLoader.all = _paths_once(PluginLoader.all)
    PluginLoader.find_plugin_with_context = _names_once(PluginLoader.find_plugin_with_context)
    ConfigManager.get_config_value_and_origin = _options_once(ConfigManager.get_config_value_and_origin)
    FieldAttributeBase.post_validate_attribute = _plain_as_they_are(FieldAttributeBase.post_validate_attribute)
    _traceback._is_traceback_enabled = functools.cache(_traceback._is_traceback_enabled)
    become._gen_id = _mark
    action.modify_module = _modules_once(action.modify_module)


def _paths_once(find: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    paths: dict[int, list[str]] = {}

    @functools.wraps(find)
    def wrapper(self: PluginLoader, *args: Any, **kwargs: Any) -> Iterator[Any]:
        if args or kwargs != {"path_only": True}:
            return find(self, *args, **kwargs)
        if id(self) not in paths:
            paths[id(self)] = list(find(self, **kwargs))
        return iter(paths[id(self)])

    return wrapper


def _names_once(find: Callable[..., Any]) -> Callable[..., Any]:
    found: dict[tuple[Any, ...], Any] = {}

    @functools.wraps(find)
    def wrapper(
        self: PluginLoader,
        name: str,
        mod_type: str = "",
        ignore_deprecated: bool = False,
        check_aliases: bool = False,
        collection_list: list[str] | None = None,
    ) -> Any:
        known_by = (id(self), name, mod_type, ignore_deprecated, check_aliases, tuple(collection_list or ()))
        if (context := found.get(known_by)) is None:
            context = find(self, name, mod_type, ignore_deprecated, check_aliases, collection_list)
            is_final = context.resolved or _is_of_ansible(name, collection_list or ())
            if is_final and not (context.deprecated or context.raw_error_list):
                found[known_by] = copy.copy(context)
            return context
        return copy.copy(context)

    return wrapper


def _is_of_ansible(name: str, collections: Sequence[str]) -> bool:
    """Whether it is looked for in the folders that are known by now alone; others come with a collection."""
    return "." not in name.removeprefix("ansible.legacy.") and _OWN_COLLECTIONS.issuperset(collections)


def _plain_as_they_are(validate: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(validate)
    def wrapper(self: Any, name: str, *, templar: Any) -> Any:
        owner: Any = type(self)
        kind = _kinds(owner).get(name)
        if kind is _SKIPPED:
            return Sentinel
        if kind is not None:
            value = getattr(self, name)
            if value is None:
                return Sentinel
            if type(value) is kind and _is_plain(value):
                return [] if kind is list else value
        return validate(self, name, templar=templar)

    return wrapper


def _is_plain(value: object) -> bool:
    if isinstance(value, str):
        return "{" not in value
    return not (isinstance(value, list) and value)


@functools.cache
def _kinds(owner: Any) -> dict[str, type]:
    """Keywords of this class that need no look when they are none, or a plain value of this type, or none ever."""
    if issubclass(owner, IncludeRole):
        return {}
    kinds: dict[str, type] = {}
    for name, attribute in owner.fattributes.items():
        if attribute.static:
            kinds[name] = _SKIPPED if name == "vars" else _NONE
        elif attribute.required:
            continue
        elif not (owner._post_validate_object or attribute.always_post_validate):
            kinds[name] = _SKIPPED
        elif attribute.isa in _TYPES and not hasattr(owner, f"_post_validate_{name}"):
            kinds[name] = _TYPES[attribute.isa]
        else:
            kinds[name] = _NONE
    return kinds


def _options_once(find: Callable[..., Any]) -> Callable[..., Any]:
    known: dict[tuple[str | None, str | None, str], tuple[Any, Any]] = {}  # of an option: its definition, its answer

    @functools.wraps(find)
    def wrapper(
        self: ConfigManager,
        config: str,
        cfile: str | None = None,
        plugin_type: str | None = None,
        plugin_name: str | None = None,
        keys: Mapping[str, Any] | None = None,
        variables: Mapping[str, Any] | None = None,
        direct: Mapping[str, Any] | None = None,
    ) -> Any:
        given = {"keys": keys, "variables": variables, "direct": direct}
        if cfile or direct:
            return find(self, config, cfile, plugin_type, plugin_name, **given)
        definition = self.get_configuration_definitions(plugin_type, plugin_name).get(config)
        option = (plugin_type, plugin_name, config)
        if definition is None or _given(definition, config, keys or {}, variables or {}):
            return find(self, config, cfile, plugin_type, plugin_name, **given)
        if (answer := known.get(option)) is None or answer[0] is not definition:
            answer = (definition, find(self, config, cfile, plugin_type, plugin_name, **given))
            if isinstance(answer[1][0], None | str | int | float) and _is_fixed(definition):
                known[option] = answer
        return answer[1]

    return wrapper


def _is_fixed(definition: Mapping[str, Any]) -> bool:
    """Neither a template nor a folder that is made at each look."""
    return "{" not in str(definition.get("default")) and definition.get("type") not in _FOLDERS


def _given(definition: Mapping[str, Any], option: str, keys: Mapping[str, Any], variables: Mapping[str, Any]) -> bool:
    """Whether a keyword or a variable may say something about this option."""
    if any(entry["name"] in variables for entry in definition.get("vars") or ()):
        return True
    keywords = (entry["name"] for entry in definition.get("keyword") or ())
    return any(keys.get(name) is not None for name in (option, *(definition.get("aliases") or ()), *keywords))


def _mark(length: int = 32) -> str:
    """As hard to guess as become's own."""
    return os.urandom(length).translate(_LETTERS).decode()


def _modules_once(modify: Callable[..., Any]) -> Callable[..., Any]:
    built: OrderedDict[bytes, Any] = OrderedDict()
    lock = threading.Lock()

    @functools.wraps(modify)
    def wrapper(*, module_path: str, module_args: Any, task_vars: Mapping[str, Any], **others: Any) -> Any:
        everything = {"module_path": module_path, "module_args": module_args, "task_vars": task_vars, **others}
        interpreter = task_vars.get(_INTERPRETER)
        if not _is_path(interpreter) or others.get("remote_is_local") or any(map(task_vars.__contains__, _VARIABLES)):
            return modify(**everything)
        known_by = (module_path, others.get("module_name"), others.get("module_compression"), interpreter, module_args)
        try:
            key = pickle.dumps(known_by)  # tags that Ansible puts on values included, which == would not see
        except Exception:  # noqa: BLE001 - what cannot be pickled; Ansible has its own word for it
            return modify(**everything)
        with lock:
            if key not in built:
                built[key] = modify(**everything)
                if len(built) > KEPT_MODULES:
                    built.popitem(last=False)
            return built[key]

    return wrapper


def _is_path(interpreter: object) -> bool:
    """Neither a template nor a wish to have it found out."""
    return isinstance(interpreter, str) and interpreter.startswith("/") and "{" not in interpreter
