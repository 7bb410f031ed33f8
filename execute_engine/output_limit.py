"""How much output the commands of a runner may hold in memory: Ansible needs the whole of a module's answer."""

from __future__ import annotations

from ansible.errors import AnsibleError

COMMAND_BYTES = 64 << 20
ALL_COMMANDS_BYTES = 256 << 20  # of one runner together


class Budget:
    """What the commands of one process have left."""

    def __init__(self) -> None:
        self.left_bytes = ALL_COMMANDS_BYTES


class Meter:
    """One command's output."""

    def __init__(self, address: str, budget: Budget) -> None:
        self._address = address
        self._budget = budget
        self._bytes = 0

    def add(self, count: int) -> AnsibleError | None:
        """Takes in so many bytes more; returns the error when the command has to be given up."""
        self._bytes += count
        self._budget.left_bytes -= count
        if self._bytes > COMMAND_BYTES:
            what = f"wrote more than {COMMAND_BYTES >> 20} MiB"
        elif self._budget.left_bytes < 0:
            what = f"wrote {self._bytes >> 20} MiB while the unit's commands together reached their limit"
        else:
            return None
        return AnsibleError(f"the command at {self._address} {what} and was ended: let it write to a file on the host")

    def close(self) -> None:
        """The command is over: its output is not held here any more."""
        self._budget.left_bytes += self._bytes
        self._bytes = 0
