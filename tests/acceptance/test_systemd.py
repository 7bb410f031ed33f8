"""Both services under a real systemd as process 1: installed by script/install, run as the shipped units say.

One box for all tests; each leaves the services installed and well, until the last ones take them away.
"""

from __future__ import annotations

import os
import re
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract import processes
from tests.acceptance.installed import DISTRIBUTE, ENGINE, PREFIX, RELEASE, ROOT, STATE, Installed
from tests.servers.fleet import Fleet
from tests.servers.process import ServerMissing, free_ports, wait_for
from tests.servers.systemd_box import SystemdBox

PLAYBOOK = """
- hosts: target_hosts
  tasks:
    - {name: template, template: {src: greeting.j2, dest: "/tmp/ee-systemd-{{ inventory_hostname }}", mode: "0644"}}
    - {name: read it, command: "cat /tmp/ee-systemd-{{ inventory_hostname }}", register: said, become: true}
    - {name: look, assert: {that: said.stdout == 'hello ' + inventory_hostname}}
    - {name: tidy, file: {path: "/tmp/ee-systemd-{{ inventory_hostname }}", state: absent}}
"""
FILES = {"greeting.j2": "hello {{ inventory_hostname }}", "hello.sh": "#!/bin/sh\necho script $1\n"}


@pytest.fixture(scope="module")
def box() -> Iterator[SystemdBox]:
    with tempfile.TemporaryDirectory(prefix="ee-", ignore_cleanup_errors=True) as directory:
        box = SystemdBox(Path(directory))
        try:
            box.start()
        except ServerMissing as exc:
            pytest.skip(str(exc))
        try:
            yield box
        finally:
            box.stop()


@pytest.fixture(scope="module")
def first_installed(box: SystemdBox, fleet: Fleet) -> Installed:
    installed = Installed(box, fleet)
    installed.bring_checkout()
    installed.install()
    installed.configure()
    installed.install("--here", script=f"{PREFIX}/script/install")
    box.run("systemctl", "enable", DISTRIBUTE, ENGINE)
    installed.start()
    return installed


@pytest.fixture
def installed(first_installed: Installed) -> Installed:
    """Installed, enabled and started, whatever the test before has left."""
    if not first_installed.are_well():
        first_installed.configure()
        first_installed.start()
    return first_installed


@pytest.fixture(autouse=True)
def what_went_wrong(request: pytest.FixtureRequest) -> Iterator[None]:
    """The end of both journals, shown where a test fails."""
    yield
    if "installed" in request.fixturenames and "box" in request.fixturenames:
        box: SystemdBox = request.getfixturevalue("box")
        if box.process.alive:
            for service in (DISTRIBUTE, ENGINE):
                print(f"--- {service}\n{box.journal(service)[-4000:]}")


def status(box: SystemdBox, service: str) -> str:
    return box.run("systemctl", "status", "--no-pager", "--full", service, check=False)


def limits(pid: int, file: str = "status") -> dict[str, str]:
    lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def main_pid(box: SystemdBox, service: str) -> int:
    """As this machine counts."""
    (pid,) = box.processes(service, f"{service}: supervisor")
    return pid


def test_the_units_are_as_they_should_be_and_shut_in(installed: Installed, box: SystemdBox) -> None:
    units = [f"/etc/systemd/system/{service}.service" for service in (ENGINE, DISTRIBUTE)]
    assert box.run("systemd-analyze", "verify", *units) == ""
    for service, most in ((ENGINE, 4.5), (DISTRIBUTE, 3.0)):
        report = box.run("systemd-analyze", "security", service)
        (exposure,) = re.findall(r"Overall exposure level for \S+: ([0-9.]+)", report)
        assert float(exposure) <= most, report
        for pid in box.processes(service):
            state = limits(pid)
            assert (state["CapEff"].strip("0"), state["CapBnd"].strip("0"), state["NoNewPrivs"]) == ("", "", "1"), state
            assert state["Uid"].split()[0] != "0"
    # 90 s of the drain, 90 for what comes after it, 30 to spare.
    assert box.show(ENGINE, "TimeoutStopUSec") == "3min 30s"
    assert box.run_any("setpriv", "--reuid", "nobody", "--clear-groups", "ls", f"{PREFIX}/conf").returncode != 0


