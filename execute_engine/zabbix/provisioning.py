"""Templates, host group, host and dashboard in Zabbix, made or put right. A second time changes nothing.

Tested with Zabbix 6.0; where 6.2, 6.4 and 7.0 call things otherwise, as their documentation says.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from execute_engine.zabbix import items, template_file, turn
from execute_engine.zabbix.api import Api

DASHBOARD = "Execute Engine fleet"
CREATED, UPDATED, UNCHANGED = "created", "updated", "unchanged"
COLORS = ("0EC9AC", "FF465C", "524BBC")
_INTEGER, _TEXT, _GROUP = 0, 1, 2  # types of a widget's fields
_MAX, _SUM = 2, 5  # what a graph does with the values of a minute
_MINUTE = "1m"
Widget = dict[str, Any]


@dataclass(frozen=True)
class Host:
    """The machine whose name the values carry, and the templates of what runs there."""

    name: str
    templates: tuple[str, ...]
    beat_seconds: int


@dataclass(frozen=True)
class Line:
    """Of one item, for every host that has it; with function over each minute, grouped: of all hosts together."""

    item: str
    function: int = 0
    grouped: bool = False


@dataclass(frozen=True)
class Graph:
    name: str
    lines: tuple[Line, ...]


GRAPHS = (
    Graph("Engines alive", (Line("Engine: alive", _SUM, grouped=True),)),
    Graph("Hosts finished a minute", (Line("Engine: hosts finished", _SUM),)),
    Graph("Failures and timeouts a minute",
          (Line("Engine: hosts failed", _SUM), Line("Engine: hosts timed out", _SUM))),
    Graph("Slots", (Line("Engine: slots", _MAX), Line("Engine: slots used", _MAX))),
    Graph("Oldest running host", (Line("Engine: oldest running host", _MAX),)),
)  # fmt: skip


def provision(api: Api, host: Host) -> Iterator[tuple[str, str]]:
    """What was done with each thing: ("created", "host group Execute Engine"). Raises ProvisionError.

    Before that it blocks while others provision this Zabbix.
    """
    lock = yield from turn.take(api, host.name)
    try:
        yield from _templates(api)
        group, done = _group(api)
        yield done, f"host group {items.HOST_GROUP}"
        yield _host(api, host, group), f"host {host.name}"
        yield _dashboard(api, group), f"dashboard {DASHBOARD}"
    finally:
        turn.give_back(api, lock)


def _templates(api: Api) -> Iterator[tuple[str, str]]:
    names = [template.name for template in items.TEMPLATES]
    known = {found["host"] for found in api.call("template.get", output=["host"], filter={"host": names})}
    shipped = {"format": "yaml", "source": template_file.text(), "rules": rules(api.version)}
    differs = bool(api.call("configuration.importcompare", **shipped))
    if differs:
        api.call("configuration.import", **shipped)
    for name in names:
        done = CREATED if name not in known else UPDATED if differs else UNCHANGED
        yield done, f"template {name}"


def rules(version: tuple[int, ...]) -> dict[str, dict[str, bool]]:
    """For an import: what is ours shall be as it is shipped; what our templates have and the file has not goes."""
    put_right = {"createMissing": True, "updateExisting": True}
    groups = "template_groups" if version >= (6, 2) else "groups"
    exactly = {**put_right, "deleteMissing": True}
    return {groups: put_right, "templates": put_right, "items": exactly, "triggers": exactly, "valueMaps": exactly}


def _group(api: Api) -> tuple[str, str]:
    name = items.HOST_GROUP
    if found := api.call("hostgroup.get", output=["groupid"], filter={"name": [name]}):
        return str(found[0]["groupid"]), UNCHANGED
    return str(api.call("hostgroup.create", name=name)["groupids"][0]), CREATED


def _host(api: Api, host: Host, group: str) -> str:
    """A host that is there keeps what else it has: its name, interfaces, groups, templates, macros."""
    names = list(host.templates)
    templates = [
        {"templateid": found["templateid"]}
        for found in api.call("template.get", output=["templateid"], filter={"host": names})
    ]
    silence = items.silence(host.beat_seconds)
    macro = {"macro": silence.name, "value": silence.value, "description": silence.words}
    select, groups = ("selectHostGroups", "hostgroups") if api.version >= (6, 2) else ("selectGroups", "groups")
    found = api.call(
        "host.get", output=["hostid"], filter={"host": [host.name]}, selectMacros="extend",
        selectParentTemplates=["templateid"], **{select: ["groupid"]},
    )  # fmt: skip
    if not found:
        api.call("host.create", host=host.name, groups=[{"groupid": group}], templates=templates, macros=[macro])
        return CREATED
    (known,) = found
    linked = {template["templateid"] for template in known["parentTemplates"]}
    missing = [template for template in templates if template["templateid"] not in linked]
    grouped = group in {each["groupid"] for each in known[groups]}
    if missing or not grouped:
        only = {"hosts": [{"hostid": known["hostid"]}], "groups": [{"groupid": group}]}
        api.call("host.massadd", **only, **({"templates": missing} if missing else {}))
    changed = _macro(api, known, macro)
    return UPDATED if missing or not grouped or changed else UNCHANGED


def _macro(api: Api, host: dict[str, Any], macro: dict[str, str]) -> bool:
    """Whether it had to be made or changed."""
    known = {each["macro"]: each for each in host["macros"]}.get(macro["macro"])
    if known is None:
        api.call("usermacro.create", hostid=host["hostid"], **macro)
    elif known["value"] != macro["value"]:
        api.call("usermacro.update", hostmacroid=known["hostmacroid"], value=macro["value"])
    else:
        return False
    return True


def _dashboard(api: Api, group: str) -> str:
    wanted = {
        "name": DASHBOARD,
        "private": 0,
        "pages": [{"widgets": [*graphs(api.version), _problems(api.version, group)]}],
    }
    filtered = {"filter": {"name": [DASHBOARD]}, "selectPages": "extend"}
    found = api.call("dashboard.get", output=["dashboardid", "private"], **filtered)
    if not found:
        api.call("dashboard.create", **wanted)
        return CREATED
    if _essence(found[0]) == _essence(wanted):
        return UNCHANGED
    api.call("dashboard.update", dashboardid=found[0]["dashboardid"], **wanted)
    return UPDATED


def _essence(dashboard: dict[str, Any]) -> Any:
    """What we care for, the same for what we ask for and what Zabbix answers: all numbers as text, fields in order."""
    return str(dashboard["private"]), [
        sorted(
            (
                *(str(widget[name]) for name in ("type", "name", "x", "y", "width", "height")),
                sorted((field["name"], str(field["value"])) for field in widget["fields"]),
            )
            for widget in page["widgets"]
        )
        for page in dashboard["pages"]
    ]


def graphs(version: tuple[int, ...]) -> Iterator[Widget]:
    """Their widgets as this version of the API takes them, two beside each other."""
    for number, graph in enumerate(GRAPHS):
        place = _place(version, number)
        fields = [each for index, line in enumerate(graph.lines) for each in _data_set(version, index, line)]
        fields.append(_field(_TEXT, "lefty_min", "0"))
        if version >= (7, 0):
            fields.append(_field(_TEXT, "reference", f"EEG{number:02}"))
        if graph.lines[0].grouped:
            fields.append(_field(_INTEGER, "legend", 0))  # it would say Dataset #1
        yield {"type": "svggraph", "name": graph.name, **place, "fields": fields}


def _data_set(version: tuple[int, ...], index: int, line: Line) -> Iterator[dict[str, Any]]:
    def name(field: str, *position: int) -> str:
        parts = (index, field, *position) if version >= (7, 0) else (field, index, *position)
        return ".".join(map(str, ("ds", *parts)))

    yield _field(_TEXT, name("hosts", 0), "*")
    yield _field(_TEXT, name("items", 0), line.item)
    yield _field(_TEXT, name("color"), COLORS[index])
    if line.function:
        yield _field(_INTEGER, name("aggregate_function"), line.function)
        yield _field(_TEXT, name("aggregate_interval"), _MINUTE)
    if line.grouped:
        yield _field(_INTEGER, name("aggregate_grouping"), 1)


def _problems(version: tuple[int, ...], group: str) -> Widget:
    number = len(GRAPHS)
    name = "groupids.0" if version >= (7, 0) else "groupids"
    fields = [_field(_GROUP, name, group)]
    if version >= (7, 0):
        fields.append(_field(_TEXT, "reference", f"EEG{number:02}"))
    return {"type": "problems", "name": "Problems", **_place(version, number), "fields": fields}


def _place(version: tuple[int, ...], number: int) -> dict[str, int]:
    """A grid of 24 columns, since 7.0 of 72."""
    width, height = (36 if version >= (7, 0) else 12), 5
    return {"x": number % 2 * width, "y": number // 2 * height, "width": width, "height": height}


def _field(kind: int, name: str, value: object) -> dict[str, Any]:
    return {"type": kind, "name": name, "value": value}
