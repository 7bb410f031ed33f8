"""The error tree of execute_engine. Whether a call may be tried again is its class, never its text."""

from __future__ import annotations


class EngineError(Exception):
    """Anything that execute_engine raises on purpose."""


class LauncherError(EngineError):
    """The launcher could not be started, or did not start a guard: nothing of that unit has run or will run."""


class TwinError(EngineError):
    """Another live engine has the same ENGINE_ID."""


class LeaseLost(EngineError):
    """This incarnation was declared dead: its units are no longer its own."""


class StopRequested(EngineError):
    """A stop signal came while the engine waited for something at its start."""


class ProvisionError(EngineError):
    """Zabbix's API is not there, refuses the user, or refuses what was asked of it; the text says what to do."""


class KeyFileError(EngineError):
    """The ssh key file cannot be read, is no private key, or has a passphrase."""


class RunnerError(EngineError):
    """A unit cannot be run as it was asked for, or Ansible cannot be loaded; the text says what to do."""


class SpoolError(EngineError):
    """Results could not be kept on disk, or kept ones not be read back; the text says what to do."""
