"""What a playbook's text says about how it can be run: the strategy of each play, and what splitting changes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import yaml

from distribute import yamltext
from distribute.errors import Problems

# Keywords and modules by which hosts of one play depend on each other; under `free` they would mean something else.
_UNIT_WIDE = ("run_once", "serial", "max_fail_percentage", "any_errors_fatal")  # mean the unit when a task is split
_BINDING_KEYWORDS = frozenset((*_UNIT_WIDE, "order", "throttle"))
_BINDING_MODULES = frozenset(("pause", "add_host", "group_by"))
_BINDING_META = frozenset(("end_play", "end_batch", "clear_host_errors", "refresh_inventory"))
_HIDING = frozenset(
    ("include", "include_tasks", "import_tasks", "include_role", "import_role", "roles", "import_playbook")
)
_TASK_LISTS = ("pre_tasks", "tasks", "post_tasks", "handlers")
_BLOCK_PARTS = ("block", "rescue", "always")
_OTHER_HOSTS = re.compile(
    r"\b(hostvars|groups|(?:ansible_)?play_hosts(?:_all)?|ansible_play_batch|inventory_hostnames)\b"
)
_EXPRESSION_KEYWORDS = frozenset(("when", "changed_when", "failed_when", "until", "that", "loop", "var"))
_SWITCHED_OFF = frozenset(("no", "false", "off", "n", "0"))
_UNIT_HOSTS = ("all", "target_hosts")  # what a play may call the unit's hosts

Entry = tuple[yaml.Node, yaml.Node]


@dataclass(frozen=True)
class Finding:
    """Something in a play that binds its hosts together: the word, and its line."""

    line: int
    word: str


@dataclass(frozen=True)
class Play:
    """One top-level entry of a playbook."""

    line: int
    name: str
    named_strategy: str | None
    hosts: str | None  # None: not a plain string
    findings: tuple[Finding, ...]
    is_secret: bool = False  # sentences about it may hold nothing of its text

    @property
    def title(self) -> str:
        has_name = self.name and not self.is_secret
        return f"line {self.line}: play {self.name!r}" if has_name else f"line {self.line}: this play"

    @property
    def strategy(self) -> str:
        """What the runner uses where the play names none: free where no play could tell the difference."""
        if self.named_strategy is not None:
            return "free" if self.named_strategy.rpartition(".")[2] == "free" else "linear"
        return "linear" if self.findings else "free"


@dataclass(frozen=True)
class Playbook:
    text: str = field(repr=False)
    plays: tuple[Play, ...]

    @property
    def strategies(self) -> tuple[str, ...]:
        return tuple(play.strategy for play in self.plays)

    def as_secret(self) -> Playbook:
        """The same, with warnings that name lines and Ansible's own words alone."""
        return replace(self, plays=tuple(replace(play, is_secret=True) for play in self.plays))

    def warnings(self, units: int) -> list[str]:
        """Sentences with their lines: the strategy of each play and why, and what changes in more than one unit."""
        return [sentence for play in self.plays for sentence in _warnings(play, units)]

    def hang_warnings(self) -> list[str]:
        """Sentences that say where one hung host holds the others of its unit, as long as no host_timeout ends it."""
        found = [
            f"{play.title} is linear: without host_timeout a host that hangs in one task keeps the others from the next"
            for play in self.plays
            if play.strategy == "linear"
        ]
        if len(self.plays) > 1:
            found.append(
                f"between its {len(self.plays)} plays all hosts of a unit wait for each other: without host_timeout "
                "a host that hangs in one keeps the others from the next"
            )
        return found


def parse(text: str) -> Playbook:
    """Raises Problems with line and column for what is not YAML, or no list of plays."""
    root = yamltext.compose(text)
    if not isinstance(root, yaml.SequenceNode) or not root.value:
        raise Problems.of(f"{_place(root) if root else ''}expected a list of plays, found {_kind(root)}")
    wrong = [("", problem) for entry in root.value if (problem := _problem_of(entry))]
    if wrong:
        raise Problems(wrong)
    return Playbook(text, tuple(_play(entry) for entry in root.value))


def _problem_of(entry: yaml.Node) -> str | None:
    if not isinstance(entry, yaml.MappingNode):
        return f"{_place(entry)}expected a play, found {_kind(entry)}"
    if not {"hosts", "import_playbook"} & {_short(key) for key, _ in _items(entry)}:
        return f"{_place(entry)}expected a play with hosts, or import_playbook, found neither"
    return None


def _play(entry: yaml.MappingNode) -> Play:
    values = {_short(key): value for key, value in _items(entry)}
    hosts = values.get("hosts")
    return Play(
        line=_line(entry),
        name=_text(values.get("name")) or _text(hosts) or "",
        named_strategy=_text(values.get("strategy")),
        hosts=_text(hosts),
        findings=tuple(sorted(_findings(entry), key=lambda finding: finding.line)),
    )


