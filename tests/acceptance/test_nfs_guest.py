"""The kernel's NFS client, in a guest of its own: what an engine on another machine sees of the share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.fleet import Fleet
from tests.servers.nfs import NfsServer
from tests.servers.nfs_guest import NfsGuest

MOUNT_POINT = "/mnt/files"
SCRIPT = """set -eu
cat {mount}/project/file
echo not >{mount}/project/file || echo "not to be written"
echo ready
read -r
cat {mount}/project/file
{python} -c 'import sys, ansible.executor.task_queue_manager, asyncssh; print(sys.prefix)'
ssh -F none -i {key} -p {port} -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \\
    -o LogLevel=ERROR {user}@{host} 'id -un; echo $SSH_CONNECTION' </dev/null
echo hi >/tmp/of-the-guest
echo pause
read -r
timeout -s KILL 5 cat {mount}/old/file || echo "still waiting, and killed"
echo kill
read -r
cat {mount}/old/file || echo "an error"
"""


@pytest.fixture
def share(tmp_path: Path) -> Path:
    for version in ("old", "new"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "file").write_text(f"{version}\n")
    (tmp_path / "project").symlink_to("old")
    return tmp_path


@pytest.fixture
def guest(server_directory: Path, share: Path) -> Iterator[NfsGuest]:
    for name in ("server", "guest"):
        (server_directory / name).mkdir()
    server = NfsServer(server_directory / "server", {"share": share})
    guest = NfsGuest(server_directory / "guest", server, MOUNT_POINT, "ro,soft,timeo=20,retrans=1,lookupcache=none")
    try:
        server.start()
        yield guest
    finally:
        guest.stop()
        server.stop()


def test_a_guest_reads_the_share_and_reaches_the_fleet_with_the_programs_of_this_machine(
    guest: NfsGuest, share: Path, fleet: Fleet
) -> None:
    host = fleet.hosts("healthy", 200)[199]
    guest.start(
        SCRIPT.format(
            mount=MOUNT_POINT, python=sys.executable, key=fleet.key, port=fleet.port, user=fleet.user, host=host
        )
    )
    guest.wait_for_line("ready")
    (share / "next").symlink_to("new")
    (share / "next").rename(share / "project")
    guest.tell("go on")
    guest.wait_for_line("pause")
    guest.server.pause()
    guest.tell("go on")
    guest.wait_for_line("kill")
    guest.server.kill()
    guest.tell("go on")
    status, said = guest.result()
    assert status == 0, said
    lines = [line for line in said.splitlines() if "Read-only file system" not in line]
    assert lines[:5] == ["old", "not to be written", "ready", "new", sys.prefix]
    assert lines[5] == fleet.user
    assert f" {host} {fleet.port}" in lines[6]
    assert "still waiting, and killed" in lines  # soft: its time limits do not end this
    assert lines[-1] == "an error"
    assert not Path("/tmp/of-the-guest").exists()
