"""What is declared for Zabbix fits together, and what is made of it is what is shipped."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from execute_engine.zabbix import items, provisioning, template_file
from execute_engine.zabbix.__main__ import main
from execute_engine.zabbix.items import Template

ROOT = Path(__file__).parents[3]


def test_the_shipped_file_and_the_tables_are_what_the_commands_print(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["template"]) == 0
    assert capsys.readouterr().out == (ROOT / "conf/zabbix/execute-engine.yaml").read_text()
    assert main(["table"]) == 0
    assert (ROOT / "docs/zabbix.md").read_text().endswith(capsys.readouterr().out)


@pytest.mark.parametrize("template", items.TEMPLATES, ids=lambda template: template.name)
def test_whatever_is_named_is_declared(template: Template) -> None:
    keys = {item.key for item in template.items}
    macros = {macro.name for macro in template.macros}
    expressions = [trigger.expression for trigger in template.triggers]
    formulas = [item.formula for item in template.items]
    for expression in expressions:
        assert set(re.findall(r"/T/([^,)]+)", expression)) <= keys, expression
    used = {macro for text in (*expressions, *formulas) for macro in re.findall(r"\{\$[A-Z.]+\}", text)}
    assert used == macros
    assert {item.value_map for item in template.items} - {""} == {value_map.name for value_map in template.value_maps}


@pytest.mark.parametrize("template", items.TEMPLATES, ids=lambda template: template.name)
def test_a_first_value_alone_is_no_problem(template: Template) -> None:
    """Zabbix takes what there is for the last two values: max() and min() of one are that one."""
    for trigger in template.triggers:
        for function, count, wanted in re.findall(r"(\w+)\([^()]*,#(\d+)[^()]*\)=?(\d*)", trigger.expression):
            assert (function, wanted) == ("count", count), trigger.expression


def test_a_name_is_given_once_and_ids_are_what_zabbix_takes() -> None:
    found = list(_ids(yaml.safe_load(template_file.text())))
    assert len(found) == len(set(found)) > 50
    assert {uuid.UUID(each).version for each in found} == {4}


def _ids(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if "uuid" in node:
            yield node["uuid"]
        node = list(node.values())
    if isinstance(node, list):
        for each in node:
            yield from _ids(each)


def test_the_dashboard_draws_items_that_there_are() -> None:
    names = {item.name for template in items.TEMPLATES for item in template.items}
    assert {line.item for graph in provisioning.GRAPHS for line in graph.lines} <= names


@pytest.mark.parametrize(("beat_seconds", "value"), [(1, "30s"), (10, "30s"), (30, "90s"), (60, "180s")])
def test_silence_is_three_intervals_and_never_less_than_zabbix_sees(beat_seconds: int, value: str) -> None:
    assert items.silence(beat_seconds).value == value


@pytest.mark.parametrize(
    ("version", "host_field", "width", "rule"),
    [((6, 0), "ds.hosts.0.0", 12, "groups"), ((6, 4), "ds.hosts.0.0", 12, "template_groups"),
     ((7, 0), "ds.0.hosts.0", 36, "template_groups")],
)  # fmt: skip
def test_names_follow_the_version(version: tuple[int, ...], host_field: str, width: int, rule: str) -> None:
    graphs = list(provisioning.graphs(version))
    assert all(host_field in {field["name"] for field in graph["fields"]} for graph in graphs)
    assert {graph["width"] for graph in graphs} == {width}
    assert rule in provisioning.rules(version)
