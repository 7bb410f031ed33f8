"""Where a client's text runs, and over which connection: on the unit's hosts, by the engine's own connection.

Ansible decides both in many places, by keywords, variables, loops and plugins. It carries the decisions out in few,
and there, at run time, stand the hooks:

    a play begins                        it must be for hosts of the unit
    a task is about to get a connection  its host, or the one it is delegated to, must be one of the unit's
    a connection plugin is loaded        it must be the engine's own
    a connection is given its options    no variable of a playbook is among them, however it came there
    a task is about to run its action    the action's code, which runs on the engine, must be known to be harmless
    a folder of plugins is added         it is left out: nothing that lies beside a playbook is loaded

[Exec_Engine] ALLOW_LOCAL opens localhost, the connection `local`, and all actions. Filters: fence/lookups.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ansible import constants
from ansible.executor.task_executor import TaskExecutor
from ansible.executor.task_queue_manager import TaskQueueManager
from ansible.plugins import loader
from ansible.plugins.connection import ConnectionBase
from ansible.utils.display import Display

from execute_engine.fence.hooks import Refused, hook, in_place_of

LOCAL = "local"
_SSH = frozenset(("ssh", "smart"))  # what playbooks call the connection that is ours
_HARMLESS_ACTIONS = "ansible.builtin."  # they act over the connection, or on variables; what they read is not ours
_MORE_HARMLESS_ACTIONS = frozenset(
    ("ansible.posix.patch", "community.general.iptables_state", "community.general.shutdown")
)
_HARMLESS_VARIABLES = frozenset(  # of those that a connection reads: how, and not where, as whom or by what program
    (
        "ansible_sftp_batch_mode",
        "ansible_ssh_timeout",
        "ansible_ssh_transfer_method",
        "ansible_ssh_use_tty",
    )
)


class Places:
    """The hosts and the connection of one runner. install() is for the whole process, and its forks, for good."""

    def __init__(self, hosts: Iterable[str], connection: str, facts: dict[str, Any], allow_local: bool) -> None:
        """connection: the one plugin that is used; facts: the variables that it is given, and no other."""
        self._allow_local = allow_local
        self._hosts = frozenset(hosts) | frozenset(constants.LOCALHOST if allow_local else ())
        self._connection = connection
        self._facts = facts

    def install(self) -> None:
        """Call it when all plugins of the installation are loaded, and before a TaskQueueManager is made."""
        hook(TaskQueueManager, "run", self._run_play)
        hook(TaskExecutor, "_get_connection", self._connect)
        hook(TaskExecutor, "_get_action_handler_with_module_context", self._get_action)
        hook(loader.PluginLoader, "add_directory", self._leave_out)
        hook(loader.PluginLoader, "get_with_context", self._load)
        # it belongs to the base of all plugins; here it is replaced for connections
        setattr(ConnectionBase, "set_options", in_place_of(ConnectionBase.set_options, self._set_options))  # noqa: B010

    def _run_play(self, plain: Callable[..., Any], manager: Any, play: Any) -> Any:
        found = [host.name for host in manager._inventory.get_hosts(play.hosts)]
        if found and not self._hosts.intersection(found):
            raise Refused(f"the play {play.get_name()!r} is refused: {_outside(found[0])}")
        return plain(manager, play)

    def _connect(self, plain: Callable[..., Any], executor: Any, variables: Any, templar: Any, name: str) -> Any:
        delegate, host = executor._task.delegate_to, executor._host.name
        if (target := delegate or host) not in self._hosts:
            templar.available_variables = executor._job_vars  # a loop's label is made of them, and the error told by it
            what = f"delegate_to {delegate}" if delegate else f"a task on {host}"
            raise Refused(f"{what} is refused: {_outside(target)}")
        connection = plain(executor, variables, templar, name)
        connection.fenced_host = target
        return connection

    def _load(self, plain: Callable[..., Any], plugins: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        if plugins is loader.connection_loader:
            name = self._connection_named(name)
        return plain(plugins, name, *args, **kwargs)

    def _connection_named(self, name: str) -> str:
        short = str(name).removeprefix("ansible.builtin.").removeprefix("ansible.legacy.")
        if short in _SSH or short == self._connection:
            return self._connection
        if short == LOCAL and self._allow_local:
            return LOCAL
        raise Refused(f"connection {name} is refused: the hosts are reached by the engine's own ssh connection only")

    def _set_options(
        self, plain: Callable[..., None], connection: Any, task_keys: Any = None, var_options: Any = None, **more: Any
    ) -> None:
        given = var_options or {}
        if connection._load_name == self._connection:
            host = getattr(connection, "fenced_host", given.get("inventory_hostname"))
            harmless = {name: value for name, value in given.items() if name in _HARMLESS_VARIABLES}
            given = harmless | self._facts | {"inventory_hostname": host}
        plain(connection, task_keys=task_keys, var_options=given, **more)

    def _get_action(self, plain: Callable[..., Any], executor: Any, *args: Any, **kwargs: Any) -> Any:
        handler, module = plain(executor, *args, **kwargs)
        name = handler.ansible_name
        if not (self._allow_local or name.startswith(_HARMLESS_ACTIONS) or name in _MORE_HARMLESS_ACTIONS):
            raise Refused(f"{executor._task.action} is refused: its action plugin {name} runs code on the engine")
        return handler, module

    def _leave_out(self, plain: Callable[..., None], plugins: Any, directory: str, with_subdir: bool = False) -> None:
        Display().warning(f"{directory} is left out: plugins and modules beside a playbook or in a role are not loaded")


def _outside(host: str) -> str:
    return f"{host} is none of the unit's hosts, and a client's tasks run on these only"
