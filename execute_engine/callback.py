"""What Ansible says about a run, as events: the one callback of a runner, handed to its TaskQueueManager."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

from ansible import constants
from ansible.errors import AnsibleError
from ansible.playbook.block import Block
from ansible.plugins.callback import CallbackBase

from execute_engine.outcome import (
    FAILED,
    IGNORED,
    OK,
    RESCUED,
    SKIPPED,
    UNREACHABLE,
    Outcomes,
    TaskEnd,
)
from execute_engine.output import Cleaner
from execute_engine.report import Report, utc_now

# fmt: off
_SHOWN_ELSEWHERE = frozenset((
    "changed", "rc", "stdout", "stdout_lines", "stderr", "stderr_lines", "msg", "module_stdout", "module_stderr", "cmd",
    "dest", "invocation", "exception", "warnings", "deprecations", "unreachable", "reason",
))
# fmt: on


class Events(CallbackBase):  # type: ignore[misc]
    """Tells Outcomes and Report what happens. Ansible calls it from the strategy's thread, one call at a time."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "events"

    def __init__(
        self,
        outcomes: Outcomes,
        report: Report,
        cleaner: Cleaner,
        playbook: bool,
        secret: bool,
        begun: Callable[[str], None],
    ) -> None:
        """secret: no text of the tasks may be told. begun(host) is called before each task's worker is started."""
        super().__init__()
        self._outcomes = outcomes
        self._report = report
        self._cleaner = cleaner
        self._playbook = playbook
        self._secret = secret
        self._begun = begun
        self._plays = _Plays()
        self._rescued: dict[str, int] = {}

    def observe(self, manager: Any, inventory: Any, variables: Any) -> None:
        """The run that will call this; before it starts."""
        self._manager = manager
        self._inventory = inventory
        self._variables = variables

    def v2_playbook_on_start(self, playbook: Any) -> None:
        for play in playbook.get_plays():
            self._plays.order.append(play._uuid)
            try:
                hosts, tasks = self._content(play)
            except AnsibleError:  # it needs facts that are not there yet; asked again when it begins
                self._plays.surprising = True
                continue
            self._plays.expect(play._uuid, hosts)
            self._plan(hosts, tasks)

    def v2_playbook_on_play_start(self, play: Any) -> None:
        if not self._playbook:
            return
        hosts, tasks = self._content(play)
        self._plays.enter(play._uuid, hosts, runs_once=play.strategy.rpartition(".")[2] not in ("free", "host_pinned"))
        self._plan(hosts, tasks)

    def _content(self, play: Any) -> tuple[list[str], list[Any]]:
        """Its hosts in this unit and its tasks, those of blocks and always, as they will be counted."""
        variables = self._variables.get_vars(play=play)
        hosts = [host.name for host in self._inventory.get_hosts(play.hosts)]
        blocks = [block.filter_tagged_tasks(variables) for block in play.compile()]
        return hosts, [task for block in blocks for task in _tasks(block)]

    def _plan(self, hosts: list[str], tasks: list[Any]) -> None:
        if any(task._get_meta() == "clear_host_errors" or _includes(task) for task in tasks):
            self._plays.surprising = True
        keys = {task._uuid for task in tasks if task.action not in constants._ACTION_META}
        for host in hosts:
            self._outcomes.plan(host, keys)

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        name = self._name(task, task.get_name())
        self._outcomes.task_begun(host.name, task._uuid, name)
        self._begun(host.name)
        if self._playbook:
            self._report.send({"event": "task_started", "host": host.name, "task": name, "at": utc_now()})

    def v2_runner_on_ok(self, result: Any) -> None:
        self._end(result, OK)

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._end(result, SKIPPED)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._end(result, IGNORED if ignore_errors else RESCUED if self._was_rescued(result.host.name) else FAILED)

    def _was_rescued(self, host: str) -> bool:
        """Ansible counts a rescue before it tells of the failure."""
        before, self._rescued[host] = self._rescued.get(host, 0), self._manager._stats.rescued.get(host, 0)
        return self._rescued[host] > before

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._end(result, IGNORED if result.task.ignore_unreachable else UNREACHABLE)

    def v2_playbook_on_no_hosts_matched(self) -> None:
        self._report.log("info", "no host of this unit matches a play")

    def _end(self, result: Any, status: str) -> None:
        host, task = result.host.name, result.task
        if task.action in constants._ACTION_META:
            return
        end = task_end(status, result.result, self._cleaner, changed=result.is_changed())
        written = task.get_ds() is not None  # nobody wrote the implicit fact gathering
        self._outcomes.task_ended(host, task._uuid, self._name(task, result.task_name), end, counts=written)
        if self._plays.runs_once and status in (OK, SKIPPED, IGNORED) and _runs_once(task):
            self._outcomes.done_once_for_all(task._uuid, self._plays.hosts)
        if not self._playbook or (status == UNREACHABLE and self._plays.over_for(failed=True)):
            self.finish(host)

    def _name(self, task: Any, name: object) -> str:
        """What the task is called; where nothing of it may be told, where it stands."""
        if not (self._secret and self._playbook):
            return str(name).strip()
        origin = task._origin
        if origin is None or not origin.path:
            return "a task of Ansible's own"
        return f"{PurePath(origin.path).name}:{origin.line_num}"

    def nothing_left(self, host: str, failed: bool) -> None:
        """The strategy has found no task for this host in this play; called often."""
        if not self._playbook or host in self._plays.through or self._outcomes.busy(host):
            return
        if self._plays.over_for(failed):
            self._plays.through.add(host)
            self.finish(host, failed)

    def recap(self) -> None:
        """The run is over: report every host that was not yet."""
        for host in self._outcomes.open_hosts():
            self.finish(host, host in self._manager._failed_hosts or self._plays.missed(host))

    def finish(self, host: str, stopped_with_others: bool = False) -> None:
        """Report this host as done, once; blocks while the consumer is far behind."""
        if done := self._outcomes.finish(host, stopped_with_others):
            self._report.send(done.to_event())
            self._report.give_way()


