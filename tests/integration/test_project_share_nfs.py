"""FILES_DIR as distribute writes it and the shipped configuration of nfs-ganesha exports it, seen by a client."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract import project_files
from distribute.project_tree import Tree
from tests.project_share import A, B, publish
from tests.servers.fixtures import while_started
from tests.servers.nfs import NfsServer
from tests.servers.process import program


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path / "files")
    tree.mirror("app").mkdir()
    (tree.mirror("app") / "HEAD").write_text("of the mirror")
    publish(tree, "app", A, {"file": "of a"})
    return tree


@pytest.fixture
def server(server_directory: Path, tree: Tree) -> Iterator[NfsServer]:
    yield from while_started(NfsServer(server_directory, {"share": tree.files_dir}, as_shipped=True))


def client(server: NfsServer, command: str, path: str, *words: str | Path) -> str:
    """What the command says about the path of the share. It is root, as an engine may be."""
    argv = [program(command, "libnfs-utils"), *words, server.url(f"share/{path}")]
    result = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    return result.stdout + result.stderr


def seen(server: NfsServer, commit: str) -> list[str]:
    """A file of the version, and its mark."""
    place = Path(project_files.VERSIONS, "app")
    return [client(server, "nfs-cat", str(place / path)) for path in (f"{commit}/file", f".{commit}")]


def test_a_client_sees_each_version_with_its_mark_and_the_link_as_soon_as_distribute_has_written_them(
    server: NfsServer, tree: Tree
) -> None:
    mark = project_files.SHARE_MARK
    assert client(server, "nfs-cat", mark) == (tree.files_dir / mark).read_text()
    assert client(server, "nfs-cat", "app/file") == "of a"
    assert seen(server, A) == ["of a", A]
    assert all("NFS4ERR_NOENT" in text for text in seen(server, B)), "looked for before it is there"
    publish(tree, "app", B, {"file": "of b"})
    assert client(server, "nfs-cat", "app/file") == "of b"
    assert seen(server, B) == ["of b", B]
    assert seen(server, A) == ["of a", A], "who is pinned to it reads on"
    tree.remove_version("app", A)
    assert all("NFS4ERR_NOENT" in text for text in seen(server, A))
    publish(tree, "app", A, {"file": "of a, again"})
    assert client(server, "nfs-cat", "app/file") == "of a, again"
    assert seen(server, A) == ["of a, again", A]


def test_a_client_changes_nothing_and_does_not_see_the_mirrors(server: NfsServer, tree: Tree) -> None:
    before = sorted(tree.files_dir.rglob("*"))
    for path in ("new", "app/new", ".locks/app", f".versions/app/.{B}"):
        assert "NFS4ERR_ROFS" in client(server, "nfs-cp", path, tree.files_dir / "app/file"), path
    assert sorted(tree.files_dir.rglob("*")) == before
    assert client(server, "nfs-cat", "app/file") == "of a"
    for command, path in (("nfs-ls", ".mirrors"), ("nfs-cat", ".mirrors/app.git/HEAD")):
        assert "NFS4ERR_ACCESS" in client(server, command, path), path
    assert client(server, "nfs-ls", ".locks").split()[-1] == "app", "names of projects, which are no secret"