def test_status_is_active_and_says_what_is_done(installed: Installed, box: SystemdBox) -> None:
    for service, text in ((ENGINE, "slots"), (DISTRIBUTE, "leads")):
        wait_for("the status", lambda service=service, text=text: text in box.show(service, "StatusText"))  # type: ignore[misc]
        assert "Active: active (running)" in status(box, service)
        assert box.show(service, "UnitFileState") == "enabled"


@pytest.mark.parametrize("connection", ["asyncssh", "openssh"])
@pytest.mark.parametrize("login", ["key", "password"])
def test_ansible_works_inside_the_sandbox(
    installed: Installed, box: SystemdBox, fleet: Fleet, connection: str, login: str
) -> None:
    ansible: dict[str, object] = {"CONNECTION": connection}
    if login == "password":
        ansible |= {"SSH_USER": fleet.password_user, "SSH_PASSWORD": fleet.password, "SSH_KEY_FILE": ""}
        ansible |= {"SSH_SUDO_PASSWORD": fleet.password}
    share = box.root / f"{STATE}/files".lstrip("/")
    for name, text in FILES.items():
        (share / name).write_text(text)
        (share / name).chmod(0o644)
    installed.configure(Ansible=ansible)
    installed.start(ENGINE)
    hosts = fleet.hosts(count=3)
    target = f"/tmp/ee-systemd-{connection}-{login}"
    login_user = fleet.password_user if login == "password" else fleet.user
    tasks = {
        installed.submit_adhoc(hosts, "id -un"): "root",
        installed.submit_adhoc(hosts, "id -un", become=False): login_user,
        installed.submit_adhoc(hosts, "hello.sh there", module="script"): "script there",
        installed.submit_adhoc(hosts, f"src=greeting.j2 dest={target}", module="copy"): None,
        installed.submit_playbook(hosts, PLAYBOOK): None,
    }
    for task_id, output in tasks.items():
        assert installed.wait_task(task_id)["counts"]["success"] == 3, installed.hosts(task_id)
        for said in installed.each(task_id, "stdout") if output else ():
            assert said.strip().splitlines()[0] == output
    Path(target).unlink()


def test_runner_user_works_with_the_drop_in_for_it(installed: Installed, box: SystemdBox, fleet: Fleet) -> None:
    user = processes.user("nobody")
    key = box.root / "etc/fleet-key"
    key.write_text(fleet.key.read_text())
    key.chmod(0o600)
    os.chown(key, user.uid, user.gid)
    installed.configure(Exec_Engine={"RUNNER_USER": user.name}, Ansible={"SSH_KEY_FILE": "/etc/fleet-key"})
    with installed.drop_in(ENGINE, (ROOT / "conf/systemd/runner-user.conf").read_text()):
        installed.start(ENGINE)
        hung = installed.submit_adhoc(fleet.hosts("hang"), timeout=6)
        ((runner, _),) = wait_for("the runner", lambda: box.processes(ENGINE, "execute-engine: runner").items())
        wait_for("it to be nobody", lambda: limits(runner)["Uid"].split()[0] == str(user.uid))
        assert limits(runner)["CapEff"].strip("0") == ""
        fine = installed.submit_adhoc(fleet.hosts(count=2), "id -un")
        assert installed.wait_task(fine)["counts"]["success"] == 2, installed.hosts(fine)
        assert installed.wait_task(hung)["counts"]["timeout"] == 1, installed.hosts(hung)
        wait_for("the runners to be gone", lambda: not box.processes(ENGINE, "execute-engine: runner"))
        box.run("systemctl", "stop", ENGINE)
    box.run("chown", "-R", "execute-engine:", STATE)
    installed.configure()
    installed.start(ENGINE)


def test_a_reload_goes_on(installed: Installed, box: SystemdBox) -> None:
    before = {service: box.processes(service, f"{service}: ") for service in (ENGINE, DISTRIBUTE)}
    for service in before:
        box.run("systemctl", "reload", service)
        wait_for("its end", lambda service=service: box.show(service, "ActiveState") == "active")  # type: ignore[misc]
    assert {service: box.processes(service, f"{service}: ") for service in before} == before


