"""The real runner on real hosts, in each of its three ways: what it reports, and how it is ended."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from execute_engine.output import FIELD_LIMIT_BYTES
from execute_engine.scratch import path as scratch_of
from tests.runner_process import WAYS, Preloaded, Runner, make_job, one_play, preloaded
from tests.servers.fleet import Fleet
from tests.servers.process import wait_for

Start = Callable[..., Runner]

VAULT_PASSWORD = "vault-password-1"
IN_THE_TEXT = """\
- hosts: all
  gather_facts: false
  vars:
    hidden: !vault |
      $ANSIBLE_VAULT;1.1;AES256
      65386130316532356339313266393933633062333364333761333638373630353839326230636434
      6237633739616362353036346538633865326537633562360a623239356664633939393831663239
      35666339663036323333396231343131656330316634656566626234333231383863356430356637
      3232623933303631300a386232663230666466366136373532303033353439396662653264396238
      3131
  tasks:
    - {name: shown, command: "test {{ hidden }} = from-the-text"}
"""
A_FILE = """\
$ANSIBLE_VAULT;1.1;AES256
36633465336566343664386365636135393531366636373263393666363430623564393365333134
6537313330333030303364653335626135333235366435640a656536353332626364396238353031
36313034653962636261613438653663666536383438393263666663373565393264323230393432
3636646631323962610a303839383033653532343630623330663436616131333539323565323436
38363037346438343137333064656466333836383738623262663261303262366333
"""
WITH_A_FILE = """\
- hosts: all
  gather_facts: false
  vars_files: [secret.yml]
  tasks:
    - {name: shown, command: "test {{ hidden }} = from-a-file"}
