"""What a scenario is made of, and what comes of it: contestants that take turns, a table, a JSON file."""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.machine import machine

ROOT = Path(__file__).resolve().parent.parent
QUIET_LOAD = 0.5
Samples = dict[str, list[float]]


@dataclass(frozen=True)
class Options:
    """What a run was asked for; where hosts is None a scenario takes its own number."""

    rounds: int = 5
    hosts: int | None = None
    smallest: bool = False  # so few hosts and so little waiting that only the harness itself is tried

    def __str__(self) -> str:
        """What is not as usual, for the end of a title."""
        return ", at the smallest size" * self.smallest + (f", but {self.hosts} hosts" if self.hosts else "")

    def hosts_or(self, usual: int, smallest: int) -> int:
        return self.hosts or (smallest if self.smallest else usual)


@dataclass(frozen=True)
class Goal:
    """A bound for the median of one contestant, or, with `to`, for its ratio to the median of another one."""

    of: str
    to: str = ""
    at_most: float = math.inf
    at_least: float = -math.inf

    def found(self, samples: Mapping[str, Sequence[float]]) -> float:
        """Infinite where the other median is 0."""
        value = statistics.median(samples[self.of])
        if not self.to:
            return value
        base = statistics.median(samples[self.to])
        return value / base if base else math.inf

    def met(self, samples: Mapping[str, Sequence[float]]) -> bool:
        return self.at_least <= self.found(samples) <= self.at_most

    def verdict(self, samples: Mapping[str, Sequence[float]]) -> dict[str, float | bool | None]:
        """For JSON, which knows no infinity: null then."""
        found = self.found(samples)
        return {"found": found if math.isfinite(found) else None, "met": self.met(samples)}

    def __str__(self) -> str:
        bounds = [f"at most {self.at_most:g}"] if self.at_most < math.inf else []
        bounds += [f"at least {self.at_least:g}"] if self.at_least > -math.inf else []
        return f"{self.of}{self.to and ' / '}{self.to}, {' and '.join(bounds)}"


@dataclass(frozen=True)
class Figures:
    """samples: one value a round for each contestant, all in `unit`. base: the contestant that the others' medians are
    divided by in the table; "" = no such column. apart: what the hosts themselves took meanwhile, in the same unit, and
    no part of samples. notes: what else was seen, a sentence each.
    """

    unit: str
    samples: Mapping[str, Sequence[float]]
    base: str = ""
    goals: Sequence[Goal] = ()
    apart: Mapping[str, Sequence[float]] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        """The table, the goals, the notes."""
        return "\n".join([*self._table(), *self._goals(), *self.notes])

    def as_json(self) -> dict[str, Any]:
        return {
            "unit": self.unit,
            "base": self.base,
            "contestants": _described(self.samples),
            "apart": _described(self.apart),
            "goals": [{"goal": str(goal), **goal.verdict(self.samples)} for goal in self.goals],
            "notes": list(self.notes),
        }

    def _table(self) -> Iterator[str]:
        rows = [[self.unit, "median", "least", "most"]]
        rows += [[name, *map(rounded, _spread(values).values())] for name, values in self.samples.items()]
        if self.apart:
            rows[0].append("hosts")
            for row in rows[1:]:
                row.append(rounded(statistics.median(self.apart[row[0]])) if row[0] in self.apart else "")
        if self.base:
            rows[0].append(f"/ {self.base}")
            for row in rows[1:]:
                row.append(f"{Goal(row[0], self.base).found(self.samples):.3f}")
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for name, *cells in rows:
            numbers = (f"{cell:>{max(8, width)}}" for cell, width in zip(cells, widths[1:], strict=True))
            yield "  ".join([f"{name:{widths[0]}}", *numbers])

    def _goals(self) -> Iterator[str]:
        for goal in self.goals:
            yield f"goal: {goal}: {rounded(goal.found(self.samples))}, {'met' if goal.met(self.samples) else 'MISSED'}"


@dataclass(frozen=True)
class Scenario:
    """goal and counted are sentences for the list and for docs/performance.md."""

    name: str
    summary: str
    goal: str
    counted: str
    run: Callable[[Options], Figures]

    def report(self, options: Options) -> tuple[Figures, dict[str, Any]]:
        """Run it; the figures, and all that its JSON file says. Blocks as long as the scenario takes."""
        began = time.monotonic()
        surroundings: dict[str, Any] = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": commit(),
            "machine": machine(),
            "load": round(os.getloadavg()[0], 2),  # of the minute before: figures of a busy machine can be told
        }
        if surroundings["load"] > QUIET_LOAD:
            say(f"the machine is busy, with a load of {surroundings['load']}: the figures will not be worth much")
        figures = self.run(options)
        return figures, {
            "scenario": self.name,
            "summary": f"{self.summary}{options}",
            "goal": self.goal,
            "counted": self.counted,
            "options": asdict(options),
            **surroundings,
            "seconds": round(time.monotonic() - began),
            **figures.as_json(),
            "table": str(figures).splitlines(),
        }


def alternate(contestants: Mapping[str, Callable[[], float]], rounds: int) -> Samples:
    """Let the contestants take turns, A, B, A, B, so that whatever else the machine does concerns all of them."""
    samples: Samples = {name: [] for name in contestants}
    for number in range(1, rounds + 1):
        for name, measure in contestants.items():
            samples[name].append(measure())
            say(f"round {number} of {rounds}: {name}: {rounded(samples[name][-1])}")
    return samples


def say(line: str) -> None:
    """Progress, for who waits: the tables alone go to standard output."""
    print(f"{datetime.now():%H:%M:%S} {line}", file=sys.stderr, flush=True)


def commit() -> str:
    """Of the code that was measured, with "+" where files differ from it; "" outside a git checkout."""
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode:
        return ""
    changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=False)
    return head.stdout.strip() + ("+" if changed.stdout else "")


def write(directory: Path, report: Mapping[str, Any]) -> Path:
    """DIRECTORY/SCENARIO.json"""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{report['scenario']}.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    return path


def _described(samples: Mapping[str, Sequence[float]]) -> dict[str, dict[str, Any]]:
    return {name: {"samples": list(values), **_spread(values)} for name, values in samples.items()}


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def rounded(value: float) -> str:
    """Three digits that count, and all before the point."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
