"""python -m distribute [web | dispatcher | token ...] --config FILE: the supervisor, one of its roles, or a command."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from contract import config, logs, processes, refusal
from contract.config import Config
from contract.errors import ConfigError
from contract.reload import Reloadable
from contract.supervised import Lifeline
from contract.supervisor import Child, Supervisor
from distribute import exposure, run_folder, token_command

ROLES = {"web": 25.0, "dispatcher": 15.0, "heartbeat": 10.0}  # how long each may take to stop, seconds

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 after a stop, 78 when the configuration cannot be used."""
    given = _parser().parse_args(arguments)
    lifeline = Lifeline.from_environment()
    try:
        settings = config.load(given.config, config.DISTRIBUTE)
        if given.command == "token":
            return token_command.run(given, settings)
        level = settings.distribute.log_level
        logs.configure("distribute", given.command or "supervisor", settings.secrets(), level)
        return _run_role(given.command, settings, lifeline) if given.command else _supervise(settings)
    except ConfigError as exc:
        return refusal.refuse(exc, lifeline)


def _parser() -> argparse.ArgumentParser:
    """--config may stand before or behind every command: behind it has no default that would undo the one before."""
    words = "default: conf/server.conf"
    parser = argparse.ArgumentParser(prog="python -m distribute", description="Takes tasks by REST and hands them out.")
    parser.add_argument("--config", type=Path, default=Path("conf/server.conf"), help=words)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--config", type=Path, default=argparse.SUPPRESS, help=words)
    roles = parser.add_subparsers(dest="command", metavar="COMMAND", help="without: the whole service")
    roles.add_parser("web", parents=[shared], help="one process of the service: REST")
    roles.add_parser("dispatcher", parents=[shared], help="one process of the service: hands units out")
    roles.add_parser("heartbeat", parents=[shared], help="one process of the service: tells Zabbix how it is")
    token_command.declare(roles.add_parser("token", parents=[shared], help="the tokens of the clients"), shared)
    return parser


def _supervise(settings: Config) -> int:
    door = exposure.check(settings.distribute)
    for warning in (*settings.warnings, *([door] if door else [])):
        log.warning(warning)
    followed = Reloadable(settings, config.DISTRIBUTE, lambda found: exposure.check(found.distribute))
    with run_folder.shared():
        return Supervisor("distribute", _children(settings), lambda: _children(followed.read_again())).run()


def _children(settings: Config) -> list[Child]:
    def child(role: str) -> Child:
        argv = (sys.executable, "-m", "distribute", role, "--config", str(settings.file))
        return Child(role, argv, ROLES[role])

    children = [child("web"), child("dispatcher")]
    if settings.zabbix.ip:
        children.append(child("heartbeat"))
    else:
        log.info("no heartbeat is sent: [Zabbix] IP is empty")
    return children


def _run_role(role: str, settings: Config, lifeline: Lifeline) -> int:
    processes.set_title(f"distribute: {role}")  # before any library that takes the command line's memory for itself
    code: int = importlib.import_module(f"distribute.{role}").run(settings, lifeline)
    return code


if __name__ == "__main__":
    sys.exit(main())