"""


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Preloaded]:
    with preloaded(tmp_path_factory.mktemp("runners") / "log") as process:
        yield process


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def share(server_directory: Path) -> Path:
    """FILES_DIR, where the hosts, which are this machine, may write too."""
    server_directory.chmod(0o777)
    return server_directory


@pytest.fixture
def start(parent: Preloaded, fleet: Fleet, way: str, share: Path) -> Start:
    """Starts a job on these hosts in one of the ways."""

    def start(hosts: list[str], **fields: Any) -> Runner:
        return parent.start(make_job(hosts, fleet.port, fleet.key, share, **WAYS[way], **fields))

    return start


def only(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    (done,) = found.values()
    return done


def rows(done: dict[str, Any]) -> list[tuple[str, str]]:
    return [(row["name"], row["status"]) for row in done["detail"]["tasks"]]


def at(text: object) -> datetime:
    """A time of an event: ISO 8601, without a zone."""
    found = datetime.fromisoformat(str(text))
    assert found.tzinfo is None
    return found


def test_a_fine_command_is_reported_with_everything_it_gave(fleet: Fleet, start: Start) -> None:
    runner = start(fleet.hosts(), module="command", args="id -un")
    done = only(runner.ended())
    started, finished, detail = at(done.pop("started_at")), at(done.pop("finished_at")), done.pop("detail")
    assert done == {
        "event": "host_done",
        "host": fleet.hosts()[0],
        "status": "success",
        "rc": 0,
        "changed": True,
        "stdout": "root",
        "stderr": "",
        "msg": "",
        "tasks_ok": None,
        "tasks_total": None,
        "stuck_task": None,
        "stage": None,
        "since": None,
        "blame": None,
        "stopped_on_host": None,
    }
    assert started < finished
    assert detail["cmd"] == ["id", "-un"]
    assert [event["host"] for event in runner.named("host_started")] == fleet.hosts()
    assert at(runner.named("host_started")[0]["at"]) == started
    assert runner.named("task_started") == [], "an ad hoc command is no task of a playbook"
    assert not scratch_of(runner.pid).exists()


def test_a_failed_and_an_unreachable_host_are_told_apart(fleet: Fleet, start: Start) -> None:
    (fine,), (refused,) = fleet.hosts(), fleet.hosts("refused")
    found = start([fine, refused], module="shell", args="echo out; echo err >&2; exit 3").ended()
    failed, unreachable = found[fine], found[refused]
    assert (failed["status"], failed["rc"], failed["changed"]) == ("failed", 3, True)
    assert (failed["stdout"], failed["stderr"], failed["msg"]) == ("out", "err", "non-zero return code")
    assert failed["detail"]["cmd"] == "echo out; echo err >&2; exit 3"
    assert (unreachable["status"], unreachable["rc"], unreachable["changed"]) == ("unreachable", None, False)
    assert "refuse" in unreachable["msg"]
    assert unreachable["stdout"] is None
    assert at(unreachable["started_at"]) <= at(unreachable["finished_at"])
    assert {failed["blame"], unreachable["blame"]} == {None}


def test_check_mode_changes_nothing(fleet: Fleet, start: Start, share: Path) -> None:
    target = share / "made"
    arguments = f"path={target} state=touch"
    done = only(start(fleet.hosts(), module="file", args=arguments, check=True).ended())
    assert (done["status"], done["changed"], done["detail"]["dest"]) == ("success", True, str(target))
    assert not target.exists()
    done = only(start(fleet.hosts(), module="file", args=arguments).ended())
    assert (done["status"], done["changed"]) == ("success", True)
    assert target.exists()


@pytest.mark.parametrize("kind", ["free form", "key=value", "object", "text of an object"])
@pytest.mark.parametrize("template", [False, True])
def test_arguments_come_in_every_form_and_are_templated_on_request_only(
    fleet: Fleet, start: Start, kind: str, template: bool
) -> None:
    said = "{{ 1 + 1 }}"
    module = "debug" if kind == "key=value" else "command"
    forms: dict[str, str | dict[str, Any]] = {
        "free form": f"printf %s '{said}' chdir=/usr",
        "key=value": f'msg="{said}"',
        "object": {"argv": ["printf", "%s", said]},
    }
    forms["text of an object"] = json.dumps(forms["object"])
    done = only(start(fleet.hosts(), module=module, args=forms[kind], template=template).ended())
    found = done["msg"] if module == "debug" else done["stdout"]
    assert (done["status"], found) == ("success", "2" if template else said)


@pytest.mark.parametrize(("become", "user"), [(None, "root"), (True, "root"), (False, "ee-ops")])
def test_a_command_becomes_root_unless_told_not_to(fleet: Fleet, start: Start, become: bool | None, user: str) -> None:
    assert only(start(fleet.hosts(), module="command", args="id -un", become=become).ended())["stdout"] == user


@pytest.mark.parametrize(("become", "user"), [(None, "ee-ops"), (True, "root"), (False, "ee-ops")])
def test_a_playbook_becomes_root_only_where_it_or_the_request_says_so(
    fleet: Fleet, start: Start, become: bool | None, user: str
) -> None:
    content = one_play(
        f'{{name: who, command: "test {user} = `id -un`"}}', "{name: root, shell: 'test `id -u` = 0', become: true}"
    )
    content = content.replace("command:", "shell:", 1)
    assert only(start(fleet.hosts(), playbook_content=content, become=become).ended())["tasks_ok"] == 2


COUNTED = """\
- hosts: all
  tasks:
    - {name: changes, command: echo, notify: told}
    - {name: loop, command: "echo {{ item }}", loop: [1, 2, 3], changed_when: false}
    - {name: not here, command: echo, when: false}
    - name: block
      block:
        - {name: breaks, command: /bin/false}
      rescue:
        - {name: rescued, debug: {msg: x}}
      always:
        - {name: always, debug: {msg: x}}
    - {name: include, include_tasks: more.yml}
    - {name: expected, command: /bin/false, ignore_errors: true}
    - {name: ends here, command: /bin/false, when: inventory_hostname.endswith('2')}
    - {name: last, command: sleep 0.3}
  handlers:
    - {name: told, command: echo}
    - {name: never told, command: echo}
