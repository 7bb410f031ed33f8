"""Every way that a playbook knows to run something elsewhere than on its unit's hosts, and how each ends.

Stock Ansible, given the same texts, runs the mark on the engine or on the other host, unless a case says otherwise.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemons import Services
from tests.runner_process import WAYS, Preloaded, Runner, make_job, one_play, preloaded
from tests.servers.fleet import Fleet

Start = Callable[..., Runner]
EVERY_WAY = pytest.mark.parametrize("way", WAYS)
BOTH_WORKERS = pytest.mark.parametrize("way", ["threads-asyncssh", "processes"])
MARK = """\
#!/bin/sh
set -- ${SSH_CONNECTION:-- - engine}
echo "$3" >> RAN
"""


def fill_share(share: Path) -> None:
    share.chmod(0o777)
    (share / "ran").touch()
    (share / "ran").chmod(0o666)
    mark = share / "mark"
    mark.write_text(MARK.replace("RAN", f"{share}/ran"))
    mark.chmod(0o755)
    for name, text in {
        "marks.yml": f"- {{name: included, command: {mark}}}\n",
        "local.yml": "ansible_connection: local\n",
        "more.yml": f"- {{hosts: localhost, tasks: [{{command: {mark}}}]}}\n",
        "roles/plain/tasks/main.yml": f"- {{name: included, command: {mark}}}\n",
        "roles/marks/tasks/main.yml": f"- {{name: included, command: {mark}}}\n",
        "roles/marks/vars/main.yml": "ansible_connection: local\n",
    }.items():
        (share / name).parent.mkdir(parents=True, exist_ok=True)
        (share / name).write_text(text)


def named(text: str, share: Path, other: str) -> str:
    """With MARK, OTHER and SHARE in it replaced: the command, a host that is not the unit's, the folder."""
    return text.replace("MARK", f"{share}/mark").replace("OTHER", other).replace("SHARE", str(share))


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Preloaded]:
    with preloaded(tmp_path_factory.mktemp("runners") / "log") as process:
        yield process


@pytest.fixture
def way() -> str:
    return "threads-asyncssh"


@pytest.fixture
def share(server_directory: Path) -> Path:
    """FILES_DIR, where the hosts, which are this machine, may write too; its `mark` notes in `ran` where it ran."""
    fill_share(server_directory)
    return server_directory


@pytest.fixture
def hosts(fleet: Fleet) -> list[str]:
    return fleet.hosts(count=2)


@pytest.fixture
def other(fleet: Fleet) -> str:
    """A host that is there, and not of the unit."""
    return fleet.hosts(count=3)[2]


@pytest.fixture
def playbook(parent: Preloaded, fleet: Fleet, share: Path, hosts: list[str], other: str, way: str) -> Start:
    """Starts a playbook; MARK, OTHER and SHARE in it are named()."""

    def start(content: str, **fields: Any) -> Runner:
        fields = WAYS[way] | {"playbook_content": named(content, share, other)} | fields
        return parent.start(make_job(hosts, fleet.port, fleet.key, share, **fields))

    return start


@pytest.fixture
def play(playbook: Start) -> Start:
    """Starts one play of these tasks, a line of YAML each; more are further lines of the play."""

    def start(*tasks: str, more: str = "", **fields: Any) -> Runner:
        return playbook(one_play(*tasks, more=more), **fields)

    return start


@pytest.fixture
def ran(share: Path) -> Callable[[], set[str]]:
    """Where the mark has run: addresses of hosts, or "engine"."""
    return lambda: set((share / "ran").read_text().split())


def messages(found: dict[str, dict[str, Any]]) -> set[str]:
    return {str(done["msg"]) for done in found.values()}


def statuses(found: dict[str, dict[str, Any]]) -> set[str]:
    return {done["status"] for done in found.values()}