def _findings(entry: yaml.MappingNode) -> Iterator[Finding]:
    for key, value in _items(entry):
        keyword = _short(key)
        if keyword in _TASK_LISTS:
            yield from _of_tasks(value)
        elif keyword not in ("hosts", "name"):
            yield from _of_keyword(key, value)


def _of_tasks(tasks: yaml.Node) -> Iterator[Finding]:
    for task in tasks.value if isinstance(tasks, yaml.SequenceNode) else ():
        for key, value in _items(task):
            keyword = _short(key)
            if keyword in _BLOCK_PARTS:
                yield from _of_tasks(value)
            elif keyword in _BINDING_MODULES or (keyword == "meta" and _text(value) in _BINDING_META):
                yield Finding(_line(key), f"{keyword} {_text(value)}" if keyword == "meta" else keyword)
            elif keyword in ("action", "local_action"):
                yield from _of_action(value)
            elif keyword != "name":
                yield from _of_keyword(key, value)


def _of_keyword(key: yaml.Node, value: yaml.Node) -> Iterator[Finding]:
    """A keyword of a play, block or task, with whatever its value mentions."""
    keyword = _short(key)
    if (keyword in _BINDING_KEYWORDS and not _is_off(value)) or (keyword in _HIDING and value.value):
        yield Finding(_line(key), keyword)
    yield from _mentions(value, is_expression=keyword in _EXPRESSION_KEYWORDS or keyword.startswith("with_"))
    if keyword == "with_inventory_hostnames":
        yield Finding(_line(key), keyword)


def _of_action(value: yaml.Node) -> Iterator[Finding]:
    """The old way to write a task's module: `action: pause seconds=1`, or a mapping with `module`."""
    module = _text(value)
    if isinstance(value, yaml.MappingNode):
        module = next((_text(item) for key, item in _items(value) if _short(key) == "module"), None)
    name = (module or "").split(" ")[0].rpartition(".")[2]
    if name in _BINDING_MODULES | _HIDING | {"meta"}:
        yield Finding(_line(value), name)
    yield from _mentions(value, is_expression=False)


def _mentions(node: yaml.Node, *, is_expression: bool) -> Iterator[Finding]:
    """Templates and expressions that look at other hosts than their own."""
    if isinstance(node, yaml.ScalarNode):
        if (is_expression or "{{" in node.value or "{%" in node.value) and (found := _OTHER_HOSTS.search(node.value)):
            yield Finding(_line(node), found[1])
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _mentions(item, is_expression=is_expression)
    elif isinstance(node, yaml.MappingNode):
        for key, value in _items(node):
            yield from _mentions(value, is_expression=is_expression or _short(key) in _EXPRESSION_KEYWORDS)


def _warnings(play: Play, units: int) -> Iterator[str]:
    title = play.title
    if play.named_strategy is not None:
        yield f"{title} runs with the strategy that it names" + ("" if play.is_secret else f", {play.named_strategy}")
    elif play.findings:
        first = play.findings[0]
        yield f"{title} runs with strategy linear, because of {first.word} in line {first.line}"
    else:
        yield f"{title} runs with strategy free, because nothing in it makes one host depend on another"
    if play.hosts is not None and play.hosts not in _UNIT_HOSTS and "{{" not in play.hosts:
        named = "other hosts" if play.is_secret else f"hosts {play.hosts!r}"
        yield f"{title} names {named}: only the task's own hosts, all and target_hosts are known"
    if units > 1:
        for finding in play.findings:
            if finding.word in _UNIT_WIDE:
                yield f"line {finding.line}: {finding.word} means each of the {units} units, not the whole task"
            elif _OTHER_HOSTS.fullmatch(finding.word):
                yield f"line {finding.line}: {finding.word} knows the hosts of its own unit, one of {units}, not all"


def _items(node: yaml.Node) -> Iterator[Entry]:
    """The keys and values of a mapping, also those merged in by <<; nothing for other nodes."""
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if _text(key) == "<<":
            for merged in value.value if isinstance(value, yaml.SequenceNode) else (value,):
                yield from _items(merged)
        else:
            yield key, value


def _short(key: yaml.Node) -> str:
    """A keyword or module without the prefix of Ansible's own collection; "" for a key that is no string."""
    name = key.value if isinstance(key, yaml.ScalarNode) else ""
    return name.removeprefix("ansible.builtin.").removeprefix("ansible.legacy.")


def _kind(node: yaml.Node | None) -> str:
    if isinstance(node, yaml.SequenceNode):
        return "a list" if node.value else "an empty list"
    return "a mapping" if isinstance(node, yaml.MappingNode) else "nothing" if node is None else "a single value"


def _text(node: yaml.Node | None) -> str | None:
    return node.value if isinstance(node, yaml.ScalarNode) else None


def _is_off(value: yaml.Node) -> bool:
    text = _text(value)
    return text is not None and (text.lower() in _SWITCHED_OFF or text in ("", "~", "null"))


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _place(node: yaml.Node) -> str:
    return f"line {_line(node)}, column {node.start_mark.column + 1}: "
