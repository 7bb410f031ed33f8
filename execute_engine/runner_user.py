"""[Exec_Engine] RUNNER_USER: runners are another user than the engine, and read none of its files.

Only root has what it takes: to become somebody else, and to kill it afterwards.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from contract import processes
from contract.config import Config, EngineSettings
from contract.errors import ConfigError

log = logging.getLogger(__name__)


def of(settings: EngineSettings) -> str:
    """Who runners become; "" = nobody else."""
    return settings.runner_user if os.geteuid() == 0 else ""


def check(config: Config, file: Path) -> None:
    """At the start of the service. Raises ConfigError for a user that does not exist or cannot read what it must."""
    if not (name := config.engine.runner_user):
        return
    try:
        user = processes.user(name)
    except KeyError as exc:
        raise ConfigError(f"[Exec_Engine] RUNNER_USER: expected a user of this machine, found {name}") from exc
    if os.geteuid() != 0:
        log.warning("RUNNER_USER is not used: the engine must be started as root for it", extra={"user": name})
        return
    needed = [Path(os.__file__), Path(__file__), config.ansible.ssh_key_file, config.ansible.vault_password_file]
    if closed := processes.unreadable_for(user, [path for path in needed if path]):
        paths = ", ".join(map(str, closed))
        raise ConfigError(f"[Exec_Engine] RUNNER_USER: {name} cannot read {paths}: let it, by chown or by a group")
    if not processes.unreadable_for(user, [file]):
        log.warning("RUNNER_USER can read the configuration: chmod 600", extra={"user": name, "file": str(file)})
