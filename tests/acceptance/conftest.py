from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.service_manager import ServiceManager


@pytest.fixture
def service_manager(server_directory: Path) -> Iterator[ServiceManager]:
    manager = ServiceManager(server_directory)
    yield manager
    manager.close()