"""


def test_a_playbook_is_counted_task_by_task(fleet: Fleet, start: Start, share: Path) -> None:
    (share / "more.yml").write_text("- {name: one, debug: {msg: x}}\n- {name: two, debug: {msg: x}}\n")
    first, second = fleet.hosts(count=2)
    runner = start([first, second], playbook_content=COUNTED, playbook_name="counted.yml", strategies=("free",))
    found = runner.ended()

    done = found[first]
    common = [
        ("Gathering Facts", "ok"),  # nobody wrote it: shown, and not in tasks_ok and tasks_total
        *(("changes", "ok"), ("loop", "ok"), ("not here", "skipped"), ("breaks", "rescued"), ("rescued", "ok")),
        *(("always", "ok"), ("include", "ok"), ("one", "ok"), ("two", "ok"), ("expected", "ignored")),
    ]
    assert rows(done) == [*common, ("ends here", "skipped"), ("last", "ok"), ("told", "ok")]
    assert (done["status"], done["rc"], done["changed"], done["stdout"]) == ("success", None, True, None)
    assert (done["tasks_ok"], done["tasks_total"]) == (12, 13)  # all but the one that had to be rescued
    counts = dict(ok=11, changed=5, skipped=2, failed=0, rescued=1, ignored=1, unreachable=0, total=13)  # noqa: C408
    assert done["detail"]["counts"] == counts
    seconds = {row["name"]: row["seconds"] for row in done["detail"]["tasks"]}
    assert 0.3 <= seconds["last"] < 10
    assert 0 <= seconds["not here"] < 0.3

    done = found[second]
    assert rows(done) == [*common, ("ends here", "failed")]
    assert (done["status"], done["rc"], done["msg"]) == ("failed", 1, "non-zero return code")
    assert (done["tasks_ok"], done["tasks_total"]) == (9, 12)
    assert done["detail"]["failed_task"] == "ends here"

    told = [event["task"] for event in runner.named("task_started") if event["host"] == first]
    assert told == [name for name, _ in rows(found[first])]


def test_a_failed_item_is_named_and_the_loop_is_one_task(fleet: Fleet, start: Start) -> None:
    task = '{name: loop, shell: "echo {{ item }}; exit {{ item }}", loop: [0, 7, 9]}'
    done = only(start(fleet.hosts(), playbook_content=one_play(task)).ended())
    assert (done["status"], done["tasks_ok"], done["tasks_total"]) == ("failed", 0, 1)
    assert (done["rc"], done["stdout"]) == (7, "7")
    assert "item=7" in done["msg"]


def test_an_include_that_cannot_be_read_has_failed(fleet: Fleet, start: Start) -> None:
    content = one_play("{name: fine, debug: {msg: x}}", "{name: include, include_tasks: missing.yml}")
    done = only(start(fleet.hosts(), playbook_content=content).ended())
    assert rows(done) == [("fine", "ok"), ("include", "failed")]
    assert (done["status"], done["tasks_ok"], done["tasks_total"]) == ("failed", 1, 2)
    assert "missing.yml" in done["msg"]


def test_a_host_that_no_play_is_for_was_not_started(fleet: Fleet, start: Start) -> None:
    first, second = fleet.hosts(count=2)
    content = one_play("{name: one, debug: {msg: x}}").replace("hosts: all", f"hosts: {first}")
    found = start([first, second], playbook_content=content).ended()
    assert {host: done["status"] for host, done in found.items()} == {first: "success", second: "not_started"}
    assert "no play of the playbook is for it" in found[second]["blame"]


VAULTED = {"in the text": IN_THE_TEXT, "in a file": WITH_A_FILE}


@pytest.mark.parametrize("where", VAULTED)
def test_vaulted_text_without_a_vault_password_is_refused(fleet: Fleet, start: Start, share: Path, where: str) -> None:
    (share / "secret.yml").write_text(A_FILE)
    runner = start(fleet.hosts(), playbook_content=VAULTED[where], playbook_name="v.yml")
    assert runner.ended(code=1) == {}
    (event,) = runner.named("unit_failed")
    if where == "in the text":
        assert event["reason"].startswith(f"{share}/v.yml:5: the playbook has vaulted text")
        assert "VAULT_PASSWORD_FILE" in event["reason"]
    else:
        assert "secret.yml" in event["reason"]
        assert "vault" in event["reason"]


@pytest.mark.parametrize("where", VAULTED)
def test_vaulted_text_is_read_with_the_vault_password(fleet: Fleet, start: Start, share: Path, where: str) -> None:
    (share / "secret.yml").write_text(A_FILE)
    (share / "password").write_text(f"{VAULT_PASSWORD}\n")
    content = VAULTED[where] + f'    - {{name: says it, shell: "echo {VAULT_PASSWORD}; exit 3"}}\n'
    runner = start(fleet.hosts(), playbook_content=content, vault_password_file=str(share / "password"))
    done = only(runner.ended())
    assert rows(done) == [("shown", "ok"), ("says it", "failed")]
    assert (done["stdout"], VAULT_PASSWORD in json.dumps(runner.seen)) == ("***", False)


UNUSABLE = {
    "unknown module": (one_play("{name: one, no_such_module: {a: b}}"), "no_such_module"),
    "two modules": (one_play("{name: one, command: id, shell: id}"), "conflicting action statements"),
    "no yaml": (one_play("{name: one, command: id"), "YAML"),
    "no list": ("hosts: all\n", "list"),
    "unknown keyword": (one_play("{name: one, command: id, no_such_keyword: 1}"), "no_such_keyword"),
    "empty": ("", "Empty playbook"),
    "missing role": (one_play("{name: one, command: id}", more="  roles: [no_such_role]\n"), "no_such_role"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_a_playbook_that_cannot_run_ends_with_one_clear_reason(
    fleet: Fleet, start: Start, share: Path, kind: str
) -> None:
    content, word = UNUSABLE[kind]
    runner = start(fleet.hosts(count=2), playbook_content=content, playbook_name="broken.yml")
    assert runner.ended(code=1) == {}
    (event,) = runner.named("unit_failed")
    assert word in event["reason"]
    assert f"{share}/broken.yml" in event["reason"]
    assert "Traceback" not in event["reason"]
    assert "FileNotFoundError" not in event["reason"], "the playbook is no file"
    assert runner.seen[-1] == event, "nothing comes after it"


@pytest.mark.parametrize("key", ["missing", "damaged"])
def test_an_ssh_key_that_cannot_be_used_ends_with_one_clear_reason(
    parent: Preloaded, fleet: Fleet, share: Path, key: str
) -> None:
    path = share / "key"
    if key == "damaged":
        path.write_text("no key")
    runner = parent.start(make_job(fleet.hosts(), fleet.port, path, share, module="ping"))
    assert runner.ended(code=1) == {}
    (event,) = runner.named("unit_failed")
    assert event["reason"].startswith(f"the ssh key {path} ")


def test_long_output_is_cut_in_its_middle(fleet: Fleet, start: Start) -> None:
    command = "echo begin; head -c 300000 /dev/zero | tr '\\0' x; echo; echo end"
    done = only(start(fleet.hosts(), module="shell", args=command).ended())
    assert done["stdout"].startswith("begin\nxxx")
    assert done["stdout"].endswith("xxx\nend")
    assert len(done["stdout"].encode()) <= FIELD_LIMIT_BYTES
    left_out = 300_010 - (len(done["stdout"]) - len("\n[... 234527 bytes left out ...]\n"))
    assert f"\n[... {left_out} bytes left out ...]\n" in done["stdout"]


def test_output_that_is_not_utf8_stays_readable(fleet: Fleet, start: Start) -> None:
    done = only(start(fleet.hosts(), module="raw", args=r"printf 'a\377\376b\303\244'").ended())
    assert (done["status"], done["stdout"]) == ("success", "a\\xff\\xfebä")


def test_passwords_are_in_no_event(fleet: Fleet, start: Start) -> None:
    secrets = {"password": fleet.password, "sudo_password": fleet.password, "user": fleet.password_user, "key_file": ""}
    spelled = "".join(f"\\\\{ord(letter):03o}" for letter in fleet.password)
    task = f"""{{name: "{fleet.password}", shell: "echo '{fleet.password}'; printf '{spelled}' >&2; id -un; exit 3"}}"""
    content = one_play(task).replace("tasks:", "become: true\n  tasks:")
    runner = start(fleet.hosts(), playbook_content=content, **secrets)
    done = only(runner.ended())
    assert (done["stdout"], done["stderr"]) == ("***\nroot", "***")
    assert rows(done) == [("***", "failed")]
    assert runner.named("task_started")[0]["task"] == "***"
    assert fleet.password not in json.dumps(runner.seen)


def test_a_fine_host_is_reported_while_another_hangs(fleet: Fleet, start: Start) -> None:
    """And so is one that has failed for good; the one that hangs is ended by the guard's order."""
    hangs, fine, failing = fleet.hosts(count=3)
    sleeping = _seconds(600)
    content = one_play(
        f'{{name: hangs, command: sleep {sleeping}, when: inventory_hostname == "{hangs}"}}',
        f'{{name: fails, command: /bin/false, when: inventory_hostname == "{failing}"}}',
        "{name: last, debug: {msg: x}}",
    )
    runner = start([hangs, fine, failing], playbook_content=content, strategies=("free",))
    runner.read_until(lambda: len(runner.named("host_done")) == 2)
    assert {host: done["status"] for host, done in runner.done().items()} == {fine: "success", failing: "failed"}
    wait_for("the command", lambda: _running(fleet, sleeping))
    runner.order_end()
    assert runner.ended()[hangs]["status"] == "timeout"


