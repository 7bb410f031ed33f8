"""Turns, tables, goals and files of the benchmarks; what they measure is tried in tests/acceptance."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from benchmarks import page
from benchmarks.harness import Figures, Goal, Options, Scenario, alternate, write
from benchmarks.pictures import draw
from benchmarks.scenarios import SCENARIOS

SAMPLES = {"engine": [12.0, 10.0, 14.0], "ansible": [200.0, 190.0, 250.0]}
GOALS = [Goal("engine", "ansible", at_most=0.07), Goal("engine", at_most=11.9), Goal("ansible", at_least=200)]
FIGURES = Figures("CPU ms a host", SAMPLES, "ansible", GOALS, {"engine": [5.0, 6.0, 7.0]}, ["A note."])


def run(figures: Figures, options: Options | None = None) -> dict[str, object]:
    scenario = Scenario("name", "what it is", "its goal", "all of it", lambda options: figures)
    return scenario.report(options or Options())[1]


def test_contestants_take_turns() -> None:
    order: list[str] = []

    def contestant(name: str) -> float:
        order.append(name)
        return float(len(order))

    samples = alternate({name: partial(contestant, name) for name in "AB"}, 3)

    assert order == ["A", "B"] * 3
    assert samples == {"A": [1, 3, 5], "B": [2, 4, 6]}


def test_the_table_has_median_least_most_the_hosts_own_and_the_ratio() -> None:
    lines = [line.split() for line in str(FIGURES).splitlines()]

    assert lines[0] == ["CPU", "ms", "a", "host", "median", "least", "most", "hosts", "/", "ansible"]
    assert lines[1] == ["engine", "12.0", "10.0", "14.0", "6.00", "0.060"]
    assert lines[2] == ["ansible", "200", "190", "250", "1.000"]
    assert lines[-1] == ["A", "note."]


def test_goals_are_judged_by_the_medians() -> None:
    assert [line for line in str(FIGURES).splitlines() if line.startswith("goal")] == [
        "goal: engine / ansible, at most 0.07: 0.0600, met",
        "goal: engine, at most 11.9: 12.0, MISSED",
        "goal: ansible, at least 200: 200, met",
    ]


def test_the_file_says_what_was_measured_where_and_by_which_code(tmp_path: Path) -> None:
    report = json.loads(write(tmp_path, run(FIGURES, Options(rounds=3, hosts=7))).read_text())

    assert report["summary"] == "what it is, but 7 hosts"
    assert report["options"] == {"rounds": 3, "hosts": 7, "smallest": False}
    assert report["contestants"]["engine"] == {"samples": [12, 10, 14], "median": 12, "least": 10, "most": 14}
    assert report["apart"]["engine"]["median"] == 6
    assert [goal["met"] for goal in report["goals"]] == [True, False, True]
    assert {"cores", "cpu", "kernel", "python", "ansible-core", "asyncssh"} <= report["machine"].keys()
    assert report["commit"]


def test_a_ratio_to_nothing_is_no_number_and_no_success(tmp_path: Path) -> None:
    figures = Figures("%", {"a": [1.0], "b": [0.0]}, goals=[Goal("a", "b", at_most=1)])

    text = write(tmp_path, run(figures)).read_text()

    assert json.loads(text, parse_constant=pytest.fail)["goals"][0] == {
        "goal": "a / b, at most 1",
        "found": None,
        "met": False,
    }


def test_each_file_becomes_a_picture_and_the_same_one_each_time(tmp_path: Path) -> None:
    write(tmp_path, run(FIGURES))

    (picture,) = draw(tmp_path, ["name", "not measured"])

    text = picture.read_text()
    for words in ("engine", "ansible", "12.0", "what it is", "CPU ms a host: median, least and most of 3"):
        assert f">{words}<" in text, words
    draw(tmp_path, ["name", "not measured"])
    assert picture.read_text() == text


def test_every_scenario_says_what_it_is_for() -> None:
    for name, scenario in SCENARIOS.items():
        assert scenario.name == name
        assert all((scenario.summary, scenario.goal, scenario.counted)), name


def test_the_page_has_the_figures_of_its_files() -> None:
    text = page.PAGE.read_text()

    assert text == page.with_figures(text, SCENARIOS.values(), page.FIGURES), "run python -m benchmarks plot"
    for file in page.FIGURES.glob("*.json"):
        assert file.with_suffix(".svg").exists(), "run python -m benchmarks plot"


def test_the_page_says_what_was_found_and_what_was_not_measured(tmp_path: Path) -> None:
    scenarios = [Scenario(name, f"what {name} is", "its goal", "all.", lambda options: FIGURES) for name in ("a", "b")]
    write(tmp_path, scenarios[0].report(Options(rounds=3))[1])

    text = page.with_figures(f"before {page.BEGIN} old {page.END} after", scenarios, tmp_path)

    assert text.startswith(f"before {page.BEGIN}\n")
    assert text.endswith(f"{page.END} after")
    assert "old" not in text
    assert "| [what a is](#a) | its goal | 0.0600, 12.0, 200: 1 of 3 missed | `python -m benchmarks a` |" in text
    assert "| what b is | its goal | not measured yet | `python -m benchmarks b` |" in text
    assert f"![what a is]({tmp_path.name}/a.svg)" in text
    assert str(FIGURES) in text