class _Plays:
    """Where the run is among the plays of its playbook."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.current: str | None = None
        self.hosts: list[str] = []  # of the current play
        self.runs_once = False  # its strategy runs a run_once task once for all hosts
        self.surprising = False  # something may bring a failed host back, or is not known before it runs
        self.through: set[str] = set()
        self._expected: dict[str, set[str]] = {}
        self._entered: dict[str, set[str]] = {}

    def expect(self, play: str, hosts: list[str]) -> None:
        for host in hosts:
            self._expected.setdefault(host, set()).add(play)

    def enter(self, play: str, hosts: list[str], runs_once: bool) -> None:
        self.current, self.hosts, self.runs_once = play, hosts, runs_once
        for host in hosts:
            self._entered.setdefault(host, set()).add(play)

    def over_for(self, failed: bool) -> bool:
        """Whether a host without another task in this play has nothing to come in the whole playbook."""
        return not self.surprising if failed else self.current == self.order[-1]

    def missed(self, host: str) -> bool:
        """The playbook ended before a play that was meant for this host."""
        return not self._expected.get(host, set()) <= self._entered.get(host, set())


def _tasks(block: Any) -> Iterator[Any]:
    """Of a block, its block and always lists, down to the tasks."""
    for entry in (*block.block, *block.always):
        if isinstance(entry, Block):
            yield from _tasks(entry)
        else:
            yield entry


def _includes(task: Any) -> bool:
    return task.action in constants._ACTION_INCLUDE_TASKS or task.action in constants._ACTION_INCLUDE_ROLE


def _runs_once(task: Any) -> bool:
    return bool(task.run_once) or task.action.rpartition(".")[2] in ("pause", "add_host")


def task_end(status: str, result: Mapping[str, Any], cleaner: Cleaner, changed: bool) -> TaskEnd:
    """The fields of a module's result as the ansible command shows them; of a loop, those of its first failed item."""
    if (item := _failed_item(result)) is not None and status != OK:
        label = item.get("_ansible_item_label", item.get("item"))
        return _task_end(
            status, {**item, "msg": f"{result.get('msg')}: (item={label}) {_message(item)}"}, cleaner, changed
        )
    return _task_end(status, result, cleaner, changed)


def _task_end(status: str, result: Mapping[str, Any], cleaner: Cleaner, changed: bool) -> TaskEnd:
    detail: dict[str, Any] = {}
    for name in ("cmd", "dest"):
        if name in result:
            detail[name] = result[name]
    if rest := {name: value for name, value in result.items() if _is_own(name)}:
        detail["result"] = rest
    for name in ("warnings", "deprecations") if "censored" not in result else ():  # no_log leaves them as they are
        if texts := [_warning(entry) for entry in result.get(name) or ()]:
            detail[name] = texts
    return TaskEnd(
        status=status,
        changed=changed,
        rc=_rc(result.get("rc")),
        stdout=cleaner.field(result.get("stdout", result.get("module_stdout"))),
        stderr=cleaner.field(result.get("stderr", result.get("module_stderr"))),
        msg=cleaner.field(_message(result)),
        detail=cleaner.data(detail),
    )


def _is_own(name: object) -> bool:
    return name not in _SHOWN_ELSEWHERE and not str(name).startswith("_ansible_")


def _failed_item(result: Mapping[str, Any]) -> Mapping[str, Any] | None:
    items = result.get("results")
    if not isinstance(items, list):
        return None
    return next(
        (item for item in items if isinstance(item, dict) and (item.get("failed") or item.get("unreachable"))), None
    )


def _message(result: Mapping[str, Any]) -> object:
    """The module's own words; a single short value (ping: pong) stands in for missing ones."""
    for name in ("msg", "reason", "censored"):
        if result.get(name) not in (None, ""):
            return result[name]
    own = [value for name, value in result.items() if _is_own(name)]
    if "stdout" not in result and len(own) == 1 and isinstance(own[0], str):
        return own[0]
    return result.get("msg")


def _rc(value: object) -> int | None:
    try:
        return None if value is None else int(str(value))
    except ValueError:
        return None


def _warning(entry: object) -> str:
    if isinstance(entry, Mapping):
        event = entry.get("event")
        return str(event.get("msg") if isinstance(event, Mapping) else entry.get("msg", entry))
    return str(getattr(getattr(entry, "event", entry), "msg", entry))
