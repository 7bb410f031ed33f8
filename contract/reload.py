"""The configuration of a running service, read again: its live keys change at once, the others wait for a restart."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from contract import config as configuration
from contract import logs
from contract.config import Config
from contract.errors import ConfigError

log = logging.getLogger(__name__)


class Reloadable:
    """The configuration that a supervisor's children are to work with."""

    def __init__(self, config: Config, service: str, check: Callable[[Config], object]) -> None:
        """service: as for config.load(). check raises ConfigError for what a start would refuse."""
        self._config = config
        self._service = service
        self._check = check

    def read_again(self) -> Config:
        """Take the live keys over and log what has changed. Raises ConfigError: then nothing is changed."""
        found = configuration.load(self._config.file, self._service)
        self._check(found)
        for warning in found.warnings:
            log.warning(warning)
        live, waiting = differences(self._config, found, self._service)
        log.info("the configuration was read again", extra={"changed": ", ".join(live) or "nothing"})
        if waiting:
            log.warning(f"needs a restart: {', '.join(waiting)}")
        self._config = _with_live_keys(self._config, found)
        logs.set_level(self._config.log_level(self._service))
        return self._config


def follow(current: Config, service: str) -> Config:
    """For a child whose supervisor has read it again: the same, and the log's level. Never raises.

    What the supervisor accepted may be broken by now; the log says so, and current goes on.
    """
    try:
        fresh = _with_live_keys(current, configuration.load(current.file, service))
    except ConfigError as exc:
        complain(exc)
        return current
    logs.set_level(fresh.log_level(service))
    return fresh


def complain(error: ConfigError) -> None:
    """A record for each problem of a configuration that was read again and cannot be used."""
    for problem in error.problems:
        log.error("the configuration cannot be used, nothing is changed", extra={"problem": problem})


def differences(before: Config, after: Config, service: str) -> tuple[list[str], list[str]]:
    """The names of this service's keys that changed: the live ones, and those that need a restart. Never values."""
    live: list[str] = []
    waiting: list[str] = []
    for section in configuration.sections():
        if section.reader not in (None, service):
            continue
        old, new = getattr(before, section.attribute), getattr(after, section.attribute)
        for key, item, _ in section.declared():
            if getattr(old, item.name) != getattr(new, item.name):
                (live if section.is_live(key) else waiting).append(f"[{section.names[0]}] {key}")
    return live, waiting


def _with_live_keys(before: Config, after: Config) -> Config:
    fresh = {}
    for section in configuration.sections():
        new = getattr(after, section.attribute)
        values = {item.name: getattr(new, item.name) for key, item, _ in section.declared() if section.is_live(key)}
        fresh[section.attribute] = replace(getattr(before, section.attribute), **values)
    return replace(before, **fresh)
