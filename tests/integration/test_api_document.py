"""docs/api.md: made from the OpenAPI document, its examples answered by the application."""

from __future__ import annotations

from pathlib import Path

import pytest

from contract.database import Database
from distribute import api_document
from tests.integration.rest import Rest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def page() -> str:
    return api_document.text()


def test_the_page_is_what_the_application_answers(page: str) -> None:
    """python -m distribute.api_document > docs/api.md"""
    assert (ROOT / "docs" / "api.md").read_text() == page


def test_every_operation_has_an_example(page: str, sqlite_settings: object) -> None:
    database = Database(sqlite_settings)  # type: ignore[arg-type]
    paths = Rest(database).app.spec["paths"]
    database.close()
    operations = {f"## {method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert {line for line in page.splitlines() if line.startswith("## ")} == operations
    assert page.count("    curl ") == len(operations)
    assert page.count('\n     "code": 200,') == len(operations) - 3  # the health checks have no envelope
    assert page.count('\n     "code": 202,') == 1