def test_a_stop_drains_and_leaves_no_process(installed: Installed, box: SystemdBox, fleet: Fleet) -> None:
    """Also where the unit is older than a configuration that asks for more time."""
    with installed.drop_in(ENGINE, "TimeoutStopSec=2"):
        task_id = installed.submit_adhoc(fleet.hosts(count=2), "sleep 8; echo done")
        installed.wait_running(task_id, 2)
        box.run("systemctl", "stop", ENGINE)
    assert installed.wait_task(task_id)["counts"]["success"] == 2
    assert installed.each(task_id, "stdout") == ["done", "done"]
    assert box.show(ENGINE, "Result") == "success"
    assert box.processes(ENGINE) == {}
    installed.start(ENGINE)


@pytest.mark.parametrize(
    ("service", "title"),
    [
        (ENGINE, "supervisor"),
        (ENGINE, "consumer"),
        (ENGINE, "launcher"),
        (ENGINE, "guard"),
        (ENGINE, "runner"),
        (DISTRIBUTE, "supervisor"),
        (DISTRIBUTE, "web"),
        (DISTRIBUTE, "web worker"),
        (DISTRIBUTE, "dispatcher"),
    ],
)
def test_who_is_killed_comes_back(
    installed: Installed, box: SystemdBox, fleet: Fleet, service: str, title: str
) -> None:
    running = installed.submit_adhoc(fleet.hosts(count=1), "sleep 3", timeout=20)
    installed.wait_running(running)
    restarts = int(box.show(service, "NRestarts"))
    killed = next(
        pid for pid, line in box.processes(service).items() if line.rstrip().endswith(title) or f"{title} " in line
    )
    os.kill(killed, signal.SIGKILL)
    wait_for("it to be gone", lambda: not Path(f"/proc/{killed}").exists())
    wait_for(
        "it to be back",
        lambda: box.processes(service, f"{service}: {title if title not in ('guard', 'runner') else 'launcher'}"),
    )
    installed.wait_until_well()
    installed.wait_task(running)
    assert all(host["status"] in ("success", "lost") for host in installed.hosts(running))
    after = installed.submit_adhoc(fleet.hosts(count=1), "echo hi")
    assert installed.wait_task(after)["counts"]["success"] == 1
    assert int(box.show(service, "NRestarts")) == restarts + (title == "supervisor")


def test_children_that_hang_are_ended_by_their_supervisor(installed: Installed, box: SystemdBox) -> None:
    hanging = {ENGINE: "consumer", DISTRIBUTE: "dispatcher"}
    restarts = {service: box.show(service, "NRestarts") for service in hanging}
    pids = {service: next(iter(box.processes(service, title))) for service, title in hanging.items()}
    for pid in pids.values():
        os.kill(pid, signal.SIGSTOP)
    for service, title in hanging.items():
        wait_for("a new one", lambda s=service, t=title: box.processes(s, t).keys() - {pids[s]})  # type: ignore[misc]
        assert "not heard from for 30 s" in box.journal(service)
    installed.wait_until_well()
    assert {service: box.show(service, "NRestarts") for service in hanging} == restarts


@pytest.mark.parametrize("service", [ENGINE, DISTRIBUTE])
def test_a_supervisor_that_hangs_is_ended_by_the_watchdog(installed: Installed, box: SystemdBox, service: str) -> None:
    assert box.show(service, "WatchdogUSec") == "45s"
    with installed.drop_in(service, "WatchdogSec=2"):
        installed.start(service)
        restarts, former = int(box.show(service, "NRestarts")), box.processes(service)
        os.kill(main_pid(box, service), signal.SIGSTOP)
        wait_for("the restart", lambda: int(box.show(service, "NRestarts")) == restarts + 1)
        assert "Watchdog timeout" in box.journal(service)
        installed.wait_until_well()
        assert not former.keys() & box.processes(service).keys()
    installed.start(service)


@pytest.mark.parametrize("service", [ENGINE, DISTRIBUTE])
def test_a_broken_configuration_is_told_of_once_and_not_tried_again(
    installed: Installed, box: SystemdBox, service: str
) -> None:
    installed.configure(Exec_Engine={"SLOTS": "many"}, Distribute={"WORKERS": "few"})
    assert box.run_any("systemctl", "restart", service).returncode != 0
    expect_given_up(box, service, "[Exec_Engine] SLOTS: expected a whole number", "[Distribute] WORKERS: expected")
    installed.configure()
    installed.start(service)