LOCALHOST = "delegate_to localhost is refused: localhost is none of the unit's hosts"
LOCAL = "connection local is refused: the hosts are reached by the engine's own ssh connection only"
ELSEWHERE = {  # tasks of one play, and what the hosts' results say
    "delegate_to localhost": (["{command: MARK, delegate_to: localhost}"], LOCALHOST),
    "delegate_to an address of the engine": (
        ["{command: MARK, delegate_to: 127.0.0.1}"],
        "delegate_to 127.0.0.1 is refused",
    ),
    "delegate_to another host": (["{command: MARK, delegate_to: OTHER}"], "is none of the unit's hosts"),
    "delegate_to by a variable": (["{command: MARK, delegate_to: '{{ at }}', vars: {at: localhost}}"], LOCALHOST),
    "delegate_to by a fact": (
        ["{set_fact: {at: localhost}}", "{command: MARK, delegate_to: '{{ at }}'}"],
        LOCALHOST,
    ),
    "delegate_to in a loop": (["{command: MARK, delegate_to: '{{ item }}', loop: [localhost, OTHER]}"], LOCALHOST),
    "delegate_to of a block": (["{block: [{command: MARK}], delegate_to: localhost}"], LOCALHOST),
    "delegate_to of a rescue": (
        ["{block: [{command: /bin/false}], rescue: [{command: MARK, delegate_to: localhost}]}"],
        LOCALHOST,
    ),
    "delegate_to of a handler": (["{command: echo, notify: told}", "{meta: flush_handlers}"], LOCALHOST),
    "delegate_to applied to an include": (
        ["{include_tasks: {file: marks.yml, apply: {delegate_to: localhost}}}"],
        LOCALHOST,
    ),
    "delegate_to applied to a role": (["{include_role: {name: plain, apply: {delegate_to: localhost}}}"], LOCALHOST),
    "delegate_to once": (["{command: MARK, delegate_to: localhost, run_once: true}"], LOCALHOST),
    "delegate_to in the background": (["{command: MARK, delegate_to: localhost, async: 20, poll: 0}"], LOCALHOST),
    "delegate_to, asked for": (["{command: MARK, delegate_to: localhost, async: 20, poll: 1}"], LOCALHOST),
    "delegate_facts": (["{set_fact: {x: 1}, delegate_to: localhost, delegate_facts: true}"], LOCALHOST),  # stores them
    "local_action": (["{local_action: {module: command, _raw_params: MARK}}"], LOCALHOST),
    "a local_action that is a script": (["{local_action: script MARK}"], LOCALHOST),
    "local_action by its long name": (
        ["{local_action: {module: ansible.builtin.command, _raw_params: MARK}}"],
        LOCALHOST,
    ),
    "delegate_to after errors were cleared": (
        [
            "{command: MARK, delegate_to: localhost, ignore_errors: true}",
            "{meta: clear_host_errors}",
            "{command: MARK, delegate_to: localhost}",
        ],
        LOCALHOST,
    ),
    "to an added host": (
        ["{add_host: {name: there, ansible_host: 127.0.0.1}}", "{command: MARK, delegate_to: there}"],
        "delegate_to there is refused",
    ),
    "connection keyword": (["{command: MARK, connection: local}"], LOCAL),
    "connection with its full name": (["{command: MARK, connection: ansible.builtin.local}"], "local is refused"),
    "connection by a variable of the keyword": (
        ["{command: MARK, connection: '{{ how }}', vars: {how: local}}"],
        LOCAL,
    ),
    "connection of a block": (["{block: [{command: MARK}], connection: local}"], LOCAL),
    "connection applied to an include": (
        ["{include_tasks: {file: marks.yml, apply: {connection: local}}}"],
        LOCAL,
    ),
    "connection by a variable": (["{command: MARK, vars: {ansible_connection: local}}"], LOCAL),
    "connection by a fact": (["{set_fact: {ansible_connection: local}}", "{command: MARK}"], LOCAL),
    "connection by a registered result": (
        ["{set_fact: {x: local}, register: found}", "{command: MARK, vars: {ansible_connection: '{{ x }}'}}"],
        LOCAL,
    ),
    "connection by include_vars": (["{include_vars: local.yml}", "{command: MARK}"], LOCAL),
    "connection by the loop's variable": (
        ["{command: MARK, loop: [local], loop_control: {loop_var: ansible_connection}}"],
        LOCAL,
    ),
    "connection by module_defaults": (
        [
            "{block: [{set_fact: {x: 1}}], module_defaults: {set_fact: {ansible_connection: local}}}",
            "{command: MARK}",
        ],
        LOCAL,
    ),
    "connection of a host that is added again": (
        ["{add_host: {name: '{{ ansible_play_hosts[0] }}', ansible_connection: local}}", "{command: MARK}"],
        LOCAL,
    ),
    "connection by a role's variables": (["{include_role: {name: marks}}"], LOCAL),
    "connection by a parameter of a role": (
        ["{include_role: {name: plain}, vars: {ansible_connection: local}}"],
        LOCAL,
    ),
    "script over connection local": (["{script: MARK, connection: local}"], LOCAL),
    "raw over connection local": (["{raw: MARK, connection: local}"], LOCAL),
    "connection docker": (  # in stock: docker exec, by this user
        ["{command: MARK, connection: community.docker.docker}"],
        "connection community.docker.docker is refused",
    ),
    "connection docker by a variable": (
        ["{command: MARK, vars: {ansible_connection: community.docker.docker}}"],
        "connection community.docker.docker is refused",
    ),
    "connection chroot by a fact": (
        ["{set_fact: {ansible_connection: community.general.chroot, ansible_host: /}}", "{command: MARK}"],
        "connection community.general.chroot is refused",
    ),
    "connection chroot": (  # in stock: chroot ansible_host, where this user may
        ["{command: MARK, connection: community.general.chroot, vars: {ansible_host: /}}"],
        "connection community.general.chroot is refused",
    ),
    "connection paramiko": (  # in stock: ssh, by settings of its own
        ["{command: MARK, connection: paramiko_ssh}"],
        "connection paramiko_ssh is refused",
    ),
    "a plugin for the network": (  # in stock: a process of its own, ansible-connection, on the engine
        ["{command: MARK, connection: ansible.netcommon.network_cli}"],
        "connection ansible.netcommon.network_cli is refused",
    ),
}
PLAY_LINES = {
    "delegate_to of a handler": "  handlers: [{name: told, command: MARK, delegate_to: localhost}]\n",
}