def test_an_order_to_end_reports_every_host_and_what_it_was_doing(fleet: Fleet, start: Start, way: str) -> None:
    fine, sleeps = fleet.hosts(count=2)
    (hangs,), (silent,) = fleet.hosts("hang"), fleet.hosts("no_banner")
    sleeping = _seconds(600)
    runner = start(
        [sleeps, hangs, silent, fine],
        module="shell",
        args=f"{{{{ 'sleep {sleeping}' if inventory_hostname == '{sleeps}' else 'echo fine' }}}}",
        template=True,
        connect_timeout_seconds=100,
    )
    runner.read_until(lambda: fine in runner.done() and len(runner.named("host_started")) == 4)
    wait_for("the command", lambda: _running(fleet, sleeping))
    if way == "threads-asyncssh":
        runner.read_until(lambda: {event["host"] for event in runner.named("stage")} >= {sleeps, hangs, silent})
    ordered = time.monotonic()
    runner.order_end("deadline", seconds=2.0)
    found = runner.ended()
    assert time.monotonic() - ordered < 4
    assert (found[fine]["status"], found[fine]["stdout"], found[fine]["stopped_on_host"]) == ("success", "fine", None)
    for host in (sleeps, hangs, silent):
        done = found[host]
        assert (done["status"], done["stuck_task"], done["rc"], done["stdout"]) == ("timeout", "shell", None, None)
        assert at(done["started_at"]) <= at(done["since"]) <= at(done["finished_at"])
        assert done["blame"].startswith("running 'shell' for ")
        quiet = {"running": "no output for", "greeting": "connected, but no ssh greeting for"}[done["stage"]]
        assert way != "threads-asyncssh" or f"on engine e1, {quiet} " in done["blame"]
        assert done["blame"].endswith("; 1 of the unit's 4 hosts had finished by then")
    stages = {host: found[host]["stage"] for host in (sleeps, hangs, silent)}
    stopped = {host: found[host]["stopped_on_host"] for host in (sleeps, hangs, silent)}
    if way == "threads-asyncssh":
        assert stages == {sleeps: "running", hangs: "running", silent: "greeting"}
        assert stopped == {sleeps: "yes", hangs: "no", silent: "yes"}  # sshd delivers no signal to a forced command
        wait_for("the command's end on its host", lambda: not _running(fleet, sleeping))
    else:  # the clients are killed; what they have started may go on, and nobody can know
        assert set(stages.values()) == {"running"}
        assert set(stopped.values()) == {"unknown"}
    assert not scratch_of(runner.pid).exists()


