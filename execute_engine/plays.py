"""One job as Ansible runs it: inventory, variables, and the play or playbook, built as its own commands build them."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path, PurePath
from typing import Any

from ansible import constants, context
from ansible._internal._datatag._tags import Origin, TrustedAsTemplate
from ansible.errors import AnsibleParserError
from ansible.executor.playbook_executor import PlaybookExecutor
from ansible.executor.task_queue_manager import TaskQueueManager
from ansible.inventory.manager import InventoryManager
from ansible.module_utils.common.collections import ImmutableDict
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.splitter import parse_kv
from ansible.parsing.vault import VaultSecretsContext, get_file_vault_secret
from ansible.playbook.play import Play
from ansible.release import __version__
from ansible.template import Templar, trust_as_template
from ansible.vars.manager import VariableManager

from execute_engine import payloads, shortcuts
from execute_engine.callback import Events
from execute_engine.errors import RunnerError
from execute_engine.fence import files, lookups
from execute_engine.fence.files import Share
from execute_engine.fence.places import Places
from execute_engine.job import Job

TARGET_GROUP = "target_hosts"
NEEDED_PLUGINS = ("connection/ssh", "shell/sh", "become/sudo", "strategy/linear", "strategy/free", "action/normal")
COMMON_MODULES = ("command", "ping", "setup", "stat", "file", "copy", "service_facts", "systemd", "user", "lineinfile")
CONNECTIONS = {"asyncssh": "fleet_ssh", "openssh": "ssh"}
_VAULTED = re.compile(r"^[^#\n]*\$ANSIBLE_VAULT;", re.MULTILINE)


def warm_up() -> None:
    """Use once what is slow only the first time."""
    Templar(loader=None, variables={"one": 1}).template(trust_as_template("{{ one | string }}"))
    payloads.build(COMMON_MODULES)
    shortcuts.install()


class Plays:
    """Made in the runner, by its main thread; run() blocks until every host is through or lost."""

    def __init__(self, job: Job, scratch: Path, variables: dict[str, Any]) -> None:
        """variables: facts of the connection, which nothing in a playbook overrides.

        Raises AnsibleError or RunnerError for a vault password file that cannot be used.
        """
        self._job = job
        _surround_run(job, scratch)
        share = Share(job.files_dir, str(scratch), job.projects, job.needs_files)
        files.install(share)
        lookups.install(share)
        self.hangs_at = share.hangs_at
        self.loader = _Files(job, share)
        _open_vault(job, self.loader)
        self.inventory = _inventory(job.hosts, self.loader)
        self.variables = VariableManager(self.loader, self.inventory, _version())
        facts = _connection_facts(job) | variables
        self.variables.extra_vars.update(facts | {"ansible_python_interpreter": job.python_interpreter})
        Places(job.hosts, CONNECTIONS[job.connection], facts, job.allow_local).install()
        self._passwords = _passwords(job)
        self.manager: TaskQueueManager | None = None

    def run(self, events: Events) -> None:
        """Raises AnsibleError for what cannot be run at all, RunnerError for vaulted text without a password."""
        if self._job.type == "adhoc":
            self._run_module(events)
        else:
            self._run_playbook(events)

    def _run_module(self, events: Events) -> None:
        play = Play().load(_module_play(self._job), variable_manager=self.variables, loader=self.loader)
        manager = TaskQueueManager(
            inventory=self.inventory,
            variable_manager=self.variables,
            loader=self.loader,
            passwords=self._passwords,
            forks=len(self._job.hosts),
        )
        self._take(manager, events)
        try:
            manager.run(play)
        finally:
            manager.cleanup()

    def _run_playbook(self, events: Events) -> None:
        if not self._job.vault_password_file and (found := _VAULTED.search(self._job.playbook_content)):
            line = self._job.playbook_content.count("\n", 0, found.start()) + 1
            raise RunnerError(
                f"{self.loader.playbook}:{line}: the playbook has vaulted text, and no vault password file is "
                "configured: set [Ansible] VAULT_PASSWORD_FILE in the engine's configuration"
            )
        executor = PlaybookExecutor(
            [self.loader.playbook], self.inventory, self.variables, self.loader, self._passwords
        )
        self._take(executor._tqm, events)
        executor.run()

    def _take(self, manager: TaskQueueManager, events: Events) -> None:
        events._init_callback_methods()
        events.observe(manager, self.inventory, self.variables)
        manager._callback_plugins = [events]
        self.manager = manager


class _Files(files.Files):
    """The files of the share, and the playbook, which lies in memory and counts as one of them."""

    def __init__(self, job: Job, share: Share) -> None:
        super().__init__(share)
        name = PurePath(job.playbook_name or "playbook").name
        self.playbook = str(Path(job.files_dir) / (name if name.endswith((".yml", ".yaml")) else f"{name}.yml"))
        self._content = job.playbook_content
        self._strategies = job.strategies
        self._no_log = job.no_log

    def _get_file_contents(self, file_name: str) -> tuple[bytes, bool]:
        if self.path_dwim(file_name) != self.playbook:
            return super()._get_file_contents(file_name)  # type: ignore[no-any-return]
        return Origin(path=self.playbook).tag(self._content.encode()), True

    def load_from_file(self, file_name: str, *args: Any, **kwargs: Any) -> Any:
        found = super().load_from_file(file_name, *args, **kwargs)
        if self.path_dwim(file_name) == self.playbook and isinstance(found, list):
            _choose_strategies(found, self._strategies)
        if self._no_log and isinstance(found, list):
            _hide_results(found)
        return found


def _choose_strategies(entries: list[Any], strategies: tuple[str, ...]) -> None:
    """A play that names a strategy keeps it; where the entries are not those that were looked at, Ansible's linear."""
    if len(entries) == len(strategies):
        for entry, strategy in zip(entries, strategies, strict=True):
            if isinstance(entry, dict) and "hosts" in entry:
                entry.setdefault("strategy", strategy)


