"""The stock ansible and ansible-playbook commands, imported once and forked for each command line.

python -m tests.differential.stock FILE     FILE: JSON list of {"argv": [...], "record": path, "log": path}
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
AT_ONCE = 3
SSH_ARGUMENTS = (
    "-o KexAlgorithms=^curve25519-sha256 -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null "
    "-o LogLevel=ERROR -o ControlMaster=no -o ControlPath=none"
)


def run(commands: list[dict[str, Any]], directory: Path, more: Mapping[str, str] | None = None) -> None:
    """Blocks until all have run, with more in their environment. Raises CalledProcessError when one did not start."""
    requests = directory / "requests.json"
    requests.write_text(json.dumps(commands))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environment |= {
        "ANSIBLE_CONFIG": str(ROOT / "execute_engine" / "ansible.cfg"),
        "ANSIBLE_HOME": str(directory / "home"),
        "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1",
        "ANSIBLE_CALLBACK_PLUGINS": str(Path(__file__).parent / "callbacks"),
        "ANSIBLE_CALLBACKS_ENABLED": "recorder",
        "ANSIBLE_SSH_ARGS": SSH_ARGUMENTS,
        "LC_ALL": "C.UTF-8",
        **(more or {}),
    }
    with (directory / "stock.log").open("ab") as log:
        subprocess.run(
            [sys.executable, "-m", __spec__.name, str(requests)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            timeout=600,
            check=True,
        )


def _serve(requests: list[dict[str, Any]]) -> None:
    from ansible.cli.adhoc import AdHocCLI
    from ansible.cli.playbook import PlaybookCLI
    from ansible.plugins import loader

    for plugins in (loader.become_loader, loader.connection_loader, loader.inventory_loader, loader.shell_loader):
        list(plugins.all(class_only=True))  # each command looks at all of them; here once
    sys.argv[0] = str(Path(sys.executable).with_name("ansible"))  # the ssh plugin asks it for passwords
    running: set[int] = set()
    for request in requests:
        while len(running) >= AT_ONCE:
            running.discard(os.wait()[0])
        if pid := os.fork():
            running.add(pid)
            continue
        os.environ["RECORD_FILE"] = request["record"]
        log = os.open(request["log"], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        command = AdHocCLI if request["argv"][0] == "ansible" else PlaybookCLI
        try:
            command(request["argv"]).run()
        except Exception:  # noqa: BLE001 - what it says is the result
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
    while running:
        running.discard(os.wait()[0])


if __name__ == "__main__":
    _serve(json.loads(Path(sys.argv[1]).read_text()))