@pytest.mark.parametrize("become", [True, False])
@pytest.mark.parametrize("module", ["shell", "raw"])
def test_what_is_ended_is_gone_from_its_host(
    parent: Preloaded, fleet: Fleet, share: Path, module: str, become: bool
) -> None:
    sleeping = _seconds(600)
    args = f"echo; sleep {sleeping}; sleep {sleeping}"
    job = make_job(fleet.hosts(), fleet.port, fleet.key, share, module=module, args=args, become=become)
    runner = parent.start(job)
    wait_for("the command", lambda: _running(fleet, sleeping))
    runner.order_end()
    done = only(runner.ended())
    assert (done["status"], done["stopped_on_host"]) == ("timeout", "yes")
    assert not _running(fleet, sleeping), "the host has confirmed its end"


def test_a_stop_is_no_timeout_and_says_why(fleet: Fleet, start: Start) -> None:
    sleeping = _seconds(600)
    runner = start(fleet.hosts(), module="command", args=f"sleep {sleeping}")
    wait_for("the command", lambda: _running(fleet, sleeping))
    runner.order_end("stop: cancelled by somebody")
    done = only(runner.ended())
    assert (done["status"], done["stuck_task"]) == ("cancelled", "command")
    assert done["blame"].startswith("cancelled by somebody: running 'command' for ")


