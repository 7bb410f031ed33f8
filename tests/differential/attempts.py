"""Texts of the fence's tests, given to the stock commands, each in a folder of its own; and what came of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.differential import stock
from tests.servers.fleet import Fleet

DEAD_WORKER = "A worker was found in a dead state"  # of a play before, which a busy machine had no time to end
TRIES = 3


@dataclass(frozen=True)
class Attempt:
    """A command line without the hosts; folder: where its playbook lies, and what it has said."""

    folder: Path
    argv: tuple[str, ...]

    @property
    def files(self) -> tuple[Path, Path]:
        return self.folder / "record", self.folder / "log"

    def said(self) -> str:
        """Each task's result as a line of JSON, [host, task, kind, result], then what the command has printed."""
        return "".join(file.read_text(errors="replace") for file in self.files if file.exists())


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
    given = {"ANSIBLE_REMOTE_PORT": str(fleet.port), "ANSIBLE_PYTHON_INTERPRETER": "/usr/bin/python3", **more}
    waiting = list(attempts)
    for _ in range(TRIES):
        stock.run([_request(attempt, common) for attempt in waiting], directory, given)
        waiting = [attempt for attempt in waiting if DEAD_WORKER in attempt.said()]
        if not waiting:
            break


def _request(attempt: Attempt, common: list[str]) -> dict[str, Any]:
    for left in attempt.files:
        left.unlink(missing_ok=True)
    record, log = map(str, attempt.files)
    return {"argv": [*attempt.argv, *common], "record": record, "log": log}
