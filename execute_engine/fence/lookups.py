"""Which lookups, filters and tests a client's text may use: those that read nothing of the engine but the share.

lookup(), query() and with_... load their plugin in one place, by lookup_loader; all filters and tests are called in one
place, by JinjaPluginIntercept. What is not known here is refused.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable
from typing import Any

from ansible._internal._templating._jinja_plugins import JinjaPluginIntercept
from ansible.plugins.loader import lookup_loader
from ansible.plugins.lookup import fileglob, first_found, password

from execute_engine.fence.files import Share
from execute_engine.fence.hooks import Refused, hook, in_place_of

_BUILTIN = "ansible.builtin."
_READ_NO_FILE = (
    "dict indexed_items inventory_hostnames items list nested random_choice sequence subelements together vars varnames"
)
_READ_BY_THE_LOADER = "csvfile file fileglob first_found ini template unvault"  # so that they read the share only
LOOKUPS = frozenset(
    (
        *(_BUILTIN + name for name in f"{_READ_NO_FILE} {_READ_BY_THE_LOADER} password".split()),
        "ansible.utils.get_path",
        "ansible.utils.index_of",
        "ansible.utils.to_paths",
        "community.general.cartesian",
        "community.general.dependent",
        "community.general.flattened",
        "community.general.merge_variables",
        "community.general.random_string",
    )
)

JINJA_COLLECTIONS = ("ansible.builtin", "ansible.utils", "ansible.netcommon", "community.general")
_JINJA_PREFIXES = tuple(f"{name}." for name in JINJA_COLLECTIONS)
JINJA_REFUSED = frozenset(  # they read the engine's environment, users, names or any file, or run a program there
    (
        "filter ansible.builtin.expanduser",
        "filter ansible.builtin.expandvars",
        "filter ansible.netcommon.parse_cli",
        "filter ansible.netcommon.parse_cli_textfsm",
        "filter ansible.netcommon.parse_xml",
        "filter ansible.utils.validate",
        "test ansible.utils.resolvable",
        "test ansible.utils.validate",
    )
)
_PATH_TESTS = (
    "directory is_dir file is_file link is_link exists link_exists same_file is_same_file mount is_mount vaulted_file"
)
JINJA_OF_PATHS = frozenset(  # they look at the files that their arguments name
    (
        "filter ansible.builtin.fileglob",
        "filter ansible.builtin.realpath",
        *(f"test {_BUILTIN}{name}" for name in _PATH_TESTS.split()),
    )
)


def install(share: Share) -> None:
    """For this process and its forks, for good. Call it when the plugin loaders have their locks."""
    plain_load = lookup_loader.get_with_context

    def load(name: str, *args: Any, **kwargs: Any) -> Any:
        found = plain_load(name, *args, **kwargs)
        if found.object is not None and found.plugin_load_context.resolved_fqcn not in LOOKUPS:
            raise Refused(f"lookup {name} is refused: on the engine, lookups read only files below {share.files_dir}")
        return found

    def parse_password(plain: Callable[..., Any], lookup: Any, term: str) -> Any:
        path, parameters = plain(lookup, term)
        if path != os.devnull:
            raise Refused(f"lookup password {path} is refused: it writes on the engine; only {os.devnull} is allowed")
        return path, parameters

    def run_fileglob(
        plain: Callable[..., list[str]], lookup: Any, terms: list[str], *args: Any, **kwargs: Any
    ) -> list[str]:
        found = plain(lookup, terms, *args, **kwargs)
        share.check(*found, named=", ".join(terms))
        return list(map(share.shown, found))

    def run_first_found(plain: Callable[..., list[str]], lookup: Any, *args: Any, **kwargs: Any) -> list[str]:
        return list(map(share.shown, plain(lookup, *args, **kwargs)))

    def seen(value: Any) -> Any:
        return share.seen(value) if isinstance(value, str | bytes) else value

    def invoke(plain: Callable[..., Any], plugin: Any, *args: Any, **kwargs: Any) -> Any:
        name = f"{plugin.plugin_type} {plugin.ansible_name}"
        if name in JINJA_REFUSED or not _is_known(plugin.ansible_name):
            raise Refused(
                f"the {name} is refused: it may read or run more on the engine than files below {share.files_dir}"
            )
        if name not in JINJA_OF_PATHS:
            return plain(plugin, *args, **kwargs)
        args, kwargs = tuple(map(seen, args)), {key: seen(value) for key, value in kwargs.items()}
        share.check(*(value for value in (*args, *kwargs.values()) if isinstance(value, str)))
        found = plain(plugin, *args, **kwargs)
        if isinstance(found, list):
            share.check(*found, named=args[0])
            found = list(map(share.shown, found))
        return found

    lookup_loader.get_with_context = load
    hook(password.LookupModule, "_parse_parameters", parse_password)
    hook(fileglob.LookupModule, "run", run_fileglob)
    hook(first_found.LookupModule, "run", run_first_found)
    fileglob.glob = _Glob(share)
    plain_invoke = vars(JinjaPluginIntercept)["_invoke_plugin"].__func__
    JinjaPluginIntercept._invoke_plugin = staticmethod(in_place_of(plain_invoke, invoke))


class _Glob:
    """The module glob, as the lookup fileglob uses it."""

    def __init__(self, share: Share) -> None:
        self._share = share

    def glob(self, pattern: bytes) -> list[bytes]:
        return list(map(os.fsencode, glob.glob(self._share.seen(pattern))))


def _is_known(name: str) -> bool:
    """Without a collection: it lies beside the playbook; whether such code is loaded at all is decided elsewhere."""
    return "." not in name or name.startswith(_JINJA_PREFIXES)