def _hide_results(entries: list[Any]) -> None:
    """Of a secret playbook, and of those that it imports: of plays and tasks that do not say anything else."""
    for entry in entries:
        if isinstance(entry, dict) and "hosts" in entry:
            entry.setdefault("no_log", True)


def _surround_run(job: Job, scratch: Path) -> None:
    constants.DEFAULT_LOCAL_TMP = str(scratch)
    payloads.offer(scratch)
    constants.DEFAULT_ROLES_PATH = []  # only those beside the playbook
    os.chdir(scratch)  # what Ansible looks for in the working directory is not there
    become = job.become is not False if job.type == "adhoc" else bool(job.become)
    context.CLIARGS = ImmutableDict(
        become=become,
        become_ask_pass=False,
        become_method="sudo",
        become_user=None,
        check=job.check,
        connection=CONNECTIONS[job.connection],
        diff=False,
        extra_vars=(),
        forks=len(job.hosts),
        module_path=None,
        private_key_file=job.ssh.key_file or None,
        remote_user=job.ssh.user,
        skip_tags=(),
        start_at_task=None,
        syntax=None,
        tags=("all",),
        timeout=int(job.ssh.connect_timeout_seconds),
        verbosity=0,
    )


def _connection_facts(job: Job) -> dict[str, Any]:
    """What the connection plugin is told. Which plugin it is, is no variable: another one is refused, not overruled."""
    found: dict[str, Any] = {
        "ansible_port": job.ssh.port,
        "ansible_user": job.ssh.user,
        "ansible_pipelining": True,
    }
    if job.ssh.key_file:
        found["ansible_ssh_private_key_file"] = job.ssh.key_file
    return found


def _passwords(job: Job) -> dict[str, str | None]:
    """Ansible makes a variable of conn_pass. The connections have the real one; ssh's plugin asks if there is any."""
    asks = job.connection == "openssh" and job.ssh.password
    return {"conn_pass": "not shown" if asks else None, "become_pass": job.ssh.sudo_password or None}


def _inventory(hosts: tuple[str, ...], loader: DataLoader) -> InventoryManager:
    inventory = InventoryManager(loader=loader, sources=[], parse=False)
    inventory.add_group(TARGET_GROUP)
    for host in hosts:
        inventory.add_host(host, TARGET_GROUP)
    inventory.reconcile_inventory()
    return inventory


def _version() -> dict[str, Any]:
    """What {{ ansible_version }} says, as the commands make it."""
    numbers = [int(part) for part in __version__.split(".")[:3]]
    major, minor, revision = numbers
    return {"string": __version__, "full": __version__, "major": major, "minor": minor, "revision": revision}


def _open_vault(job: Job, loader: DataLoader) -> None:
    """The password file is the engine's and may lie anywhere; what it opens, not."""
    secrets = []
    if job.vault_password_file:
        secret = get_file_vault_secret(filename=job.vault_password_file, vault_id=None, loader=DataLoader())
        secret.load()
        secrets.append((constants.DEFAULT_VAULT_IDENTITY, secret))
    VaultSecretsContext.initialize(VaultSecretsContext(secrets))
    loader.set_vault_secrets(secrets)


def _module_play(job: Job) -> dict[str, Any]:
    """As the ansible command builds it from -m and -a. Raises AnsibleParserError for arguments that make no sense."""
    if job.module in constants.MODULE_REQUIRE_ARGS and not job.args:
        raise AnsibleParserError(f"No argument passed to {job.module} module")
    task = {"action": job.module, "args": _module_args(job), "no_log": job.no_log}
    task = Origin(description=f"<adhoc {job.module!r} task>").tag(task)
    return {"name": "Ansible Ad-Hoc", "hosts": "all", "gather_facts": "no", "tasks": [task]}


def _module_args(job: Job) -> dict[str, Any]:
    """Data, and not a template unless the request says so: Ansible templates only what is tagged as trusted."""
    arguments = job.args
    if isinstance(arguments, str) and arguments.startswith("{") and arguments.endswith("}"):
        arguments = _as_json(arguments)
    if job.template:
        arguments = _trusted(arguments)
    if isinstance(arguments, str):
        arguments = parse_kv(arguments, check_raw=job.module in constants.MODULE_REQUIRE_ARGS)
    return arguments


def _as_json(text: str) -> str | dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return text
    return found if isinstance(found, dict) else text


def _trusted(value: Any) -> Any:
    if isinstance(value, str):
        return TrustedAsTemplate().tag(value)
    if isinstance(value, dict):
        return {name: _trusted(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_trusted(item) for item in value]
    return value