def expect_given_up(box: SystemdBox, service: str, *texts: str) -> None:
    """Failed with 78, all texts in its status, and no second try in the time of more than one RestartSec."""
    assert box.show(service, "ActiveState") == "failed"
    said = status(box, service)
    for text in texts:
        assert text in said, said
    starts = box.journal(service).count("Starting")
    time.sleep(3)  # a second try would come after RestartSec=2
    assert (box.show(service, "ActiveState"), box.show(service, "ExecMainStatus")) == ("failed", "78")
    assert box.journal(service).count("Starting") == starts


def test_without_its_venv_a_unit_names_the_script_in_one_line(installed: Installed, box: SystemdBox) -> None:
    box.run("mv", f"{PREFIX}/.venv", f"{PREFIX}/.venv.away")
    for service in (ENGINE, DISTRIBUTE):
        line = f"{service} is not installed: run {PREFIX}/script/install --here"
        assert box.run_any("systemctl", "restart", service).returncode != 0
        assert box.journal(service).splitlines().count(line) == 1
        expect_given_up(box, service, line)
    box.run("mv", f"{PREFIX}/.venv.away", f"{PREFIX}/.venv")
    installed.start()


def test_it_is_ready_before_kafka_and_mysql_are_up_and_says_what_it_waits_for(
    installed: Installed, box: SystemdBox
) -> None:
    kafka, mysql = free_ports(2)
    installed.configure(
        Kafka_Cluster={"BOOTSTRAP_SERVERS": f"127.0.0.1:{kafka}"},
        Fil_EXEC_MySQL={"IP": "127.0.0.1", "PORT": mysql, "USER": "ee", "PASSWORD": "ee-ee-ee-ee"},
        Exec_Engine={"FILES_DIR": f"{STATE}/files"},
    )
    for service in (DISTRIBUTE, ENGINE):
        box.run("systemctl", "restart", service)
        assert box.show(service, "ActiveState") == "active"
        wait_for("the reason", lambda service=service: "the database" in box.show(service, "StatusText"))  # type: ignore[misc]
    installed.configure()
    installed.start()


def test_a_dead_share_holds_up_no_start_and_a_later_one_is_seen(installed: Installed, box: SystemdBox) -> None:
    assert box.run("systemctl", "stop", ENGINE) == ""
    helper = box.root / "usr/sbin/mount.nfs4"  # what mount(8) starts, and what hangs with a server that does not answer
    helper.write_text("#!/bin/sh\nexec sleep 600\n")
    helper.chmod(0o755)
    box.run("cp", f"{PREFIX}/conf/nfs/mnt.mount", "/etc/systemd/system/")
    box.run("mkdir", "/etc/systemd/system/mnt.mount.d")
    (box.root / "etc/systemd/system/mnt.mount.d/test.conf").write_text("[Mount]\nTimeoutSec=2\n")
    box.run("systemctl", "daemon-reload")
    assert "TimeoutSec=10" in (box.root / "etc/systemd/system/mnt.mount").read_text()

    installed.start(ENGINE)
    assert box.show("mnt.mount", "Result") == "timeout"

    helper.write_text('#!/bin/sh\nexec mount -t tmpfs -o mode=755 tmpfs "$2"\n')
    box.run("systemctl", "start", "mnt.mount")
    (box.root / "mnt/.share").write_text("x")
    (consumer,) = box.processes(ENGINE, "consumer")
    assert Path(f"/proc/{consumer}/root/mnt/.share").read_text() == "x"
    box.run("systemctl", "stop", "mnt.mount")
    box.run("rm", "-r", "/etc/systemd/system/mnt.mount", "/etc/systemd/system/mnt.mount.d", "/usr/sbin/mount.nfs4")
    box.run("systemctl", "daemon-reload")


def test_after_a_power_cut_both_come_back_and_units_go_as_promised(
    installed: Installed, box: SystemdBox, fleet: Fleet
) -> None:
    first, second = fleet.hosts(count=2)
    lost = installed.submit_adhoc([first], "sleep 120")
    again = installed.submit_adhoc([second], "sleep 4; echo done", on_engine_loss="rerun")
    for task_id in (lost, again):
        installed.wait_running(task_id)
    box.cut_power()
    installed.wait_until_well()
    assert installed.wait_task(lost)["counts"]["lost"] == 1
    assert installed.wait_task(again)["counts"]["success"] == 1


