"""What the second command of a connection ends on the host: its siblings there, and never the host's own services.

Each case is a host of its own: a pid namespace with an init and a service, a child of init as daemons are. A copy of
the shell, named like an ssh server, plays the connection's process. Needs root.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from execute_engine.ssh.group_kill import AS_ROOT, AS_USER

SERVICE, SIBLING = "sleep 1111", "sleep 2222"
TAKES_IN_ORPHANS = """
import ctypes, subprocess, sys, time
PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
subprocess.run(sys.argv[1:])
time.sleep(1000)
"""


def left_on_the_host(directory: Path, command: str, *, dies: bool, server: str, init: str, below: str) -> set[str]:
    """What of service and sibling still runs when the command has ended.

    server and init are names of processes; below is what the server is started by, if not by init itself. If it dies,
    the command is held until it has.
    """
    for name in (server, init):
        shutil.copy("/bin/sh", directory / name)
    (directory / "takes_in_orphans.py").write_text(TAKES_IN_ORPHANS)
    held = 'while kill -0 "$1" 2>/dev/null; do sleep 0.05; done' if dies else ""
    (directory / "command").write_text(f"{held}\nsh -c {shlex.quote(command)}\ntouch done\n")
    session = f"setsid {SIBLING} & setsid sh ./command $$ & {'exit' if dies else 'wait'}"
    (directory / "init").write_text(f"""
        setsid {SERVICE} &
        {below} ./{server} -c {shlex.quote(session)} &
        until test -e done; do sleep 0.05; done
        ps -eo args""")
    namespace = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", f"./{init}", "./init"]
    listed = subprocess.run(namespace, cwd=directory, capture_output=True, text=True, check=True, timeout=60).stdout
    return {SERVICE, SIBLING}.intersection(listed.splitlines())


@pytest.mark.parametrize("command", [AS_USER, AS_ROOT], ids=["user", "root"])
@pytest.mark.parametrize("server", ["sshd", "sshd-session", "dropbear"])
def test_what_the_connection_runs_is_ended(tmp_path: Path, server: str, command: str) -> None:
    assert left_on_the_host(tmp_path, command, dies=False, server=server, init="systemd", below="") == {SERVICE}


@pytest.mark.parametrize("command", [AS_USER, AS_ROOT], ids=["user", "root"])
@pytest.mark.parametrize(
    ("init", "below"),
    [
        ("systemd", ""),
        ("sshd", ""),  # in a container
        ("systemd", f"{sys.executable} takes_in_orphans.py"),
    ],
    ids=["init", "init-is-sshd", "subreaper"],
)
def test_nothing_is_ended_when_the_connection_has_gone(tmp_path: Path, init: str, below: str, command: str) -> None:
    """Its children have then the parent of every service, or another process that takes in orphans."""
    left = left_on_the_host(tmp_path, command, dies=True, server="sshd", init=init, below=below)
    assert left == {SERVICE, SIBLING}
