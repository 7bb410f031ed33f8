"""Which file a path of a project means; whole runs are in tests/integration/test_project_files_engine.py."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from contract import project_files
from execute_engine.fence import versions
from execute_engine.fence.versions import NotShown, Versions
from tests.project_share import A, B, add_version


@pytest.fixture
def files_dir(tmp_path: Path) -> Path:
    for project in ("app", "team/web", "other"):
        for commit in (A, B):
            add_version(tmp_path / "share", project, commit, {"text": f"of {commit[0]}"})
    return tmp_path / "share"


@pytest.fixture
def seen(files_dir: Path) -> Versions:
    return Versions(str(files_dir), {"app": A, "team/web": A})


INTO = {  # a path below FILES_DIR, and where it leads; A and B are commits
    "app": ".versions/app/A",
    "app/": ".versions/app/A",
    "app/text": ".versions/app/A/text",
    "app/none/../text": ".versions/app/A/text",
    "other/../app/text": ".versions/app/A/text",
    "team/web/deep/text": ".versions/team/web/A/deep/text",
    ".versions/app/A/text": ".versions/app/A/text",
    ".versions/app/B/text": ".versions/app/A/text",
    ".versions/team/web/B": ".versions/team/web/A",
}
AS_IT_IS = (
    "",
    "application",
    "other/text",
    "team",
    "team/else",
    ".versions",
    ".versions/app",
    ".versions/other/B/text",
)


def named(path: str) -> str:
    return "/".join({"A": A, "B": B}.get(part, part) for part in path.split("/"))


@pytest.mark.parametrize("path", INTO)
def test_a_path_into_a_project_leads_into_the_tasks_version(seen: Versions, files_dir: Path, path: str) -> None:
    expected = f"{files_dir}/{named(INTO[path])}"
    assert seen.seen(f"{files_dir}/{named(path)}") == expected
    assert seen.seen(f"/{files_dir}/{named(path)}".encode()) == expected  # a second slash
    assert seen.seen(expected) == expected


@pytest.mark.parametrize("path", AS_IT_IS)
def test_any_other_path_is_as_it_is(seen: Versions, files_dir: Path, path: str) -> None:
    path = f"{files_dir}/{named(path)}"
    assert seen.seen(path) == seen.shown(path) == path
    assert seen.seen("app/text") == "app/text"
    assert seen.seen("/etc/passwd") == "/etc/passwd"


def test_a_share_behind_a_link_has_two_names(files_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "mount").symlink_to(files_dir)
    seen = Versions(f"{tmp_path}/mount", {"app": A})
    for top in (files_dir, tmp_path / "mount"):
        assert seen.seen(f"{top}/app/text") == f"{tmp_path}/mount/.versions/app/{A}/text"


def test_a_path_is_shown_as_people_write_it(seen: Versions, files_dir: Path) -> None:
    for path in ("app", "app/text", "team/web/deep/text"):
        assert seen.shown(seen.seen(f"{files_dir}/{path}")) == f"{files_dir}/{path}"
    others = f"{files_dir}/.versions/app/{B}/text"
    assert seen.shown(others) == others


def test_a_missing_version_is_waited_for_once(seen: Versions, files_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "LOOK_SECONDS", 1.0)
    project_files.version_mark(files_dir, "app", A).unlink()
    said = []

    def read() -> None:
        with pytest.raises(NotShown) as error:
            seen.seen(f"{files_dir}/app/text")
        said.append(str(error.value))

    threads = [threading.Thread(target=read) for _ in range(20)]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said) == 20
    assert f"does not show commit {A} of project app" in said[0]
    assert time.monotonic() - begun < 10
    assert seen.seen(f"{files_dir}/team/web/text").endswith(f"{A}/text")
