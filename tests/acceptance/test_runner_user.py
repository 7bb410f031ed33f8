"""[Exec_Engine] RUNNER_USER through a real engine: runners are somebody else, and work, and end, as before."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from contract import processes
from contract.config import load
from execute_engine import runner_user
from tests.daemons import Services
from tests.servers.fleet import Fleet
from tests.servers.process import wait_for

USER = "nobody"  # every machine has one
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else: run the tests as root")


def uids(pid: int) -> set[str]:
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("Uid:"))
    return set(line.split()[1:])


def readable_python(directory: Path) -> list[str]:
    """A command that runs another where everybody can read this Python, which may lie in root's home."""
    if not processes.unreadable_for(processes.user(USER), [Path(os.__file__)]):
        return []
    home = Path.home()
    assert Path(os.__file__).is_relative_to(home), "put Python where everybody can read it"
    script = f"""set -e
mkdir {directory}/python; mount --bind {sys.base_prefix} {directory}/python
mount -t tmpfs -o mode=755 tmpfs {home}; mkdir -p {sys.base_prefix}
mount --move {directory}/python {sys.base_prefix}; exec "$@" """
    return ["unshare", "--mount", "sh", "-c", script, "sh"]


@needs_root
@pytest.mark.parametrize("backend", ["embedded"], indirect=True)
@pytest.mark.parametrize("connection", ["asyncssh", "openssh"])
def test_runners_are_another_user_and_everything_goes_on_as_before(
    services: Services, fleet: Fleet, server_directory: Path, connection: str
) -> None:
    user = processes.user(USER)
    server_directory.chmod(0o755)
    key, share = server_directory / "key", server_directory / "files"
    share.mkdir(mode=0o755)
    (share / "shared.yml").write_text("- command: echo shared\n")
    shutil.copy(fleet.key, key)
    os.chown(key, user.uid, user.gid)
    config = services.backend.config_file(
        Exec_Engine={"RUNNER_USER": USER, "FILES_DIR": share},
        Distribute={"FILES_DIR": share},
        Ansible={"SSH_KEY_FILE": key, "CONNECTION": connection},
    )
    services.start_distribute(config)
    daemon = services.start_engine(config, within=readable_python(server_directory))
    hosts = fleet.hosts(count=2)

    hung = services.submit_adhoc(hosts, "sleep 600", timeout=8)
    runner = next(iter(wait_for("the runner", lambda: services.processes("execute-engine: runner"))))
    wait_for("its hosts to run", lambda: services.task(hung)["counts"]["queued"] == 0)
    assert Path(f"/proc/{runner}").exists(), [(h["status"], h["msg"], h["blame"]) for h in services.hosts(hung)]
    assert uids(runner) == {str(user.uid)}
    assert {uid for pid in services.processes("execute-engine: guard") for uid in uids(pid)} == {"0"}
    assert services.wait_task(hung)["counts"]["timeout"] == 2, services.hosts(hung)
    wait_for("the runner to be gone", lambda: not services.processes("execute-engine: runner"))

    stopped = services.submit_adhoc(hosts, "sleep 600")
    runner = next(iter(wait_for("the runner", lambda: services.processes("execute-engine: runner"))))
    os.kill(runner, signal.SIGSTOP)  # it cannot end by itself any more
    services.api(f"/tasks/{stopped}/cancel/", {})
    assert services.wait_task(stopped)["counts"]["cancelled"] == 2, services.hosts(stopped)
    wait_for("the guard to have killed it", lambda: not Path(f"/proc/{runner}").exists())

    fine = services.submit_adhoc(hosts, "id -un")
    text = f"- hosts: all\n  tasks:\n    - copy: {{content: x, dest: {share}/copied}}\n    - import_tasks: shared.yml\n"
    played = services.submit_playbook(hosts, text, become=True)
    assert services.wait_task(fine)["counts"]["success"] == 2, services.hosts(fine)
    assert services.each(fine, "stdout") == ["root", "root"]
    assert services.wait_task(played)["counts"]["success"] == 2, services.hosts(played)

    state = services.backend.directory / "engine-1/state"
    assert processes.unreadable_for(user, [state / "spool", config]) == [state / "spool", config]
    (incarnation,) = services.live_incarnations("engine-1")
    assert not list(Path("/tmp").glob(f"execute-engine-runner-{incarnation}-*"))
    assert "RUNNER_USER" not in daemon.log(100_000)


@needs_root
def test_a_user_that_does_not_exist_or_cannot_read_the_key_stops_the_start(tmp_path: Path) -> None:
    config, key = tmp_path / "server.conf", tmp_path / "key"
    key.touch(mode=0o600)
    for user, key_file, reason in (
        ("no-such-user", "", "expected a user of this machine, found no-such-user"),
        (USER, key, f"{USER} cannot read"),
    ):
        config.write_text(f"[Exec_Engine]\nRUNNER_USER = {user}\n[Ansible]\nSSH_KEY_FILE = {key_file}\n")
        command = [sys.executable, "-m", "execute_engine", "--config", str(config)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (ended.returncode, reason in ended.stderr) == (78, True), ended.stderr


def test_without_the_right_to_it_the_key_is_left_alone_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "server.conf"
    file.write_text(f"[Exec_Engine]\nRUNNER_USER = {USER}\n")
    config = load(file, "execute_engine")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    runner_user.check(config, file)
    (record,) = caplog.records
    assert "must be started as root" in record.getMessage()
    assert runner_user.of(config.engine) == ""
