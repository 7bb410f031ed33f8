"""The NFS server of the tests, as a client in user space sees it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.fixtures import while_started
from tests.servers.nfs import NfsServer
from tests.servers.process import program


@pytest.fixture
def share(tmp_path: Path) -> Path:
    for version in ("old", "new"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "file").write_text(version)
    (tmp_path / "project").symlink_to("old")
    return tmp_path


@pytest.fixture
def server(server_directory: Path, share: Path) -> Iterator[NfsServer]:
    yield from while_started(NfsServer(server_directory, {"share": share}))


def nfs(command: str, *words: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
    argv = [program(command, "libnfs-utils"), *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=seconds, check=False)


def test_a_client_reads_and_writes_and_sees_a_link_that_was_replaced(server: NfsServer, share: Path) -> None:
    assert {line.split()[-1] for line in nfs("nfs-ls", server.url("share")).stdout.splitlines()} >= {"old", "new"}
    assert nfs("nfs-cat", server.url("share/project/file")).stdout == "old"
    (share / "next").symlink_to("new")
    (share / "next").rename(share / "project")
    assert nfs("nfs-cat", server.url("share/project/file")).stdout == "new"
    nfs("nfs-cp", str(share / "old/file"), server.url("share/copied"))
    assert (share / "copied").read_text() == "old"


def test_a_share_for_reading_refuses_to_be_written(server: NfsServer, share: Path) -> None:
    server.stop()
    server.start(read_only=True)
    assert nfs("nfs-cat", server.url("share/old/file")).stdout == "old"
    assert "NFS4ERR_ROFS" in nfs("nfs-cp", str(share / "old/file"), server.url("share/copied")).stderr
    assert not (share / "copied").exists()


def test_a_paused_server_lets_clients_wait_and_a_killed_one_refuses_them(server: NfsServer) -> None:
    server.pause()
    with pytest.raises(subprocess.TimeoutExpired):
        nfs("nfs-cat", server.url("share/old/file"), seconds=2)
    server.resume()
    assert nfs("nfs-cat", server.url("share/old/file")).stdout == "old"
    port = server.port
    server.kill()
    assert "Failed to mount" in nfs("nfs-cat", server.url("share/old/file")).stderr
    server.start()
    assert server.port == port
    assert nfs("nfs-cat", server.url("share/old/file")).stdout == "old"