@BOTH_WORKERS
@pytest.mark.parametrize("case", ELSEWHERE)
def test_a_task_that_would_run_elsewhere_fails_with_its_reason(
    play: Start, hosts: list[str], ran: Callable[[], set[str]], case: str
) -> None:
    tasks, says = ELSEWHERE[case]
    found = play(*tasks, more=PLAY_LINES.get(case, "")).ended()
    assert "failed" in statuses(found)
    assert any(says in message for message in messages(found)), messages(found)
    assert ran() <= set(hosts)
    assert "engine" not in ran()


GROUP_VARS = ("group_vars/all.yml", "group_vars/made.yml", "host_vars/127.100.0.1.yml")
GROUP_TASKS = ("{group_by: {key: made}}", "{command: MARK}")


@BOTH_WORKERS
@pytest.mark.parametrize("file", GROUP_VARS)
def test_variables_of_groups_and_hosts_do_not_lead_elsewhere(
    play: Start, share: Path, hosts: list[str], ran: Callable[[], set[str]], file: str
) -> None:
    write_group_vars(share, file)
    found = play(*GROUP_TASKS).ended()
    assert LOCAL in found[hosts[0]]["msg"]
    assert ran() <= {hosts[1]}


def write_group_vars(share: Path, file: str) -> None:
    (share / file).parent.mkdir()
    (share / file).write_text("ansible_connection: local\n")


METAS = (
    "clear_facts clear_host_errors end_batch end_host end_play flush_handlers noop refresh_inventory reset_connection"
)


META_TASKS = (
    "{block: [{command: MARK, delegate_to: localhost}], rescue: [{meta: META}]}",
    "{command: MARK, delegate_to: OTHER, ignore_errors: true}",
    "{meta: META, vars: {ansible_connection: local}}",
    "{command: MARK, vars: {ansible_connection: local}}",
)


@pytest.mark.parametrize("meta", METAS.split())
def test_a_meta_task_does_not_lead_elsewhere(
    play: Start, hosts: list[str], ran: Callable[[], set[str]], meta: str
) -> None:
    """It may end the play, or that of a host, as a success; it does not open what was refused before."""
    runner = play(*[task.replace("META", meta) for task in META_TASKS])
    runner.result()
    assert runner.done() or LOCAL in runner.named("unit_failed")[0]["reason"]
    assert ran() == set()


