"""Texts of the fence's tests, given to the stock commands, each in a folder of its own; and what came of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.differential import stock
from tests.servers.fleet import Fleet


@dataclass(frozen=True)
class Attempt:
    """A command line without the hosts; folder: where its playbook lies, and what it has said."""

    folder: Path
    argv: tuple[str, ...]

    def said(self) -> str:
        """Of the command, and each task's result as a line of JSON: [host, task, kind, result]."""
        files = (self.folder / "record", self.folder / "log")
        return "".join(file.read_text(errors="replace") for file in files if file.exists())


def playbook(folder: Path, content: str, *options: str) -> Attempt:
    (folder / "play.yml").write_text(content)
    return Attempt(folder, ("ansible-playbook", str(folder / "play.yml"), *options))


def ad_hoc(folder: Path, module: str, args: str) -> Attempt:
    return Attempt(folder, ("ansible", "all", "-m", module, "-a", args))


def run(attempts: Iterable[Attempt], fleet: Fleet, directory: Path, more: Mapping[str, str]) -> None:
    """Blocks until all have run on the first host, with more in their environment.

    How it is reached is configuration, which any text overrules.
    """
    inventory = directory / "inventory"
    inventory.write_text("\n".join(["[target_hosts]", *fleet.hosts()]))
    common = ["-i", str(inventory), "-u", fleet.user, "--private-key", str(fleet.key)]
    commands = [
        {"argv": [*attempt.argv, *common], "record": f"{attempt.folder}/record", "log": f"{attempt.folder}/log"}
        for attempt in attempts
    ]
    given = {"ANSIBLE_REMOTE_PORT": str(fleet.port), "ANSIBLE_PYTHON_INTERPRETER": "/usr/bin/python3"}
    stock.run(commands, directory, {**given, **more})
