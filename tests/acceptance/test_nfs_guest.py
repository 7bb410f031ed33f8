"""The kernel's NFS client, in a guest of its own: what an engine on another machine sees of the share.

The server exports it as conf/nfs/ganesha.conf says, and the guest mounts it as conf/nfs/mnt.mount says, but for the
time after which a request fails.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract import project_files
from distribute.project_tree import Tree
from execute_engine.job import Job
from tests.project_share import A, B, C, publish
from tests.runner_process import make_job
from tests.servers.fleet import Fleet
from tests.servers.nfs import NfsServer
from tests.servers.nfs_guest import NfsGuest

# A line is a path, which is looked at, or a job, which a real runner runs; each is answered by a line.
LOOK_AND_RUN = """
import json, sys
from pathlib import Path
from execute_engine.job import Job
from tests.runner_process import preloaded
with preloaded(Path('/tmp/runners')) as runners:
    print('loaded', flush=True)
    for line in map(str.strip, sys.stdin):
        if line == 'end':
            break
        elif line.startswith('{'):
            runner = runners.start(Job.from_json(json.loads(line)))
            code = runner.result()
            print(json.dumps([code, runner.seen]), flush=True)
        else:
            print(Path(line).read_text() if Path(line).exists() else 'missing', flush=True)
"""
SCRIPT = """set -u
echo not >{files}/app/file || echo "not to be written"
{python} -c {look_and_run}
echo pause
read -r
timeout -s KILL 5 cat {files}/.versions/app/{a}/after || echo "still waiting, and killed"
echo kill
read -r
cat {files}/.versions/app/{b}/after || echo "an error"
"""


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path / "files")
    for commit in (A, B):
        publish(tree, "app", commit, files_of(commit))
    return tree


@pytest.fixture
def guest(server_directory: Path, tree: Tree) -> Iterator[NfsGuest]:
    server_directory.chmod(0o755)
    for name in ("server", "guest"):
        (server_directory / name).mkdir()
    server = NfsServer(server_directory / "server", {"share": tree.files_dir}, as_shipped=True)
    guest = NfsGuest(server_directory / "guest", server, timeo=20)  # as shipped a read fails after 30 to 160 s
    try:
        server.start()
        yield guest
    finally:
        guest.stop()
        server.stop()


@pytest.fixture
def copied(server_directory: Path) -> Path:
    """A folder that the hosts, which are this machine, may write to."""
    folder = server_directory / "host"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


def files_of(commit: str) -> dict[str, str]:
    return {"file": f"of {commit}", "after": "not read before the server is gone"}


def test_an_engine_on_another_machine_copies_the_versions_of_its_tasks_from_the_share(
    guest: NfsGuest, tree: Tree, fleet: Fleet, copied: Path
) -> None:
    files = Path(guest.mount_point)

    def mark(project: str) -> str:
        return str(project_files.version_mark(files, project, C))

    def copy(project: str, commit: str) -> str:
        """What the host has after the task, which sees this version of the project."""
        target = copied / f"{project}-{commit}"
        args = {"module": "copy", "args": f"src={project}/file dest={target}"}
        job: Job = make_job(fleet.hosts("healthy", 200)[199:], fleet.port, fleet.key, files, **args)
        answer = guest.ask(json.dumps({**job.to_json(), "projects": {project: commit}}))
        code, events = json.loads(answer)
        assert code == 0, answer
        assert [event["status"] for event in events if event["event"] == "host_done"] == ["success"], answer
        return target.read_text()

    guest.start(SCRIPT.format(python=sys.executable, files=files, a=A, b=B, look_and_run=shlex.quote(LOOK_AND_RUN)))
    guest.wait_for_line("loaded")
    assert "not to be written" in guest.output()
    assert guest.ask(f"{files}/app/file") == f"of {B}"
    assert copy("app", A) == f"of {A}", "whatever the link shows"

    for project in ("app", "web"):  # of web there is nothing yet
        assert guest.ask(mark(project)) == "missing"
    for project in ("app", "web"):
        publish(tree, project, C, files_of(C))
    assert guest.ask(mark("app")) == C, "though it was looked for a moment ago"
    assert copy("web", C) == f"of {C}"

    guest.tell("end")
    guest.wait_for_line("pause")
    guest.server.pause()
    guest.tell("go on")
    guest.wait_for_line("kill")
    guest.server.kill()
    guest.tell("go on")
    status, said = guest.result()
    assert status == 0, said
    assert "still waiting, and killed" in said.splitlines()
    assert said.splitlines()[-1] == "an error"
    assert not Path("/tmp/runners").exists(), "what the guest writes is its own"
