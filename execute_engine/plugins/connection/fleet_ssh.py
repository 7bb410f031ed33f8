"""Ansible's way to the runner's ssh connections. It answers as Ansible's own ssh plugin does."""

from __future__ import annotations

import os
from typing import Any

from ansible.errors import AnsibleError, AnsibleFileNotFound
from ansible.plugins.connection import ConnectionBase

from execute_engine import ssh

DOCUMENTATION = """
name: fleet_ssh
short_description: ssh over the runner's own connections
description:
  - One connection for each host, kept for all its tasks, in one event loop for all hosts of the runner.
  - User, port, key and passwords are the engine's own; no variable of a playbook changes them.
author: execute-engine
options:
  host:
    description: Host to connect to.
    default: inventory_hostname
    type: string
    vars:
      - name: inventory_hostname
  port:
    description: Port of the engine's configuration, for others to read.
    type: int
  remote_user:
    description: User of the engine's configuration, for others to read.
    type: string
  pipelining:
    description: Modules go through the command's input and not through a file.
    type: bool
    default: true
    vars:
      - name: ansible_pipelining
      - name: ansible_ssh_pipelining
  use_tty:
    description: A terminal is requested for commands without input data that may use become.
    type: bool
    default: true
    vars:
      - name: ansible_ssh_use_tty
  timeout:
    description: Two seconds more than this without a sign of become end the command.
    type: int
    default: 10
    vars:
      - name: ansible_ssh_timeout
"""

_NOT_FROM_SSH = (  # a command that ends with 255 and says one of these has run, as Ansible's ssh plugin has it
    b"Traceback (most recent call last):",
    b"PHP Parse error:",
    b"chmod: invalid mode",
    b"chmod: A flag or octal number is not correct.",
)


class Connection(ConnectionBase):  # type: ignore[misc]
    """Blocks the calling thread; any number of threads may use connections at once."""

    transport = "fleet_ssh"
    has_pipelining = True
    has_tty = False  # as the ssh plugin without -tt among its arguments

    def _connect(self) -> Connection:
        return self

    def set_options(self, task_keys: Any = None, var_options: Any = None, direct: Any = None) -> None:
        super().set_options(task_keys=task_keys, var_options=var_options, direct=direct)
        settings = ssh.current().ssh
        self.set_option("port", settings.port)
        self.set_option("remote_user", settings.user)

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> tuple[int, bytes, bytes]:
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        tty = not in_data and sudoable and self.get_option("use_tty")
        prompt = self._become_prompt() if sudoable else None
        status, stdout, stderr = ssh.current().run(self._host(), cmd, in_data, tty, prompt)
        if status == 255 and not any(mark in stdout or mark in stderr for mark in _NOT_FROM_SSH):
            said = (stderr or stdout).decode(errors="replace")  # a terminal has only one stream
            if self._play_context.no_log:
                said = "<error censored due to no log>"
            sentence = f"the command at {self._host()} ended with status 255, which Ansible takes for a lost connection"
            raise ssh.Unreachable("status_255", f"{sentence}: {said.rstrip()}")
        return status, stdout, stderr

    def put_file(self, in_path: str, out_path: str) -> None:
        super().put_file(in_path, out_path)
        if not os.path.exists(in_path):
            raise AnsibleFileNotFound(f"file or module does not exist: {in_path}")
        try:
            ssh.current().put(self._host(), in_path, out_path)
        except OSError as error:
            raise AnsibleError(f"failed to transfer file to {in_path} {out_path}: {error}") from error

    def fetch_file(self, in_path: str, out_path: str) -> None:
        super().fetch_file(in_path, out_path)
        try:
            ssh.current().get(self._host(), in_path, out_path)
        except OSError as error:
            raise AnsibleError(f"failed to transfer file to {in_path} {out_path}: {error}") from error

    def reset(self) -> None:
        ssh.current().reset(self._host())
        self.close()

    def close(self) -> None:
        """The connection stays, for the host's next task."""
        self._connected = False

    def _host(self) -> str:
        return str(self.get_option("host"))

    def _become_prompt(self) -> ssh.BecomePrompt | None:
        become = self.become
        if become is None or not (become.prompt or become.success):
            return None
        expects = become.expect_prompt()
        return ssh.BecomePrompt(
            name=become.name,
            waits_for_prompt=bool(become.prompt),
            password=become.get_option("become_pass", playcontext=self._play_context) if expects else None,
            is_prompt=become.check_password_prompt,
            is_success=become.check_success if become.success else lambda line: False,
            is_incorrect=become.check_incorrect_password,
            is_missing=become.check_missing_password,
            timeout_seconds=2 + self.get_option("timeout"),
        )
