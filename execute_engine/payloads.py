"""Modules as they are sent to hosts, built once in the launcher for all runners.

Ansible sends a module as a zip with all module_utils that it imports. To find them it parses some sixty files: 110 ms
of CPU, as much as running the module on ten hosts. It keeps the zip in its temporary directory, which is a runner's own
here, so every unit would pay anew. Instead the launcher builds the common ones, and the runners forked from it have
them in memory; of any other module a runner keeps what it has built for its first host.

A zip is known by the name of the file that Ansible would keep it in, which says the module's full name, how it is
compressed and what it is extended by. That is all it depends on, because modules come from installed packages alone:
those that lie beside a playbook are not loaded (fence).
"""

from __future__ import annotations

import functools
import os
from pathlib import Path, PurePath
from typing import Any

from ansible import constants
from ansible.executor import module_common
from ansible.plugins.loader import module_loader
from ansible.template import Templar

from execute_engine.forking import fork

_KEPT_IN = "ansiballz_cache"  # below DEFAULT_LOCAL_TMP
_built: dict[str, Any] = {}  # file name -> what Ansible would read from that file


class _Kept(module_common._CachedModule):  # type: ignore[misc]
    """In memory as well as in its file, which worker processes share and which says that it is there."""

    __slots__ = ()

    def dump(self, path: str) -> None:
        super().dump(path)
        _built[PurePath(path).name] = self

    @classmethod
    def load(cls, path: str) -> Any:
        name = PurePath(path).name
        if name not in _built:
            _built[name] = super().load(path)
        return _built[name]


def build(modules: tuple[str, ...]) -> None:
    """Build these modules' payloads, 30 ms of CPU each and 100 ms more for the first; in the launcher, before a fork.

    From then on payloads are kept in memory in this process and its forks. Blocks. The caller has one thread only.
    """
    module_common._CachedModule = _Kept
    # What is parsed for it, 35 MB, is gone with a process of its own; here the files are read that it leaves.
    os.waitpid(fork(lambda: _build_all(modules)), 0)
    for name in modules:
        _build(name)


def _build_all(modules: tuple[str, ...]) -> int:
    module_common._compile_module_ast = functools.cache(module_common._compile_module_ast)  # most import the same files
    for name in modules:
        _build(name)
    return 0


def _build(name: str) -> None:
    path = module_loader.find_plugin_with_context(name).plugin_resolved_path
    module_common.modify_module(
        module_name=name,
        module_path=path,
        module_args={},
        task_vars={"ansible_python_interpreter": "/usr/bin/python3"},
        templar=Templar(loader=None, variables={}),
        module_compression=constants.config.get_config_value("DEFAULT_MODULE_COMPRESSION"),
    )


def offer(temporary: Path) -> None:
    """Let Ansible find in its temporary directory what was built; in the runner, before its first task."""
    directory = temporary / _KEPT_IN
    directory.mkdir()
    for name in _built:
        (directory / name).touch()
