"""`python -m execute_engine [consumer|heartbeat] --config FILE`: without a role it is the supervisor of both."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from contract import config as configuration
from contract import logs, refusal
from contract.config import Config
from contract.errors import ConfigError
from contract.reload import Reloadable
from contract.supervised import Lifeline
from contract.supervisor import Child, Supervisor
from execute_engine import runner_user

SERVICE = "execute-engine"
CONFIG = Path("conf/server.conf")
# Beyond the drain: for stopped units to end, for their results to be stored, and for the launcher to end.
CONSUMER_END_SECONDS = 90.0
HEARTBEAT_END_SECONDS = 10.0

log = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m execute_engine", description=__doc__)
    parser.add_argument("role", nargs="?", choices=("consumer", "heartbeat"))
    parser.add_argument("--config", type=Path, default=CONFIG)
    options = parser.parse_args(arguments)
    lifeline = Lifeline.from_environment()  # first of all: from here on we die with the supervisor
    try:
        config = configuration.load(options.config, configuration.ENGINE)
        logs.configure(SERVICE, options.role or "supervisor", config.secrets(), config.engine.log_level)
        if options.role is None:
            runner_user.check(config, config.file)
    except ConfigError as exc:
        return refusal.refuse(exc, lifeline)
    if options.role == "consumer":
        from execute_engine import consumer

        return consumer.main(config, lifeline)
    if options.role == "heartbeat":
        from execute_engine import heartbeat

        return heartbeat.main(config, lifeline)
    return _supervise(config)


def _supervise(config: Config) -> int:
    for warning in config.warnings:
        log.warning(warning)
    followed = Reloadable(config, configuration.ENGINE, lambda found: runner_user.check(found, found.file))
    return Supervisor(SERVICE, _children(config), lambda: _children(followed.read_again())).run()


def _children(config: Config) -> list[Child]:
    def child(role: str, stop_seconds: float, ends_last: bool = False) -> Child:
        argv = (sys.executable, "-m", "execute_engine", role, "--config", str(config.file))
        return Child(role, argv, stop_seconds, ends_last)

    children = [child("consumer", config.engine.drain_seconds + CONSUMER_END_SECONDS)]
    if config.zabbix.ip:
        children.append(child("heartbeat", HEARTBEAT_END_SECONDS, ends_last=True))  # a drain is seen
    else:
        log.info("no heartbeat is sent: [Zabbix] IP is empty")
    return children


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
