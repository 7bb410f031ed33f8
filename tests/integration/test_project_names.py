"""Any text as a name, group or ref of a project: refused with 400, or harmless."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from contract import project_files
from contract.config import DatabaseSettings, GitlabSettings
from contract.database import Database
from distribute.project_tree import Tree
from distribute.schemas import Clone
from tests.integration.rest import Rest

NASTY = st.sampled_from(
    ["..", ".", "/", "//", "-", "--",
     "~", "\0", "\n", " ", "$(id)", "`id`", ";", "|", "&", "@{", "^", ":", "\\", "*", "?",
     "[", ".git", ".lock", "ä", "😀", "\u202e", "\ud800", "%2e%2e", "ext::sh -c id", "--upload-pack=id", "HEAD",
     "refs/heads/", ".versions", ".locks", "+", "#", "=", "a", "B", "7", "_", "app"]
)  # fmt: skip
NEARLY = st.text("abcXYZ019._/-", min_size=1, max_size=20)
TEXT = st.one_of(st.text(max_size=30), st.lists(NASTY, max_size=6).map("".join), NEARLY)
SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+@#=/-]*")


@settings(max_examples=10_000, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(name=TEXT, ref=TEXT, group=TEXT)
def test_what_is_let_through_stays_below_files_dir_and_is_no_option(name: str, ref: str, group: str) -> None:
    try:
        wanted = Clone.model_validate({"project_name": name, "ref": ref, "group": group}, strict=True)
    except ValidationError:
        return
    root = Path("/files")
    tree = Tree(root)
    commit = "0" * 40
    places = [root / wanted.project_name, project_files.version(root, wanted.project_name, commit)]
    for place in [*places, root / ".mirrors" / f"{wanted.project_name}.git", tree.files_dir / wanted.project_name]:
        assert os.path.normpath(place) == str(place)
        assert str(place).startswith("/files/")
    assert not any(part.startswith((".", "-")) for part in wanted.project_name.split("/"))
    for text in (wanted.project_name, wanted.ref, wanted.group):
        assert text is not None
        assert SAFE.fullmatch(text)
        assert ".." not in text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture
def rest(folder: Path, sqlite_settings: DatabaseSettings) -> Iterator[Rest]:
    database = Database(sqlite_settings)
    gitlab = GitlabSettings("127.0.0.1", "team", "ssh://git@{ip}:1/{group}/{project}.git")  # refuses at once
    yield Rest(database, gitlab=gitlab, files_dir=folder / "files")
    database.close()


def test_no_request_makes_anything_outside_files_dir(rest: Rest, folder: Path) -> None:
    codes = set()

    @settings(max_examples=200, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(name=TEXT, ref=st.none() | TEXT, group=st.none() | TEXT)
    def ask(name: str, ref: str | None, group: str | None) -> None:
        body = {"project_name": name, "ref": ref, "group": group}
        codes.add(rest.call("POST", "/file/", json=body).status_code)

    ask()
    assert codes == {400, 504}, "some are refused, and some reach a Gitlab that does not answer"
    assert {path.name for path in folder.iterdir()} == {"files"}
    inside = {path.name for path in (folder / "files").iterdir()}
    assert inside <= {".mirrors", ".locks", ".versions", ".known_hosts"}
