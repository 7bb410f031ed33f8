"""Servers as fixtures have them. Apart from process.py, which the demo uses too: it has no pytest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, TypeVar

import pytest

from tests.servers.process import ServerMissing


class _Server(Protocol):
    def start(self) -> None: ...

    def stop(self) -> object: ...


T = TypeVar("T", bound=_Server)


def while_started(server: T) -> Iterator[T]:
    """For `yield from` in a fixture: started before, stopped after; the test is skipped where it cannot be had."""
    try:
        server.start()
        yield server
    except ServerMissing as exc:
        pytest.skip(str(exc))
    finally:
        server.stop()
