"""The pictures of docs/performance.md: one a JSON file, a bar a contestant with its least and most."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.harness import rounded, say

OURS, OTHERS, SPREAD = "#2a7f62", "#b8bec4", "#30363c"
OUR_WORDS = ("engine", "distribute")  # a contestant whose name has one of them is this project
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "execute-engine",  # with the same figures, the same file
    "font.family": "sans-serif",
    "font.size": 9,
}


def draw(directory: Path, scenarios: Iterable[str]) -> list[Path]:
    """DIRECTORY/SCENARIO.json becomes SCENARIO.svg beside it, where there is one; returns the pictures."""
    reports = [directory / f"{name}.json" for name in scenarios]
    return [_draw(report) for report in reports if report.exists()]


def _draw(report: Path) -> Path:
    picture = report.with_suffix(".svg")
    save(picture, lambda: _figure(json.loads(report.read_text())))
    return picture


def save(picture: Path, make: Callable[[], Figure]) -> None:
    """Write what `make` draws in our style; the same drawing makes the same file."""
    with mpl.rc_context(STYLE):
        make().savefig(picture, metadata={"Date": None})
    say(f"drawn: {picture}")


def _figure(report: Mapping[str, Any]) -> Figure:
    contestants: dict[str, dict[str, float]] = report["contestants"]
    names = list(contestants)
    medians, least, most = ([contestants[name][key] for name in names] for key in ("median", "least", "most"))
    below, above = ([abs(a - b) for a, b in zip(medians, ends, strict=True)] for ends in (least, most))
    figure = Figure(figsize=(7.5, 0.9 + 0.28 * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.barh(
        names, medians, xerr=[below, above], ecolor=SPREAD, capsize=2,
        color=[OURS if any(word in name for word in OUR_WORDS) else OTHERS for name in names],
    )  # fmt: skip
    for number, (median, end) in enumerate(zip(medians, most, strict=True)):
        axes.annotate(rounded(median), (end, number), xytext=(5, 0), textcoords="offset points", va="center")
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    rounds = max(len(each["samples"]) for each in report["contestants"].values())
    axes.set_xlabel(f"{report['unit']}: median, least and most of {rounds}")
    axes.set_title(report["summary"], loc="left", fontsize=10, wrap=True)
    return figure
