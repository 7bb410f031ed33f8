"""The error tree of contract. Whether a call may be tried again is its class, never its text."""

from __future__ import annotations


class ContractError(Exception):
    """Anything that contract raises on purpose."""


class ConfigError(ContractError):
    """The configuration cannot be used; the text lists every problem with file and line."""

    EXIT_CODE = 78  # EX_CONFIG of sysexits.h: a service manager must not try again

    @property
    def problems(self) -> list[str]:
        """One line each; never empty. The first line of a text with several is only their headline."""
        first, *others = str(self).splitlines() or ["no reason was given"]
        return [line.strip() for line in others] or [first]


class SecretError(ContractError):
    """An encrypted value cannot be read: no key, a wrong key, or damaged text."""


class MessageError(ContractError):
    """Bytes from Kafka that are no unit message of this version."""


class DatabaseError(ContractError):
    """The database refused a statement; trying again will not help."""


class DatabaseRetry(DatabaseError):
    """The database could not do it now; the same call may succeed later."""


class DatabaseAway(DatabaseRetry):
    """No connection, a lost one, no answer in time, or a server that is read-only or full."""


class DatabaseConflict(DatabaseRetry):
    """Deadlock, lock wait or serialisation failure: the whole transaction was undone."""


class SchemaError(DatabaseError):
    """The database's schema is newer than this program, or cannot be upgraded."""


class SchemaOutdated(DatabaseRetry):
    """The database's schema is missing or older than this program; distribute upgrades it when it starts."""


class ZabbixError(ContractError):
    """No Zabbix server could be reached, or none answered in time and as it should."""
