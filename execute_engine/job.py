"""What the consumer gives a runner: plain data, frozen, JSON across the socket."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class SshSettings:
    user: str
    port: int
    password: str = field(repr=False)
    sudo_password: str = field(repr=False)
    key_file: str  # "" = none
    host_key_checking: str  # accept-new | yes | no
    connect_timeout_seconds: float = 10.0
    login_timeout_seconds: float = 60.0


@dataclass(frozen=True)
class Job:
    """One unit to run. hosts are unique, in the order of their rows; timeouts are seconds from the unit's start."""

    unit_id: int
    task_id: str
    type: str  # adhoc | playbook
    attempt: int
    hosts: tuple[str, ...]
    timeout_seconds: float
    engine_id: str
    ssh: SshSettings
    host_keys: dict[str, tuple[str, ...]]  # host -> "key-type base64" lines that are known for its port
    connection: str  # asyncssh | openssh
    workers: str  # threads | processes
    python_interpreter: str
    files_dir: str
    vault_password_file: str  # "" = none
    become: bool | None  # None: what the plays say (playbook)
    check: bool
    host_timeout_seconds: float | None = None  # of one host, from its first connection attempt
    task_timeout_seconds: float | None = None  # of one task on one host
    memory_bytes: int = 2_000_000_000  # no process of the unit may hold more
    on_engine_loss: str = "report"  # or rerun: hosts without a result may run again
    on_timeout: str = "stop"  # or leave: what becomes of the command on a host whose time is over
    needs_files: bool = True  # its text may read files of the share; else it is not touched
    projects: dict[str, str] = field(default_factory=dict)  # project -> commit: the versions that this task sees
    allow_local: bool = False  # tasks may run on the engine itself
    module: str = ""
    args: str | dict[str, Any] = ""
    template: bool = False  # ad hoc: args are a template
    no_log: bool = False  # ad hoc: args and output are secret
    playbook_name: str = ""
    playbook_content: str = ""
    strategies: tuple[str, ...] = ()  # one a top-level entry of the playbook, for plays that name none: free | linear

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "ssh": vars(self.ssh)}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Job:
        fields = dict(fields)
        fields["ssh"] = SshSettings(**fields["ssh"])
        fields["hosts"] = tuple(fields["hosts"])
        fields["strategies"] = tuple(fields["strategies"])
        fields["host_keys"] = {host: tuple(keys) for host, keys in fields["host_keys"].items()}
        return cls(**fields)
