"""What of the systemd units follows from the configuration, for script/install; in the folder of the release:

PYTHONPATH=. .venv/bin/python script/units.py check               says every problem of the configuration; exit code 78.
    What the units hide is said too, but a drop-in may show it
PYTHONPATH=. .venv/bin/python script/units.py write FOLDER USER   the units and their drop-ins into FOLDER; as root

USER gets those places that the services write to and that are not there yet.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from contract import config
from contract.config import Config
from contract.errors import ConfigError
from contract.supervisor import STOP_SPARE_SECONDS
from execute_engine.__main__ import CONSUMER_END_SECONDS

ROOT = Path(__file__).resolve().parents[1]
SERVICES = ("execute-engine", "distribute")
SHIPPED_PREFIX = "/app/execute-engine"  # where the units in the repository look for the program
STATE = Path("/var/lib/execute-engine")  # StateDirectory of both
UNSEEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # by ProtectHome and PrivateTmp
DROP_IN = "50-configuration.conf"
_HEAD = "# Made by script/install from conf/server.conf: run it again after a change there. Yours go beside it.\n"


def unit(service: str, prefix: Path) -> str:
    """The shipped unit, for a release at prefix."""
    return (ROOT / f"{service}.service").read_text().replace(SHIPPED_PREFIX, str(prefix))


def drop_in(service: str, settings: Config) -> str:
    """The lines of the unit that only the configuration knows."""
    lines = [f"ReadWritePaths={_quoted(path)}" for path in places(service, settings) if not path.is_relative_to(STATE)]
    if service == "execute-engine":
        stop_seconds = settings.engine.drain_seconds + CONSUMER_END_SECONDS + STOP_SPARE_SECONDS
        lines.insert(0, f"TimeoutStopSec={stop_seconds:.0f}")
    return "\n".join([_HEAD + "[Service]", *lines, ""])


def places(service: str, settings: Config) -> list[Path]:
    """The folders that the service writes to, links resolved."""
    found = [settings.engine.state_dir if service == "execute-engine" else settings.distribute.files_dir]
    if not settings.database.ip:
        found.append(settings.database.sqlite_file.parent)
    return [path.resolve() for path in found]


def unseen(settings: Config) -> list[str]:
    """Of each file or folder of the configuration that the units hide from the services, a line that says so.

    By its name alone: a look at a dead share would last.
    """
    found = []
    for section in config.sections():
        for key, item, _ in section.declared():
            value = getattr(getattr(settings, section.attribute), item.name)
            if isinstance(value, Path) and any(Path(os.path.abspath(value)).is_relative_to(dark) for dark in UNSEEN):
                found.append(
                    f"[{section.names[0]}] {key}: expected a place that the services see, found {value}; "
                    f"{', '.join(UNSEEN)} are hidden from them"
                )
    return found


def write(folder: Path, user: str, settings: Config, prefix: Path = ROOT) -> None:
    """Raises OSError."""
    for service in SERVICES:
        for path in places(service, settings):
            if not path.is_relative_to(STATE):  # what is below it the service makes itself
                _make(path, user)
        _replace(folder / f"{service}.service", unit(service, prefix))
        _replace(folder / f"{service}.service.d" / DROP_IN, drop_in(service, settings))


def _make(path: Path, user: str) -> None:
    if not path.exists():
        _make(path.parent, "root")
        path.mkdir()
        shutil.chown(path, user, user)


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o644)


def _quoted(path: Path) -> str:
    """As systemd.exec(5) reads a path: % begins a specifier, and the last level of quotes is taken off."""
    text = str(path).replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="script/units.py", description=__doc__)
    deeds = parser.add_subparsers(dest="deed", required=True)
    deeds.add_parser("check")
    writing = deeds.add_parser("write")
    writing.add_argument("folder", type=Path)
    writing.add_argument("user")
    given = parser.parse_args(arguments)
    try:
        # Files that one service alone reads, keys above all, need not be here: this machine may be the other's.
        settings = config.load(ROOT / "conf/server.conf", parser.prog)
    except ConfigError as exc:
        print(exc, file=sys.stderr)
        return ConfigError.EXIT_CODE
    if given.deed == "check":
        for line in unseen(settings):
            print(f"script/install: {line}", file=sys.stderr)
    else:
        write(given.folder, given.user, settings)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
