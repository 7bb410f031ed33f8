"""The end of a process that cannot use its configuration."""

from __future__ import annotations

import logging

from contract import logs
from contract.errors import ConfigError
from contract.notify import Notifier
from contract.supervised import Lifeline


def refuse(error: ConfigError, lifeline: Lifeline) -> int:
    """Say each problem on standard error, and the first one to who shows the status; returns the exit code."""
    for line in str(error).splitlines():
        logs.say(logging.ERROR, line)
    lifeline.status(error.problems[0])
    Notifier.from_environment().send(f"STATUS={error.problems[0]}")  # a child has no address: the supervisor tells
    return ConfigError.EXIT_CODE