def test_a_reboot_drains_first_and_both_come_back(installed: Installed, box: SystemdBox, fleet: Fleet) -> None:
    """As for a new kernel, and unlike a power cut: what runs ends first, and no host is lost."""
    task_id = installed.submit_adhoc(fleet.hosts(count=2), "sleep 8; echo done")
    installed.wait_running(task_id, 2)
    box.reboot()
    installed.wait_until_well()
    assert installed.wait_task(task_id)["counts"]["success"] == 2
    assert installed.each(task_id, "stdout") == ["done", "done"]
    after = installed.submit_adhoc(fleet.hosts(count=1), "echo hi")
    assert installed.wait_task(after)["counts"]["success"] == 1


def test_an_upgrade_drains_and_keeps_the_configuration(installed: Installed, box: SystemdBox, fleet: Fleet) -> None:
    config = box.run("cat", f"{PREFIX}/conf/server.conf")
    box.run("sh", "-c", f"echo '# newer' >>{RELEASE}/execute_engine/__main__.py; touch {PREFIX}/of-the-operator")
    former = main_pid(box, ENGINE), main_pid(box, DISTRIBUTE)
    task_id = installed.submit_adhoc(fleet.hosts(count=2), "sleep 8; echo done")
    installed.wait_running(task_id, 2)
    installed.install()
    installed.wait_until_well()
    assert installed.wait_task(task_id)["counts"]["success"] == 2
    assert not {*former} & {main_pid(box, ENGINE), main_pid(box, DISTRIBUTE)}
    assert box.run("cat", f"{PREFIX}/conf/server.conf") == config
    assert box.run("tail", "-1", f"{PREFIX}/execute_engine/__main__.py") == "# newer\n"
    assert box.run("stat", "-c", "%a %U", f"{PREFIX}/conf", f"{PREFIX}/conf/server.conf", f"{PREFIX}/conf/id") == (
        "700 execute-engine\n600 execute-engine\n600 execute-engine\n"
    )
    box.run("test", "-e", f"{PREFIX}/of-the-operator")
    box.run("test", "!", "-e", f"{PREFIX}.replaced", "-a", "!", "-e", f"{PREFIX}.new")


def test_an_upgrade_with_an_old_configuration_that_cannot_be_used_changes_nothing(
    installed: Installed, box: SystemdBox
) -> None:
    former = main_pid(box, ENGINE), main_pid(box, DISTRIBUTE)
    installed.configure(Exec_Engine={"SLOTS": "many"})
    refused = box.run_any(f"{RELEASE}/script/install")
    assert (refused.returncode, "[Exec_Engine] SLOTS" in refused.stdout) == (78, True), refused.stdout
    assert (main_pid(box, ENGINE), main_pid(box, DISTRIBUTE)) == former
    installed.configure()


def test_uninstall_keeps_what_is_the_operators_and_purge_leaves_nothing(installed: Installed, box: SystemdBox) -> None:
    box.run(
        "mv", f"{PREFIX}/.venv", "/srv/venv"
    )  # for the next test; without it the units cannot be started, only stopped
    box.run("touch", f"{PREFIX}/of-the-operator")
    installed.install("--uninstall", script=f"{PREFIX}/script/install")
    assert box.run("ls", "-A", PREFIX) == "conf\nof-the-operator\n"
    box.run("test", "-e", f"{PREFIX}/conf/server.conf", "-a", "-e", f"{STATE}/execute_engine.db")
    installed.install("--uninstall", "--purge")
    left = box.run("find", "/etc", "/app", "/lib/systemd", "/var/lib", "-name", "*execute*engine*", check=False)
    assert "/app/" not in left, left
    assert "execute-engine" not in left, left
    assert box.run_any("getent", "passwd", "execute-engine").returncode != 0
    assert box.run_any("systemctl", "cat", ENGINE).returncode != 0


def test_the_steps_that_users_of_the_original_know(first_installed: Installed, box: SystemdBox, fleet: Fleet) -> None:
    installed = first_installed
    installed.bring_checkout(PREFIX)
    box.run("mkdir", f"{PREFIX}/.git")  # it stands for a clone
    box.run("mv", "/srv/venv", f"{PREFIX}/.venv")
    installed.configure()
    installed.install("--here", script=f"{PREFIX}/script/install")
    box.run("cp", f"{PREFIX}/{ENGINE}.service", f"{PREFIX}/{DISTRIBUTE}.service", "/lib/systemd/system/")
    box.run("systemctl", "daemon-reload")
    installed.start()
    task_id = installed.submit_adhoc(fleet.hosts(count=2), "echo hi")
    assert installed.wait_task(task_id)["counts"]["success"] == 2
