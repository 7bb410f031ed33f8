"""A Job to test with."""

from __future__ import annotations

from typing import Any

from execute_engine.job import Job, SshSettings


def job(hosts: int = 2, **values: Any) -> Job:
    """Hosts h1, h2, ...; values are fields of Job."""
    fields: dict[str, Any] = {
        "unit_id": 7,
        "task_id": "t",
        "type": "adhoc",
        "attempt": 1,
        "hosts": tuple(f"h{number}" for number in range(1, hosts + 1)),
        "timeout_seconds": 100.0,
        "engine_id": "engine-1",
        "ssh": SshSettings("root", 22, "", "", "", "no"),
        "host_keys": {},
        "connection": "asyncssh",
        "workers": "threads",
        "python_interpreter": "/usr/bin/python3",
        "files_dir": "/mnt",
        "vault_password_file": "",
        "become": None,
        "check": False,
    }
    return Job(**{**fields, **values})
