"""Which names are ad hoc modules: the list beside this file, made from the installed Ansible.

    python -m distribute.modules     # writes the list again, after another Ansible was installed

Ansible is only read here, never imported.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

LIST = Path(__file__).with_name("modules.txt")

_CONTROLLER = "controller"  # the mark behind a name whose work happens on the engine
_BUILTIN = "ansible.builtin."
_LEGACY = "ansible.legacy."  # the same, unless somebody shadows it in a library folder
_CODE = re.compile(r"^(?:def|class|from|import) (?!__future__)", re.MULTILINE)
_TOUCHES_HOST = re.compile(r"_execute_module\(|_low_level_execute_command\(|_transfer_file\(|\.fetch_file\(")
_IGNORED = ("__init__", "async_wrapper")
_MAX_REDIRECTS = 5


def problem_of(name: str) -> str | None:
    """A sentence that says why name is no ad hoc module; None when it is one."""
    kind = _known().get(name.replace(_LEGACY, _BUILTIN, 1) if name.startswith(_LEGACY) else name)
    if kind is None:
        return f"expected a module of the installed Ansible, short or fully qualified, found {name[:100]!r}"
    if kind == _CONTROLLER:
        return f"{name} does its work on the engine, not on the hosts: use it in a playbook"
    return None


@cache
def _known() -> dict[str, str]:
    """name -> "" or _CONTROLLER, from the list."""
    rows = (line.partition(" ") for line in LIST.read_text().splitlines() if not line.startswith("#"))
    return {name: kind for name, _, kind in rows}


def installed() -> str:
    """The text of the list for the Ansible that is installed: about 13,000 names, half a minute."""
    kinds = dict(_builtin()) | dict(_collections())
    redirects = dict(_redirects())
    for name in list(redirects):
        if (target := _resolved(name, redirects, kinds)) is not None:
            kinds.setdefault(name, kinds[target])
    head = "# The modules of the installed Ansible; made by python -m distribute.modules\n"
    return head + "".join(f"{name} {kinds[name]}".rstrip() + "\n" for name in sorted(kinds))


def _builtin() -> Iterator[tuple[str, str]]:
    """Modules of ansible-core, under both their names."""
    for name, text in _sources(_folder("ansible") / "modules"):
        # The documentation says it: who only explains how he uses the connection makes no use of the host.
        only_explains = not _CODE.search(text) and "action_common_attributes.conn" in text
        kind = _CONTROLLER if only_explains else ""
        yield name, kind
        yield _BUILTIN + name, kind


def _collections() -> Iterator[tuple[str, str]]:
    """Modules of the collections. One without code is the documentation of an action plugin, which tells the rest."""
    for collection in _collection_folders():
        plugins = collection / "plugins"
        for name, text in _sources(plugins / "modules"):
            path = name.replace(".", "/")
            action = plugins / "action" / f"{path}.py"
            on_controller = (
                not _CODE.search(text)
                and not (plugins / "modules" / f"{path}.ps1").exists()
                and action.exists()
                and not _TOUCHES_HOST.search(action.read_text(errors="replace"))
            )
            yield f"{_name_of(collection)}.{name}", _CONTROLLER if on_controller else ""


def _redirects() -> Iterator[tuple[str, str]]:
    """Old names and the fully qualified ones that Ansible's own routing tables lead to."""
    core = _folder("ansible") / "config" / "ansible_builtin_runtime.yml"
    yield from _routing(core, "")
    for collection in _collection_folders():
        yield from _routing(collection / "meta" / "runtime.yml", f"{_name_of(collection)}.")


def _routing(path: Path, prefix: str) -> Iterator[tuple[str, str]]:
    if not path.exists():
        return
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    document: dict[str, Any] = yaml.load(path.read_text(), Loader=loader) or {}  # noqa: S506  # safe, and fast
    modules = (document.get("plugin_routing") or {}).get("modules") or {}
    for name, route in modules.items():
        if route and "redirect" in route and "tombstone" not in route and not name.endswith(".ps1"):
            yield prefix + name, route["redirect"]


def _resolved(name: str, redirects: dict[str, str], kinds: dict[str, str]) -> str | None:
    for _ in range(_MAX_REDIRECTS):
        if name in kinds:
            return name
        if name not in redirects:
            return None
        name = redirects[name]
    return None


def _sources(folder: Path) -> Iterator[tuple[str, str]]:
    """Each module below the folder: its dotted name within it, and its text ("" for one that is not Python)."""
    paths = {path for suffix in ("py", "ps1") for path in folder.rglob(f"*.{suffix}")}
    for name in {path.relative_to(folder).with_suffix("") for path in paths}:
        if name.name not in _IGNORED and not name.name.startswith("_"):
            source = folder / name.with_suffix(".py")
            yield ".".join(name.parts), source.read_text(errors="replace") if source.exists() else ""


def _collection_folders() -> list[Path]:
    return sorted(path for path in _folder("ansible_collections").glob("*/*") if (path / "plugins").is_dir())


def _name_of(collection: Path) -> str:
    return f"{collection.parent.name}.{collection.name}"


def _folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"expected the package {package}, found none: pip install -r requirements.txt")
    return Path(spec.submodule_search_locations[0])


if __name__ == "__main__":
    LIST.write_text(installed())
