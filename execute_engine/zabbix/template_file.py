"""The templates as a file that Zabbix 6.0 and newer import, and as tables for people."""

from __future__ import annotations

import hashlib
import re
import uuid
from typing import Any

import yaml

from execute_engine.zabbix import items
from execute_engine.zabbix.items import Item, Template, Trigger

VERSION = "6.0"  # of the format: later ones read it
HISTORY = "31d"
_KEY = re.compile(r"/T/([a-z_.]+)")


def text() -> str:
    """The file: the same in each run, because the ids are made of names."""
    templates = items.TEMPLATES
    group = items.TEMPLATE_GROUP
    content = {
        "version": VERSION,
        "date": "2026-11-26T00:00:00Z",  # asked for by the format, of no use
        "groups": [{"uuid": _id("group", group), "name": group}],
        "templates": [_template(template) for template in templates],
        "triggers": [_trigger(template, trigger) for template in templates for trigger in _of_several(template)],
    }
    return yaml.safe_dump({"zabbix_export": content}, sort_keys=False, allow_unicode=True, width=110)


def table() -> str:
    """Markdown: a table of items, of triggers and of macros for each template."""
    return "\n".join(part for template in items.TEMPLATES for part in _tables(template))


def _template(template: Template) -> dict[str, Any]:
    return {
        "uuid": _id(template.name),
        "template": template.name,
        "name": template.name,
        "description": template.words,
        "groups": [{"name": items.TEMPLATE_GROUP}],
        "items": [_item(template, item) for item in template.items],
        "macros": [
            {"macro": macro.name, "value": macro.value, "description": macro.words}
            for macro in sorted(template.macros, key=lambda macro: macro.name)
        ],
        "valuemaps": [
            {
                "uuid": _id(template.name, "value map", value_map.name),
                "name": value_map.name,
                "mappings": [
                    {"value": str(value), "newvalue": meaning} for value, meaning in value_map.meanings.items()
                ],
            }
            for value_map in template.value_maps
        ],
    }


def _item(template: Template, item: Item) -> dict[str, Any]:
    made: dict[str, Any] = {"uuid": _id(template.name, "item", item.key), "name": item.name}
    made["type"] = "CALCULATED" if item.formula else "TRAP"
    made["key"] = item.key
    if not item.formula:
        made["delay"] = "0"  # without it a calculated one is worked out once a minute
    made["history"] = HISTORY
    if item.is_text:
        made |= {"trends": "0", "value_type": "CHAR"}
    if item.units:
        made["units"] = item.units
    if item.formula:
        made["params"] = item.formula
    made["description"] = item.words
    if item.value_map:
        made["valuemap"] = {"name": item.value_map}
    own = [trigger for trigger in template.triggers if _keys(trigger) == {item.key}]
    if own:
        made["triggers"] = [_trigger(template, trigger) for trigger in own]
    return made


def _trigger(template: Template, trigger: Trigger) -> dict[str, Any]:
    return {
        "uuid": _id(template.name, "trigger", trigger.name),
        "expression": trigger.expression.replace("/T/", f"/{template.name}/"),
        "name": trigger.name,
        "priority": trigger.severity,
        "description": trigger.words,
    }


def _keys(trigger: Trigger) -> set[str]:
    return set(_KEY.findall(trigger.expression))


def _of_several(template: Template) -> list[Trigger]:
    """Those that belong to no single item: the format has them apart."""
    return [trigger for trigger in template.triggers if len(_keys(trigger)) > 1]


def _id(*names: str) -> str:
    """Zabbix takes nothing but the fourth version, though these are not random."""
    digest = hashlib.sha256("\0".join(("execute-engine", *names)).encode()).digest()
    return uuid.UUID(bytes=digest[:16], version=4).hex


def _tables(template: Template) -> list[str]:
    meanings = {
        value_map.name: ", ".join(f"{value} {meaning}" for value, meaning in value_map.meanings.items())
        for value_map in template.value_maps
    }
    return [
        f"## {template.name}\n\n{template.words}\n\n| item | unit | meaning |\n|---|---|---|",
        *(
            f"| `{item.key}` | {item.units.lstrip('!')} | {item.words}"
            f"{f' {meanings[item.value_map]}.' if item.value_map else ''}"
            f"{f' Worked out by Zabbix: `{item.formula}`' if item.formula else ''} |"
            for item in template.items
        ),
        "\n| trigger | severity | what it means, what to do |\n|---|---|---|",
        *(
            f"| **{trigger.name}**<br>`{trigger.expression.replace('/T/', '//')}` | {trigger.severity.lower()}"
            f" | {trigger.words} |"
            for trigger in template.triggers
        ),
        "\n| macro | value | meaning |\n|---|---|---|",
        *(f"| `{macro.name}` | {macro.value} | {macro.words} |" for macro in template.macros),
        "",
    ]