FINE_PLAY = "- {hosts: all, gather_facts: false, tasks: [{command: echo}]}\n"
PLAYS = {  # plays after one that is fine, and what the unit's hosts are told
    "hosts localhost": ("- {hosts: localhost, tasks: [{command: MARK}]}", "localhost is none of the unit's hosts"),
    "hosts by the engine's address": ("- {hosts: 127.0.0.1, tasks: [{command: MARK}]}", "127.0.0.1 is none of"),
    "gathering on localhost": ("- {hosts: localhost}", "localhost is none of the unit's hosts"),
    "an added host": (
        "- {hosts: all, tasks: [{add_host: {name: OTHER, groups: more}}]}\n- {hosts: more, tasks: [{command: MARK}]}",
        "is none of the unit's hosts",
    ),
    "an added localhost": (
        "- {hosts: all, tasks: [{add_host: {name: new, ansible_connection: local}}]}\n"
        "- {hosts: new, tasks: [{command: MARK}]}",
        "new is none of the unit's hosts",
    ),
    "an imported playbook": ("- import_playbook: more.yml", "localhost is none of the unit's hosts"),
}


@BOTH_WORKERS
@pytest.mark.parametrize("case", PLAYS)
def test_a_play_for_other_hosts_ends_the_run_with_its_reason(
    playbook: Start, ran: Callable[[], set[str]], case: str
) -> None:
    plays, says = PLAYS[case]
    runner = playbook(f"{FINE_PLAY}{plays}\n")
    runner.ended(code=1)
    (event,) = runner.named("unit_failed")
    assert says in event["reason"]
    assert ran() == set()


MIXED_PLAY = """\
- {hosts: all, gather_facts: false, tasks: [{add_host: {name: OTHER, groups: more}}]}
- {hosts: "all:localhost", gather_facts: false, tasks: [{command: MARK}]}
"""


@BOTH_WORKERS
def test_of_a_play_for_its_own_and_other_hosts_only_its_own_run(
    playbook: Start, hosts: list[str], ran: Callable[[], set[str]]
) -> None:
    found = playbook(MIXED_PLAY).ended()
    assert statuses(found) == {"success"}
    assert ran() == set(hosts)


FACTS = {  # what would change the connection; stock obeys each where a task uses it
    "inventory_hostname": "OTHER",
    "ansible_host": "OTHER",
    "ansible_ssh_host": "OTHER",
    "ansible_port": "1",
    "ansible_ssh_port": "1",
    "ansible_user": "nobody",
    "ansible_ssh_user": "nobody",
    "ansible_ssh_args": "-o ProxyCommand=MARK",
    "ansible_ssh_common_args": "-o ProxyCommand=MARK",
    "ansible_ssh_extra_args": "-o ProxyCommand=MARK",
    "ansible_sftp_extra_args": "-o ProxyCommand=MARK",
    "ansible_ssh_executable": "MARK",
    "ansible_sftp_executable": "MARK",
    "ansible_scp_executable": "MARK",
    "ansible_ssh_pkcs11_provider": "SHARE/evil.so",
    "ansible_private_key_file": "SHARE/nothing",
    "ansible_ssh_private_key_file": "SHARE/nothing",
    "ansible_ssh_private_key": "nothing",
    "ansible_control_path": "SHARE/control",
    "ansible_ssh_password_mechanism": "sshpass",
}


@EVERY_WAY
def test_no_variable_changes_the_connection(play: Start, hosts: list[str], ran: Callable[[], set[str]]) -> None:
    """Those of a task, of a host, facts, and a loop's variable, which beats even extra variables."""
    given = ", ".join(f"{name}: {value}" for name, value in FACTS.items() if name != "inventory_hostname")
    copy = "copy: {content: x, dest: 'SHARE/copied'}"
    runner = play(
        f"{{command: MARK, vars: {{{given}}}}}",
        *[f"{{command: MARK, loop: [{FACTS[name]}], loop_control: {{loop_var: {name}}}}}" for name in FACTS],
        f"{{command: MARK, delegate_to: '{{{{ ansible_play_hosts[0] }}}}', vars: {{{given}}}}}",
        f"{{{copy}, vars: {{ansible_pipelining: false, ansible_ssh_transfer_method: scp, {given}}}}}",
        *[f"{{add_host: {{name: '{{{{ ansible_play_hosts[{number}] }}}}', {given}}}}}" for number in (0, 1)],
        "{command: MARK}",
        f"{{set_fact: {{{given}}}}}",
        "{command: MARK}",
        "{meta: reset_connection}",
        "{command: MARK}",
    )
    found = runner.ended()
    assert statuses(found) == {"success"}, messages(found)
    assert ran() == set(hosts)


