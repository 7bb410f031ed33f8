"""What the demo shows: the progress of a task while it runs, and its sick hosts at the end."""

from __future__ import annotations

import shutil
import sys
import time
from datetime import UTC, datetime
from typing import Any

Json = dict[str, Any]
PLAIN_SECONDS = 2.0  # between two lines where the output is no terminal
BAR = 30


class Progress:
    """A block of lines drawn over itself in a terminal; a line now and then elsewhere."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._drawn = 0
        self._last = float("-inf")

    def show(self, task: Json, stuck: list[Json]) -> None:
        """stuck: running hosts, those without news for the longest first."""
        if self._terminal:
            self._draw([_bar(task), _counts(task), _stuck(stuck)])
        elif time.monotonic() - self._last >= PLAIN_SECONDS:
            self._last = time.monotonic()
            print(f"{task['percent']:3}%  {_counts(task).strip()};  {_stuck(stuck).strip()}", flush=True)

    def _draw(self, lines: list[str]) -> None:
        width = shutil.get_terminal_size().columns - 1
        up = f"\x1b[{self._drawn}F" if self._drawn else ""
        print(up + "".join(f"\x1b[2K{line[:width]}\n" for line in lines), end="", flush=True)
        self._drawn = len(lines)


def table(task: Json, hosts: list[Json], seconds: float) -> str:
    """The summary of a finished task, with a row for each host that has no good result."""
    sick = [host for host in hosts if host["result"] != "success"]
    good = f"{len(hosts) - len(sick)} of {len(hosts)} hosts succeeded in {seconds:.0f} s"
    if not sick:
        return f"  {good}; no host was sick."
    rows = [("host", "status", "stuck on", "why"), *((h["ip"], h["status"], _stuck_on(h), _why(h)) for h in sick)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        "  " + "  ".join([*(f"{cell:{width}}" for cell, width in zip(row, widths, strict=False)), row[3]])
        for row in rows
    ]
    return "\n".join([f"  {good}; these did not:", "", *lines])


def _bar(task: Json) -> str:
    full = BAR * task["finished"] // task["hosts"]
    left = "" if task["seconds_left"] is None else f", about {task['seconds_left']:.0f} s left at this rate"
    bar = "#" * full + "." * (BAR - full)
    return f"  [{bar}] {task['finished']} of {task['hosts']} hosts, {task['hosts_per_second']:.1f} a second{left}"


def _counts(task: Json) -> str:
    return "  " + ", ".join(f"{count} {status}" for status, count in task["counts"].items() if count)


def _stuck(hosts: list[Json]) -> str:
    if not hosts:
        return "  no host runs now"
    return "  longest without news: " + ", ".join(f"{h['ip']} ({_stuck_on(h)}, {_age(h['since'])})" for h in hosts)


def _stuck_on(host: Json) -> str:
    parts = [host["stuck_task"] and f"task {host['stuck_task']}", host["stage"]]
    return ", ".join(part for part in parts if part) or "-"


def _age(since: str | None) -> str:
    if since is None:
        return "no time known"
    return f"{(datetime.now(UTC) - datetime.fromisoformat(since)).total_seconds():.0f} s"


def _why(host: Json) -> str:
    return " ".join(str(host["blame"] or host["msg"] or "").split())
