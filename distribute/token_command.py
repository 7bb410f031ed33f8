"""python -m distribute token add | list | revoke: the clients' tokens."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from contract.config import Config
from contract.errors import ConfigError
from distribute import patterns, tokens
from distribute.errors import TokensError

LONGEST_DAYS = 36_500


def declare(parser: argparse.ArgumentParser, shared: argparse.ArgumentParser) -> None:
    """The arguments of the command; shared are those that each of its subcommands takes as well."""
    commands = parser.add_subparsers(dest="deed", required=True)
    add = commands.add_parser("add", parents=[shared], help="make a token and print it, once")
    add.add_argument("name", help="whose it is; the tasks, the log and the audit say it")
    add.add_argument("--role", required=True, choices=tokens.ROLES)
    words = f"comma-separated, with * and ?; without --hosts: all hosts. {patterns.MEANING}"
    add.add_argument("--hosts", type=_patterns, default=(), metavar="PATTERNS", help=words)
    add.add_argument("--expires", type=_days, metavar="DAYS", help="without: never")
    commands.add_parser("list", parents=[shared], help="who has one, and what it may")
    revoke = commands.add_parser("revoke", parents=[shared], help="take one back, at once")
    revoke.add_argument("name")


def run(given: argparse.Namespace, settings: Config) -> int:
    """The exit code. The token alone goes to standard output. Raises ConfigError."""
    path = settings.distribute.tokens_file
    if path is None:
        raise ConfigError(
            "[Distribute] TOKENS_FILE is empty: say where the tokens are to be, TOKENS_FILE = conf/tokens"
        )
    try:
        {"add": _add, "list": _list, "revoke": _revoke}[given.deed](given, path)
    except TokensError as exc:
        print(f"python -m distribute token: {exc}", file=sys.stderr)
        return 1
    return 0


def _add(given: argparse.Namespace, path: Path) -> None:
    expires = None if given.expires is None else datetime.now(UTC) + timedelta(days=given.expires)
    made = tokens.add(path, given.name, tokens.ROLES[given.role], given.hosts, expires)
    print(f"added {given.name} to {path}; this is its token, which nothing can show again:", file=sys.stderr)
    print(made)


def _list(_given: argparse.Namespace, path: Path) -> None:
    for token in tokens.read(path):
        end = "never expires" if token.expires is None else f"expires {token.expires.isoformat(timespec='seconds')}"
        state = " (expired)" if token.has_expired() else ""
        print(f"{token.name}\t{token.role}\t{','.join(token.hosts) or 'all hosts'}\t{end}{state}")


def _revoke(given: argparse.Namespace, path: Path) -> None:
    tokens.revoke(path, given.name)
    print(f"revoked {given.name}", file=sys.stderr)


def _patterns(text: str) -> tuple[str, ...]:
    """At least one: what a script left empty must not mean all hosts."""
    found = tuple(pattern.strip() for pattern in text.split(",") if pattern.strip())
    if not found:
        raise argparse.ArgumentTypeError(f"expected host patterns, or no --hosts for all hosts, found {text!r}")
    return found


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = 0.0
    if not 0 < days <= LONGEST_DAYS:
        raise argparse.ArgumentTypeError(f"expected days, more than 0 and at most {LONGEST_DAYS}, found {text!r}")
    return days
