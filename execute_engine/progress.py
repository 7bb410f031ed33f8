"""The consumer's sign of life on disk, for the heartbeat: a counter that moves with its main loop, and true figures."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class Progress:
    counter: int
    incarnation: str
    slots: int
    free_slots: int
    units: int
    hosts: int  # running
    unkillable: int  # processes that outlived their unit
    spooled: int  # results on disk that the database does not have
    dropped: int  # results of units that were given to another engine
    sees_files: int  # 1: the share of project files answers
    braked: int  # 1: it tries one unit now and then, because its own ended unreachable and others' did not


def write(state_dir: Path, progress: Progress) -> None:
    """Whoever reads sees the old or the new one. Raises OSError."""
    fresh = state_dir / "progress.new"
    fresh.write_text(json.dumps(asdict(progress)))
    fresh.replace(state_dir / "progress")


def read(state_dir: Path) -> Progress | None:
    """None when there is none, or when it is no progress."""
    try:
        found = json.loads((state_dir / "progress").read_text())
        return Progress(**{field.name: found[field.name] for field in fields(Progress)})
    except (OSError, ValueError, KeyError, TypeError):
        return None