AGAIN = """\
- hosts: all
  gather_facts: false
  tasks:
    - name: tries
      block:
        - name: hangs
          raw: "echo $SSH_CONNECTION | cut -d' ' -f3 >> {counter}; sleep {seconds}"
          loop: [1, 2, 3]
          register: tried
          until: tried.rc | default(1) == 0
          retries: 5
          delay: 0
          ignore_errors: true
          ignore_unreachable: true
        - {{name: after it, raw: "echo after >> {counter}"}}
      rescue:
        - {{name: rescue, raw: "echo rescue >> {counter}"}}
      always:
        - {{name: always, raw: "echo always >> {counter}"}}
- hosts: all
  gather_facts: false
  tasks:
    - {{name: second play, raw: "echo second >> {counter}"}}
"""


def test_nothing_is_started_again_on_a_host_that_was_ended(fleet: Fleet, start: Start, share: Path) -> None:
    """The stubborn host heeds no TERM, so that the other, gone at once, has a second in which it could go on."""
    counter, sleeping = share / "starts", _seconds(600)
    counter.touch()
    counter.chmod(0o666)
    (sleeps,), (stubborn,) = fleet.hosts(), fleet.hosts("stubborn")
    content = AGAIN.format(counter=counter, seconds=sleeping)
    runner = start([sleeps, stubborn], playbook_content=content, strategies=("free", "free"))
    wait_for("the command", lambda: _running(fleet, sleeping))
    runner.read_until(lambda: len(runner.named("host_started")) == 2)
    runner.order_end()
    found = runner.ended()
    assert {host: done["status"] for host, done in found.items()} == {sleeps: "timeout", stubborn: "timeout"}
    assert found[sleeps]["stuck_task"] == "hangs"
    assert counter.read_text() == f"{sleeps}\n"
    assert _clients(str(counter)) == [], "a client that was started again outlives the runner"


def test_a_host_that_waits_for_another_is_held_and_names_it(fleet: Fleet, start: Start) -> None:
    sleeps, waits = fleet.hosts(count=2)
    content = one_play(
        '{name: one, command: "sleep {{ long if inventory_hostname == sleeps else 0 }}"}',
        "{name: two, debug: {msg: x}}",
        more=f"  vars: {{sleeps: {sleeps}, long: 'LONG'}}\n",
    )
    for seconds in (0.2, 2.0, 20.0):  # no event tells that a host waits
        sleeping = _seconds(600)
        runner = start([sleeps, waits], playbook_content=content.replace("LONG", sleeping), strategies=("linear",))
        wait_for("the command", lambda: _running(fleet, sleeping))  # noqa: B023
        time.sleep(seconds)
        runner.order_end()
        found = runner.ended()
        if found[waits]["status"] != "timeout":
            break
    assert found[sleeps]["status"] == "timeout"
    done = found[waits]
    assert (done["status"], done["stuck_task"], done["stage"], done["stopped_on_host"]) == ("held", None, None, None)
    assert done["blame"] == f"had finished 1 of 2 tasks and was waiting for {sleeps}"


def test_the_runner_ends_when_its_guard_is_gone(parent: Preloaded, fleet: Fleet, share: Path) -> None:
    runner = parent.start(make_job(fleet.hosts("hang"), fleet.port, fleet.key, share, module="ping"))
    runner.read_until(lambda: bool(runner.named("host_started")))
    runner.abandon()
    assert runner.result() == 70
    assert runner.done() == {}


_used = iter(range(1, 10_000))


def _seconds(about: int) -> str:
    """A length of sleep that no other test uses, by which the command is found among what the hosts run."""
    return f"{about}.{time.time_ns() % 10**9:09d}{next(_used)}"


def _running(fleet: Fleet, sleeping: str) -> bool:
    return any(line.split() == ["sleep", sleeping] for line in fleet.processes().values())


def _clients(word: str) -> list[str]:
    """The command lines of OpenSSH's clients that name this word."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if line.startswith("ssh ") and word in line:
                found.append(line)
    return found
