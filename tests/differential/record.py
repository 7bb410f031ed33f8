"""Every task result of a run as one line of JSON, and what may differ between two runs taken out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

KINDS = ("ok", "failed", "unreachable", "skipped")
VARIES = frozenset(  # times, numbers of processes and files, and what depends on them
    {"start", "stop", "end", "delta", "started", "finished", "elapsed", "date", "mtime", "atime", "ctime", "inode"}
    | {
        "dev",
        "pid",
        "ansible_facts",
        "ansible_job_id",
        "results_file",
        "exception",
        "ansible_connection",
        "src",
        "_original_basename",
        "version",  # of stat: the inode's generation
    }
)
_TEMPORARY = re.compile(
    r"ansible-tmp-[\d.-]+|ansible-local-\w+|execute-engine-runner-[\w-]+|/tmp/tmp\w+|j?\d+\.\d{4,}"
    r"|(?<=Paused for )[\d.]+"
)
_TRACE = re.compile(r"line \d+")


def write(path: Path, kind: str, result: Any) -> None:
    line = [result.host.name, str(result.task_name), kind, dict(result.result)]
    with path.open("a") as file:
        file.write(json.dumps(line, default=str) + "\n")


def read(path: Path) -> dict[tuple[str, str], list[tuple[str, Any]]]:
    """(host, task) -> (kind, result), in the order of that host's results."""
    found: dict[tuple[str, str], list[tuple[str, Any]]] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        host, task, kind, result = json.loads(line)
        found.setdefault((host, task), []).append((kind, clean(result)))
    return found


def clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: clean(item) for name, item in value.items() if name not in VARIES}
    if isinstance(value, list):
        return [clean(item) for item in value]
    if isinstance(value, str):
        return _TRACE.sub("line N", _TEMPORARY.sub("TEMPORARY", value))
    return value


def wrap(events: type[Any], path: Callable[[], Path]) -> None:
    """Let our runner's callback record what it is told; only in tests."""
    for kind in KINDS:
        name = f"v2_runner_on_{kind}"
        plain = getattr(events, name)

        def recording(self: Any, result: Any, *args: Any, _plain: Any = plain, _kind: str = kind, **more: Any) -> None:
            write(path(), _kind, result)
            _plain(self, result, *args, **more)

        setattr(events, name, recording)
