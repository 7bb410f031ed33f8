"""Sets Zabbix up for this machine's engine, or prints the template file and its tables."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from contract import config as configuration
from contract.errors import ConfigError
from execute_engine.errors import ProvisionError
from execute_engine.zabbix import items, provisioning, template_file
from execute_engine.zabbix.api import Api

CONFIG = Path("conf/server.conf")
PASSWORD_VARIABLE = configuration.API_PASSWORD_VARIABLE
TEMPLATES = {
    "engine": (items.ENGINE.name,),
    "distribute": (items.DISTRIBUTE.name,),
    "both": (items.ENGINE.name, items.DISTRIBUTE.name),
}


def main(arguments: Sequence[str]) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m execute_engine.zabbix", description=__doc__)
    commands = parser.add_subparsers(dest="deed", required=True)
    _declare(commands.add_parser("provision", help="make templates, group, host and dashboard, or put them right"))
    commands.add_parser("template", help="print the file that Zabbix imports, conf/zabbix/execute-engine.yaml")
    commands.add_parser("table", help="print the tables of docs/zabbix.md")
    given = parser.parse_args(arguments)
    if given.deed == "provision":
        return _provision(given)
    print(template_file.text() if given.deed == "template" else template_file.table(), end="")
    return 0


def _declare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", required=True, help="of Zabbix's web pages, such as http://zabbix.example.org/zabbix/")
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--user", help="a Super admin; the password is asked for")
    who.add_argument("--token-file", type=Path, help="a file that holds an API token of one, instead")
    words = f"a file that holds the password; or name it in {PASSWORD_VARIABLE}"
    parser.add_argument("--password-file", type=Path, help=words)
    parser.add_argument(
        "--runs", choices=TEMPLATES, default="engine", help="what runs on this machine, engine unless told"
    )
    parser.add_argument("--config", type=Path, default=CONFIG, help="for [Zabbix] HOST and [Data_Send] ZABBIX")


def _provision(given: argparse.Namespace) -> int:
    try:
        config = configuration.load(given.config, configuration.ENGINE)
        host = provisioning.Host(config.zabbix.host, TEMPLATES[given.runs], config.intervals.zabbix)
        for done, what in provisioning.provision(_api(given), host):
            print(f"{done:9} {what}", flush=True)
    except ConfigError as exc:
        print(exc, file=sys.stderr)
        return ConfigError.EXIT_CODE
    except ProvisionError as exc:
        print(f"python -m execute_engine.zabbix provision: {exc}", file=sys.stderr)
        return 1
    return 0


def _api(given: argparse.Namespace) -> Api:
    if given.token_file:
        return Api(given.url, "", token=_held_by(given.token_file))
    return Api(given.url, given.user, _password(given))


def _password(given: argparse.Namespace) -> str:
    """Never from the arguments: every user of the machine can read those."""
    file = given.password_file or os.environ.get(PASSWORD_VARIABLE)
    if file:
        return _held_by(Path(file))
    if not sys.stdin.isatty():
        raise ProvisionError(f"expected --password-file FILE or {PASSWORD_VARIABLE}=FILE, found nobody to ask")
    return getpass.getpass(f"Password of {given.user} at {given.url}: ")


def _held_by(file: Path) -> str:
    try:
        held = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise ProvisionError(f"{file} cannot be read: {exc}") from exc
    if not held:
        raise ProvisionError(f"expected a password or token in {file}, found nothing")
    return held


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
