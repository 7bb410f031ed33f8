"""The git server of the tests, as the plain git command sees it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from tests.servers.git import BIG_FILES, NOT_FOUND, GitServer
from tests.servers.process import wait_for

SSH = (
    "ssh -F none -o BatchMode=yes -o IdentitiesOnly=yes -o ConnectTimeout=2"
    " -o LogLevel=ERROR -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
)
FILES = {"site.yml": b"- hosts: all\n", "files/app.conf": b"port = 1\n"}
WAYS: dict[str, Callable[[GitServer, str], str]] = {"ssh": GitServer.ssh_url, "https": GitServer.https_url}


def environment(server: GitServer, key: Path | None = None) -> dict[str, str]:
    return {
        **os.environ,
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_SSL_CAINFO": str(server.authority.certificate),
        "GIT_SSH_COMMAND": f"{SSH} -i {key or server.fleet.key}",
    }


def git(server: GitServer, *words: object, key: Path | None = None, seconds: float = 60) -> str:
    """What it says on both channels."""
    done = subprocess.run(
        ["git", *map(str, words)], env=environment(server, key), text=True, timeout=seconds, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return done.stdout


@pytest.mark.parametrize("way", WAYS)
def test_a_project_is_cloned_by_tag_and_rolled_forward_by_branch(
    git_server: GitServer, tmp_path: Path, way: str
) -> None:
    name, clone = f"ci-cd/{way}", tmp_path / "clone"
    git_server.create(name, {**FILES, "passwd": PurePosixPath("/etc/passwd")})
    url = WAYS[way](git_server, name)
    git(git_server, "clone", "--depth", "1", "--branch", "v1.0", url, clone)
    assert (clone / "version").read_text() == "v1.0\n"
    assert (clone / "files/app.conf").read_bytes() == FILES["files/app.conf"]
    assert (clone / "passwd").readlink() == Path("/etc/passwd")
    assert git(git_server, "ls-remote", "--symref", url, "HEAD").startswith("ref: refs/heads/main\t")

    before = git_server.commit_id(name, "develop")
    assert before == git_server.commit_id(name, "v1.0") != git_server.commit_id(name, "v1.1")
    commit = git_server.commit(name, "develop", {"files/app.conf": b"port = 2\n", "site.yml": None})
    git(git_server, "-C", clone, "fetch", "--depth", "1", "origin", "develop")
    git(git_server, "-C", clone, "checkout", "-q", "FETCH_HEAD")
    assert git(git_server, "-C", clone, "rev-parse", "HEAD").strip() == commit
    assert (clone / "files/app.conf").read_bytes() == b"port = 2\n"
    assert not (clone / "site.yml").exists()

    git(git_server, "-C", clone, "fetch", "--depth", "1", "origin", before)
    assert git(git_server, "-C", clone, "rev-parse", "FETCH_HEAD").strip() == before


def test_branches_are_moved_and_deleted(git_server: GitServer) -> None:
    git_server.create("ci-cd/moving")
    git_server.move_branch("ci-cd/moving", "main", "v1.0")
    git_server.move_branch("ci-cd/moving", "release", "v1.1")
    git_server.delete_branch("ci-cd/moving", "develop")
    said = git(git_server, "ls-remote", "--heads", git_server.https_url("ci-cd/moving"))
    assert {ref: commit for commit, ref in map(str.split, said.splitlines())} == {
        "refs/heads/main": git_server.commit_id("ci-cd/moving", "v1.0"),
        "refs/heads/release": git_server.commit_id("ci-cd/moving", "v1.1"),
    }


@pytest.mark.parametrize("way", WAYS)
def test_a_submodule_comes_from_the_same_server(git_server: GitServer, tmp_path: Path, way: str) -> None:
    git_server.create(f"parts-{way}/lib", FILES)
    git_server.create(f"ci-cd/with-{way}", submodules={"roles/lib": f"parts-{way}/lib"})
    git(git_server, "clone", "--recurse-submodules", WAYS[way](git_server, f"ci-cd/with-{way}"), tmp_path / "clone")
    assert (tmp_path / "clone/roles/lib/site.yml").read_bytes() == FILES["site.yml"]


def test_the_address_without_a_protocol_is_understood(git_server: GitServer) -> None:
    git_server.create("deep/er/project")
    command = f"{environment(git_server)['GIT_SSH_COMMAND']} -p {git_server.fleet.port}"
    url = f"git@{git_server.fleet.hosts()[0]}:deep/er/project.git"
    done = subprocess.run(
        ["git", "ls-remote", url], env={**environment(git_server), "GIT_SSH_COMMAND": command},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "refs/tags/v1.1" in done.stdout


def test_what_does_not_exist_or_is_not_allowed_is_answered_as_gitlab_does(
    git_server: GitServer, tmp_path: Path
) -> None:
    missing = git(git_server, "ls-remote", git_server.ssh_url("ci-cd/missing"))
    assert f"remote: ERROR: {NOT_FOUND}\n" in missing
    assert "fatal: Could not read from remote repository." in missing
    said = git(git_server, "ls-remote", git_server.ssh_url("plain/missing"))
    assert "fatal: 'plain/missing.git' does not appear to be a git repository" in said
    said = git(git_server, "ls-remote", git_server.https_url("ci-cd/missing"))
    assert f"remote: {NOT_FOUND}\n" in said
    assert "not found" in said.splitlines()[-1]

    git_server.create("ci-cd/there")
    said = git(git_server, "clone", "-b", "none", git_server.https_url("ci-cd/there"), tmp_path / "none")
    assert "Remote branch none not found" in said
    said = git(git_server, "ls-remote", git_server.https_url("ci-cd/there", "glpat-wrong"))
    assert "Authentication failed" in said
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)], check=True)
    said = git(git_server, "ls-remote", git_server.ssh_url("ci-cd/there"), key=other)
    assert "Permission denied (publickey" in said
    git(git_server, "init", "-q", tmp_path / "own")
    said = git(git_server, "-C", tmp_path / "own", "push", git_server.ssh_url("ci-cd/there"), ":main")
    assert "remote: ERROR: git-receive-pack is not allowed" in said


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("no_banner", "timed out during banner exchange"),
        ("refused", "Connection refused"),
        ("blackhole", "Connection timed out"),
        ("unreachable", "No route to host"),
        ("no_auth", "Permission denied"),
    ],
)
def test_sick_hosts_are_sick_git_servers(git_server: GitServer, kind: str, words: str) -> None:
    assert words in git(git_server, "ls-remote", git_server.ssh_url("ci-cd/any", kind))


def test_a_host_that_hangs_after_the_login_says_nothing(git_server: GitServer) -> None:
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        git(git_server, "ls-remote", git_server.ssh_url("ci-cd/any", "hang"), seconds=2)
    assert b"fatal" not in (caught.value.stdout or b"")


@pytest.mark.parametrize("way", WAYS)
def test_a_clone_hangs_in_the_middle_of_its_pack_until_it_is_let_go(
    git_server: GitServer, tmp_path: Path, way: str
) -> None:
    name = f"ci-cd/stalling-{way}"
    git_server.create(name, {"random": os.urandom(1 << 20)})
    git_server.stall(name)
    command = ["git", "clone", "--progress", WAYS[way](git_server, name), str(tmp_path / "clone")]
    log = tmp_path / "log"
    with log.open("wb") as output, subprocess.Popen(command, env=environment(git_server), stderr=output) as clone:
        try:
            wait_for("the first objects", lambda: "Receiving objects" in log.read_text(), 60)
            with pytest.raises(subprocess.TimeoutExpired):
                clone.wait(1)
            git_server.go_on(name)
            assert clone.wait(60) == 0
        finally:
            clone.kill()
    assert (tmp_path / "clone/random").stat().st_size == 1 << 20


def test_a_big_project_has_200_mib_in_many_objects(git_server: GitServer, tmp_path: Path) -> None:
    url = git_server.ssh_url(git_server.big())
    git(git_server, "clone", "-q", "--bare", "--filter=blob:none", url, tmp_path / "big")  # without their contents
    assert git(git_server, "-C", tmp_path / "big", "ls-tree", "main:big").count("blob") == BIG_FILES
    said = git(git_server, "-C", git_server.root / f"{git_server.big()}.git", "count-objects", "-v")
    sizes = dict(line.split(": ") for line in said.splitlines())
    assert int(sizes["size-pack"]) > 1024 * BIG_FILES
