"""docs/performance.md: all goals in one table, and the figures of what was measured, as its JSON files have them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT, Scenario, rounded

PAGE = ROOT / "docs/performance.md"
FIGURES = ROOT / "docs/performance"  # the JSON files, and the pictures beside them
BEGIN, END = "<!-- made by python -m benchmarks plot -->", "<!-- and so far -->"
SHOWN_GOALS = 4  # as many numbers fit a table's cell
NOT_MEASURED = "not measured yet"

Report = Mapping[str, Any]


def write(page: Path, scenarios: Iterable[Scenario], figures: Path) -> None:
    """Put the figures where the page has BEGIN and END. Raises ValueError where it has not."""
    page.write_text(with_figures(page.read_text(), scenarios, figures))


def with_figures(text: str, scenarios: Iterable[Scenario], figures: Path) -> str:
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"expected {BEGIN!r} and {END!r} in the page, found one of them or none")
    return "\n".join([before + begin, "", *_lines(scenarios, figures), end + after])


def _lines(scenarios: Iterable[Scenario], figures: Path) -> Iterator[str]:
    reports = {each: _read(figures / f"{each.name}.json") for each in scenarios}
    yield from ("| scenario | goal | found | command |", "|---|---|---|---|")
    for scenario, report in reports.items():
        name = f"[{scenario.summary}](#{scenario.name})" if report else scenario.summary
        found = _found(report["goals"]) if report else NOT_MEASURED
        yield f"| {name} | {scenario.goal} | {found} | `python -m benchmarks {scenario.name}` |"
    for scenario, report in reports.items():
        if report:
            yield from ("", f"### {scenario.name}", "", f"{_sentence(report['summary'])} {report['counted']}", "")
            yield f"![{report['summary']}]({figures.name}/{scenario.name}.svg)"
            yield from ("", "```", *report["table"], "```", "", _surroundings(report))
    yield ""


def _read(path: Path) -> Report | None:
    return json.loads(path.read_text()) if path.exists() else None


def _found(goals: list[dict[str, Any]]) -> str:
    missed = [goal for goal in goals if not goal["met"]]
    verdict = f"{len(missed)} of {len(goals)} missed" if missed else "met"
    if len(goals) > SHOWN_GOALS:
        return verdict
    return ", ".join("-" if goal["found"] is None else rounded(goal["found"]) for goal in goals) + f": {verdict}"


def _surroundings(report: Report) -> str:
    machine = report["machine"]
    others = {"cores", "cpu", "memory_mib"}
    versions = ", ".join(f"{name} {value}" for name, value in machine.items() if name not in others)
    return (
        f"{report['options']['rounds']} rounds, {report['seconds']} s in all, {report['at']}, "
        f"commit {report['commit'][:12]}{'+' * report['commit'].endswith('+')}, load before {report['load']}; "
        f"{machine['cores']} cores of {machine['cpu']}, {machine['memory_mib']} MiB; {versions}."
    )


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."
