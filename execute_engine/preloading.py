"""Loads Ansible once, in the launcher, so that every runner forked from it has it already."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from execute_engine.errors import RunnerError

_HERE = Path(__file__).parent
CONFIGURATION = _HERE / "ansible.cfg"
CONNECTION_PLUGINS = _HERE / "plugins" / "connection"


def surround() -> Path:
    """Ansible reads our configuration and nothing else; before its first import. Returns its temporary directory."""
    if "ansible.constants" in sys.modules:
        raise RunnerError("Ansible was imported before its configuration was chosen: call preload() first")
    for name in [name for name in os.environ if name.startswith("ANSIBLE_")]:
        del os.environ[name]
    os.environ["ANSIBLE_CONFIG"] = str(CONFIGURATION)
    temporary = Path(tempfile.mkdtemp(prefix="execute-engine-loading-"))
    os.environ["ANSIBLE_LOCAL_TEMP"] = str(temporary)
    return temporary


def load() -> list[str]:
    """Import Ansible and every plugin a run may need; returns their names, "kind/name".

    Raises RunnerError when something that every run needs is missing. Reads and writes files; starts no thread.
    """
    temporary = surround()
    try:
        return _load()
    finally:
        del os.environ["ANSIBLE_LOCAL_TEMP"]
        shutil.rmtree(temporary, ignore_errors=True)


def _load() -> list[str]:
    from ansible.plugins import loader

    import execute_engine.plays  # imports what a run uses of Ansible

    loader.init_plugin_loader()
    loader.connection_loader.add_directory(str(CONNECTION_PLUGINS))
    names = []
    for kind in ("filter", "test", "lookup", "action", "connection", "shell", "become", "strategy", "vars", "cache"):
        plugins = getattr(loader, f"{kind}_loader")
        found = _names(plugins, as_class=kind not in ("filter", "test"))
        if not found:
            raise RunnerError(f"Ansible has no {kind} plugins: is ansible-core installed completely?")
        names += [f"{kind}/{name}" for name in found]
    loader.vars_loader.get("host_group_vars")  # Ansible itself asks for it only where nobody has looked at them before
    for needed in execute_engine.plays.NEEDED_PLUGINS:
        if needed not in names:
            raise RunnerError(f"the plugin {needed} could not be loaded")
    execute_engine.plays.warm_up()
    return names


def _names(plugins: object, as_class: bool) -> list[str]:
    found = plugins.all(class_only=True) if as_class else plugins.all()  # type: ignore[attr-defined]
    return sorted({plugin.ansible_name.removeprefix("ansible.builtin.") for plugin in found})