@EVERY_WAY
def test_no_keyword_changes_the_connection(play: Start, hosts: list[str], ran: Callable[[], set[str]]) -> None:
    found = play("{command: MARK, port: 1, remote_user: nobody, connection: ssh}").ended()
    assert statuses(found) == {"success"}, messages(found)
    assert ran() == set(hosts)


@EVERY_WAY
def test_an_interpreter_and_an_environment_are_the_hosts(
    play: Start, share: Path, hosts: list[str], ran: Callable[[], set[str]]
) -> None:
    """Stock's local connection and rsync take both on the engine; here not even a PATH with an ssh in it counts."""
    (share / "bin").mkdir()
    for program in ("ssh", "sftp", "scp"):
        (share / "bin" / program).symlink_to(share / "mark")
    found = play(
        "{command: MARK, environment: {PATH: SHARE/bin, LD_PRELOAD: SHARE/evil.so}}",
        "{command: MARK, vars: {ansible_python_interpreter: MARK; /usr/bin/python3}}",
        "{command: MARK, vars: {ansible_shell_executable: /bin/bash, ansible_shell_type: sh}}",
        "{command: MARK, vars: {ansible_remote_tmp: SHARE/tmp, ansible_pipelining: false}}",
        "{command: MARK, async: 20, poll: 1, vars: {ansible_async_dir: SHARE/async}}",
        "{command: echo, become: true, vars: {ansible_become_exe: MARK}, ignore_errors: true}",
        "{command: MARK, vars: {ansible_local_tmp: SHARE, ansible_strategy: debug, ansible_playbook_python: MARK}}",
        more="  environment: {ANSIBLE_SSH_EXECUTABLE: SHARE/mark, SSH_ASKPASS: SHARE/mark}\n",
    ).ended()
    assert statuses(found) == {"success"}, messages(found)
    assert ran() == set(hosts)


ACTIONS = {  # whose plugins work on the engine, and what each does there in stock
    "rsync": "ansible.posix.synchronize: {src: SHARE/mark, dest: SHARE/copied}",
    "rsync by its short name": "synchronize: {src: SHARE/mark, dest: SHARE/copied}",
    "rsync by action": "action: synchronize src=SHARE/mark dest=SHARE/copied",
    "a device's command line": "cisco.ios.ios_command: {commands: [show version]}",  # connects from the engine
    "any device's command line": "ansible.netcommon.cli_command: {command: show version}",
    "telnet": "ansible.netcommon.telnet: {command: [x], host: 127.0.0.1, port: 9}",  # connects from the engine
    "a key": "community.crypto.openssl_privatekey_pipe: {}",  # runs the module there
    "a command's parser": (  # runs the command over the connection, reads a template and runs a parser there
        "ansible.utils.cli_parse: {command: id, parser: {name: ansible.netcommon.native, template_path: SHARE/x}}"
    ),
}


@pytest.mark.parametrize("case", ACTIONS)
def test_an_action_that_works_on_the_engine_is_refused(play: Start, share: Path, case: str) -> None:
    found = play(f"{{{ACTIONS[case]}}}").ended()
    assert statuses(found) == {"failed"}
    assert all("runs code on the engine" in message for message in messages(found)), messages(found)
    assert not (share / "copied").exists()


def test_an_ad_hoc_command_is_refused_it_too(parent: Preloaded, fleet: Fleet, share: Path, hosts: list[str]) -> None:
    args = {"src": f"{share}/mark", "dest": f"{share}/copied"}
    found = parent.start(make_job(hosts, fleet.port, fleet.key, share, module="synchronize", args=args)).ended()
    assert all("runs code on the engine" in message for message in messages(found)), messages(found)
    assert not (share / "copied").exists()


def test_actions_that_work_on_the_hosts_are_not(play: Start, share: Path, hosts: list[str]) -> None:
    found = play(
        "{script: MARK}",
        "{raw: MARK}",
        "{action: command MARK}",
        "{wait_for_connection: }",
        "{pause: {seconds: 0}}",
        "{community.general.shutdown: {search_paths: [/nonexistent]}, ignore_errors: true, register: found}",
        "{assert: {that: [\"'refused' not in found.msg\"]}}",
    ).ended()
    assert statuses(found) == {"success"}, messages(found)


KINDS = (
    "action become cache callback cliconf connection doc_fragments filter httpapi inventory lookup module_utils "
    "netconf shell strategy terminal test vars"
)
PLUGIN = "import pathlib\npathlib.Path({path!r}).touch()\n"


