"""python -m distribute [web | dispatcher] --config FILE: the supervisor, or one of the roles that it starts."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from contract import config, logs, processes
from contract.config import Config
from contract.errors import ConfigError
from contract.supervised import Lifeline
from contract.supervisor import Child, Supervisor

ROLES = {"web": 25.0, "dispatcher": 15.0}  # how long each may take to stop, seconds

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 after a stop, 78 when the configuration cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m distribute", description="Takes tasks by REST and hands them out.")
    parser.add_argument("role", nargs="?", choices=ROLES, help="one process of the service; without it: all of them")
    parser.add_argument("--config", type=Path, default=Path("conf/server.conf"), help="default: %(default)s")
    given = parser.parse_args(arguments)
    lifeline = Lifeline.from_environment()
    try:
        settings = config.load(given.config, "distribute")
        logs.configure("distribute", given.role or "supervisor", settings.secrets())
        return _run_role(given.role, settings, lifeline) if given.role else _supervise(given.config, settings)
    except ConfigError as exc:
        print(exc, file=sys.stderr)
        return ConfigError.EXIT_CODE


def _supervise(config_file: Path, settings: Config) -> int:
    for warning in settings.warnings:
        log.warning(warning)
    command = (sys.executable, "-m", "distribute")
    children = [Child(role, (*command, role, "--config", str(config_file)), stop) for role, stop in ROLES.items()]
    return Supervisor("distribute", children).run()


def _run_role(role: str, settings: Config, lifeline: Lifeline) -> int:
    processes.set_title(f"distribute: {role}")  # before any library that takes the command line's memory for itself
    code: int = importlib.import_module(f"distribute.{role}").run(settings, lifeline)
    return code


if __name__ == "__main__":
    sys.exit(main())