USING_PLUGINS = (
    "{ping: , register: here}",
    "{assert: {that: [found.ping == 'pong', here.ping == 'pong']}}",
    "{debug: {msg: \"{{ 'x' | evil }}\"}, ignore_errors: true}",
    "{debug: {msg: \"{{ 'x' is evil }}\"}, ignore_errors: true}",
    "{debug: {msg: \"{{ lookup('evil') }}\"}, ignore_errors: true}",
    "{command: echo, connection: evil, ignore_errors: true}",
    "{command: echo, become: true, become_method: evil, ignore_errors: true}",
    "{command: echo, vars: {ansible_shell_type: evil}, ignore_errors: true}",
)


def place_plugins(share: Path) -> None:
    """Of all kinds, beside the playbook and in role one: imported, each leaves a file loaded-KIND in the share."""
    for folder in (share, share / "roles/one"):
        for kind in KINDS.split():
            path = folder / (kind if kind == "module_utils" else f"{kind}_plugins") / "evil.py"
            path.parent.mkdir(parents=True)
            path.write_text(PLUGIN.format(path=f"{share}/loaded-{kind}"))
        (folder / "library").mkdir()
        (folder / "library/ping.py").write_text('#!/usr/bin/python3\nprint(\'{"ping": "evil"}\')\n')
    (share / "roles/one/tasks").mkdir()
    (share / "roles/one/tasks/main.yml").write_text("- {ping: , register: found}\n")


@BOTH_WORKERS
def test_nothing_beside_a_playbook_or_in_a_role_is_loaded(play: Start, share: Path) -> None:
    """A role's other files are used here too."""
    place_plugins(share)
    runner = play(*USING_PLUGINS, more="  roles: [one]\n")
    found = runner.ended()
    assert statuses(found) == {"success"}, messages(found)
    assert not list(share.glob("loaded-*"))
    assert [event for event in runner.named("log") if "is left out" in str(event)]


def test_no_strategy_beside_a_playbook_is_loaded(play: Start, share: Path) -> None:
    place_plugins(share)
    runner = play("{ping: }", more="  strategy: evil\n")
    runner.ended(code=1)
    (event,) = runner.named("unit_failed")
    assert "Invalid play strategy specified: evil" in event["reason"]
    assert not list(share.glob("loaded-*"))


@EVERY_WAY
def test_no_password_is_a_variable(parent: Preloaded, fleet: Fleet, play: Start, share: Path, way: str) -> None:
    """Stock prints the ssh password as ansible_password, and any filter takes it past a mask."""
    names = ("ansible_password", "ansible_ssh_pass", "ansible_ssh_password", "ansible_become_password")
    names += ("ansible_become_pass", "ansible_sudo_pass", "ansible_become_pass")
    shown = "".join(f"{{{{ {name} | default('') | b64encode }}}} " for name in names)
    everything = "{{ vars }} {{ hostvars }} {{ hostvars[inventory_hostname] }}"
    runner = play(
        f'{{command: "echo {shown}", register: found}}',
        "{fail: {msg: '{{ found.stdout }}'}, ignore_errors: true}",
        f"{{copy: {{content: '{everything}', dest: 'SHARE/all-{{{{ inventory_hostname }}}}'}}}}",
        "{command: id -un, become: true, register: who}",
        "{assert: {that: [who.stdout == 'root']}}",
        "{fail: {msg: '{{ found.stdout }}'}}",
        user=fleet.password_user,
        password=fleet.password,
        sudo_password=fleet.password,
        key_file="",
    )
    found = runner.ended()
    seen = str(runner.seen) + "".join(path.read_text() for path in share.glob("all-*"))
    assert len(list(share.glob("all-*"))) == len(found)
    assert base64.b64encode(fleet.password.encode()).decode() not in seen
    assert fleet.password not in seen
    assert [done["detail"]["failed_task"] for done in found.values()] == ["fail"] * len(found), messages(found)


FILTERS = {  # and what each starts in stock
    "community.sops.decrypt": "'x' | community.sops.decrypt(sops_binary='MARK')",  # any program that it is given
    "community.crypto.gpg_fingerprint": "'x' | community.crypto.gpg_fingerprint",  # gpg, of its PATH
}


@BOTH_WORKERS
@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_starts_no_program_on_the_engine(play: Start, ran: Callable[[], set[str]], name: str) -> None:
    found = play(f'{{command: "echo {{{{ {FILTERS[name]} }}}}"}}').ended()
    assert ran() == set()
    assert all(f"the filter {name} is refused" in message for message in messages(found)), messages(found)


ESCAPES = (
    "cycler.__init__.__globals__.os.popen('MARK').read()",
    "joiner['__init__']['__globals__'].os.popen('MARK').read()",
    "namespace.__init__.__globals__['os'].popen('MARK').read()",
    "lipsum.__globals__['os'].popen('MARK').read()",
    "(lipsum | attr('__globals__')).os.popen('MARK').read()",
    "([lipsum] | map(attribute='__globals__') | first).os.popen('MARK').read()",
)


@pytest.mark.parametrize("expression", ESCAPES)
def test_a_template_reaches_no_python(play: Start, ran: Callable[[], set[str]], expression: str) -> None:
    """Ansible's own sandbox, which is shut in stock as well; here so that it stays so."""
    found = play(f'{{debug: {{msg: "{{{{ {expression} }}}}"}}}}').ended()
    assert ran() == set()
    assert statuses(found) == {"failed"}, found


TAGS = {
    "python": "{command: !!python/object/apply:os.system [MARK]}",
    "python's module": "{command: !!python/module:os }",
    "unknown": "{command: !engine MARK}",
    "vault": "{command: !vault MARK}",
}


@pytest.mark.parametrize("case", TAGS)
def test_a_yaml_tag_makes_no_object(play: Start, ran: Callable[[], set[str]], case: str) -> None:
    """Refused in stock as well."""
    runner = play(TAGS[case])
    assert runner.result() == 0 or runner.named("unit_failed")
    assert not [done for done in runner.done().values() if done["status"] == "success"]
    assert ran() == set()


def test_unsafe_text_stays_text(play: Start) -> None:
    found = play(
        "{set_fact: {x: !unsafe \"{{ lookup('pipe', 'MARK') }}\"}}",
        "{assert: {that: [\"x.startswith('{' ~ '{')\"]}}",
    ).ended()
    assert statuses(found) == {"success"}, messages(found)


LOCAL_TASKS = {
    "delegated": "{command: MARK, delegate_to: localhost}",
    "local_action": "{local_action: {module: command, _raw_params: MARK}}",
    "keyword": "{command: MARK, connection: local}",
    "variable": "{command: MARK, vars: {ansible_connection: local}}",
}


@BOTH_WORKERS
@pytest.mark.parametrize("case", LOCAL_TASKS)
def test_where_the_operator_allows_it_tasks_run_on_the_engine(
    play: Start, ran: Callable[[], set[str]], case: str
) -> None:
    found = play(LOCAL_TASKS[case], allow_local=True).ended()
    assert statuses(found) == {"success"}, messages(found)
    assert ran() == {"engine"}


@BOTH_WORKERS
def test_where_the_operator_allows_it_plays_do_too_and_others_stay_out(
    playbook: Start, hosts: list[str], ran: Callable[[], set[str]]
) -> None:
    runner = playbook(
        """\
- {hosts: all, gather_facts: false, tasks: [{command: MARK}]}
- {hosts: localhost, gather_facts: false, tasks: [{command: MARK}]}
- {hosts: all, gather_facts: false, tasks: [{command: MARK, delegate_to: OTHER}]}
""",
        allow_local=True,
    )
    found = runner.ended()
    assert ran() == {*hosts, "engine"}
    assert statuses(found) == {"failed"}


@pytest.mark.parametrize("backend", ["embedded"], indirect=True)
@pytest.mark.parametrize(("allow", "status", "where"), [("no", "failed", set()), ("yes", "success", {"engine"})])
def test_the_configuration_decides(
    services: Services,
    share: Path,
    hosts: list[str],
    ran: Callable[[], set[str]],
    allow: str,
    status: str,
    where: set[str],
) -> None:
    services.start(Distribute={"FILES_DIR": share}, Exec_Engine={"ALLOW_LOCAL": allow, "FILES_DIR": share})
    content = f"- {{hosts: all, gather_facts: false, tasks: [{{local_action: command {share}/mark}}]}}\n"
    task_id = services.submit_playbook(hosts, content)
    found = services.wait_task(task_id)
    assert found["counts"][status] == len(hosts), services.api(f"/tasks/{task_id}/hosts/")["data"][0]["msg"]
    assert ran() == where
