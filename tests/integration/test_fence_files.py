"""Every way that a client's text knows to read or write a file of the engine, and how each ends.

Stock Ansible, given the same texts, shows, copies or writes the secret, unless a case says otherwise.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.vault import VaultLib, VaultSecret

from tests.runner_process import WAYS, Preloaded, Runner, make_job, one_play, preloaded
from tests.servers.fleet import Fleet

Start = Callable[..., Runner]
SECRET = "planted-7f3a91"
OUTSIDE = {  # files of the engine, beside the share
    "secret": f"{SECRET}\n",
    "secret.yml": f"planted: {SECRET}\n",
    "secret.ini": f"[a]\nkey={SECRET}\n",
    "secret.csv": f"key,{SECRET}\n",
    f"glob/{SECRET}.x": "",
    "parts/one": SECRET,
    "vars/secret.yml": f"planted: {SECRET}\n",
    "tasks.yml": f"- {{debug: {{msg: {SECRET}}}}}\n",
    "play.yml": f"- {{hosts: all, gather_facts: false, tasks: [{{fail: {{msg: {SECRET}}}}}]}}\n",
    "role/tasks/main.yml": f"- {{fail: {{msg: {SECRET}}}}}\n",
    "script": f"#!/bin/sh\necho {SECRET}\n",
    "spec.yml": f"vars: {{planted: {{key: {SECRET}}}}}\nkeys: {{planted: {{value: '{SECRET}', top: a}}}}\n",
    "macro": f"{{% macro planted() %}}{SECRET}{{% endmacro %}}",
}
SHARE = {
    "include.j2": "{% include 'link' %}",
    "import.j2": "{% import 'macro' as found %}{{ found.planted() }}",
    "search.j2": "{% include 'secret' %}",
    "extends.j2": "{% extends 'link' %}",
    "roles/vars/tasks/main.yml": "- fail: {msg: '{{ planted }}'}\n",
    "roles/defaults/tasks/main.yml": "- fail: {msg: '{{ planted }}'}\n",
    "roles/depending/meta/main.yml": "dependencies: [OUT/role]\n",
    "role/tasks/main.yml": "- debug: {msg: fine}\n",
    "folder/fine": "fine",
}
LINKS = {  # of the share, to files and folders outside
    "link": "secret",
    "link.yml": "secret.yml",
    "macro": "macro",
    "folder/link": "secret",
    "away": ".",
    "roles/linked": "role",
    "roles/tasks/tasks/main.yml": "tasks.yml",
    "roles/vars/vars/main.yml": "secret.yml",
    "roles/defaults/defaults/main.yml": "secret.yml",
    "vars_folder/link.yml": "secret.yml",
    "script": "script",
    "tasks.yml": "tasks.yml",
}


def fill_outside(outside: Path) -> None:
    for name, text in OUTSIDE.items():
        _write(outside / name, text)
    with tarfile.open(outside / "packed.tar", "w") as packed:
        packed.add(outside / "secret", "got")


def fill_share(share: Path, outside: Path) -> None:
    for name, text in SHARE.items():
        _write(share / name, named(text, share, outside))
    for name, target in LINKS.items():
        (share / name).parent.mkdir(parents=True, exist_ok=True)
        (share / name).symlink_to(outside / target)
    share.chmod(0o777)


def named(text: str, share: Path, outside: Path) -> str:
    """With OUT, UP and SHARE in it replaced: the folder outside, the way to it from the share, the share."""
    up = os.path.relpath(outside, share)
    return text.replace("OUT", str(outside)).replace("UP", up).replace("SHARE", str(share))


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Preloaded]:
    with preloaded(tmp_path_factory.mktemp("runners") / "log", {"PLANTED": SECRET}) as process:
        yield process


@pytest.fixture
def way() -> str:
    return "threads-asyncssh"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of the engine that is not the share, where SECRET lies in all kinds of files."""
    fill_outside(tmp_path)
    return tmp_path


@pytest.fixture
def share(server_directory: Path, outside: Path) -> Path:
    """FILES_DIR, where the hosts, which are this machine, may write too."""
    fill_share(server_directory, outside)
    return server_directory


@pytest.fixture
def playbook(parent: Preloaded, fleet: Fleet, share: Path, outside: Path, way: str) -> Start:
    """Starts a playbook; OUT, UP and SHARE in it are named()."""

    def start(content: str, **fields: Any) -> Runner:
        fields = WAYS[way] | {"playbook_content": named(content, share, outside)} | fields
        return parent.start(make_job(fleet.hosts(), fleet.port, fleet.key, share, **fields))

    return start


@pytest.fixture
def play(playbook: Start) -> Start:
    """Starts one play of these tasks, a line of YAML each; more are further lines of the play."""

    def start(*tasks: str, more: str = "", **fields: Any) -> Runner:
        return playbook(one_play(*tasks, more=more), **fields)

    return start


@pytest.fixture
def leaked(share: Path) -> Callable[[Runner], bool]:
    """Whether the secret is in what a runner said, or has come to its hosts."""

    return lambda runner: SECRET in str(runner.seen) + got(share)


def got(share: Path) -> str:
    """The names and contents of the files that have come to the hosts."""
    on_hosts = share / "got"
    paths = [on_hosts, *on_hosts.rglob("*")] if on_hosts.is_dir() else [on_hosts]
    return "".join(str(path) + path.read_text() for path in paths if path.is_file())


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def messages(runner: Runner) -> str:
    return "".join(f"{done['msg']} {done['stderr']} {done['detail']}" for done in runner.done().values())


EXPRESSIONS = {  # in templates; what the refusal names
    "pipe": ("lookup('pipe', 'cat OUT/secret')", "lookup pipe"),
    "pipe by query": ("query('pipe', 'cat OUT/secret')", "lookup pipe"),
    "pipe by its shortest form": ("q('pipe', 'cat OUT/secret')", "lookup pipe"),
    "pipe by its long name": ("lookup('ansible.builtin.pipe', 'cat OUT/secret')", "lookup ansible.builtin.pipe"),
    "pipe by its old name": ("lookup('ansible.legacy.pipe', 'cat OUT/secret')", "lookup ansible.legacy.pipe"),
    "lines": ("lookup('lines', 'cat OUT/secret')", "lookup lines"),
    "env": ("lookup('env', 'PLANTED')", "lookup env"),
    "url": ("lookup('url', 'file://OUT/secret')", "lookup url"),
    "config": ("lookup('config', 'DEFAULT_LOCAL_TMP') ~ 'SECRET'", "lookup config"),
    "filetree": ("lookup('community.general.filetree', 'OUT/glob')", "lookup community.general.filetree"),
    "file": ("lookup('file', 'OUT/secret')", "OUT/secret"),
    "file upwards": ("lookup('file', 'UP/secret')", "secret"),
    "file by a link": ("lookup('file', 'link')", "SHARE/link"),
    "file by a link's folder": ("lookup('file', 'away/secret')", "SHARE/away/secret"),
    "file by its long name": ("lookup('ansible.builtin.file', 'OUT/secret')", "OUT/secret"),
    "file in vain": ("lookup('file', 'OUT/none')", "OUT/none"),
    "file upwards in vain": ("lookup('file', 'UP/none')", "none"),
    "file ~": ("lookup('file', '~/none')", "/none"),
    "process": ("lookup('file', '/proc/self/environ')", "/proc/self/environ"),
    "template": ("lookup('template', 'OUT/secret')", "OUT/secret"),
    "template that includes": ("lookup('template', 'include.j2')", "SHARE/link"),
    "template that imports": ("lookup('template', 'import.j2')", "SHARE/macro"),
    "ini": ("lookup('ini', 'key section=a file=OUT/secret.ini')", "OUT/secret.ini"),
    "csvfile": ("lookup('csvfile', 'key file=OUT/secret.csv delimiter=,')", "OUT/secret.csv"),
    "unvault": ("lookup('unvault', 'OUT/secret')", "OUT/secret"),
    "fileglob": ("lookup('fileglob', 'OUT/glob/*')", "OUT/glob"),
    "fileglob of a link": ("lookup('fileglob', 'away/glob/*')", "SHARE/away/glob"),
    "first_found": ("lookup('first_found', ['OUT/secret'])", "OUT/secret"),
    "first_found in vain": ("lookup('first_found', ['OUT/none', 'folder/fine'])", "OUT/none"),
    "password": ("lookup('password', 'OUT/secret')", "OUT/secret"),
    "filter fileglob": ("'OUT/glob/*' | fileglob", "OUT/glob/*"),
    "filter fileglob of a link": ("'SHARE/away/glob/*' | fileglob", "SHARE/away/glob/*"),
    "filter fileglob of any folder": ("'SHARE/*/glob/*' | fileglob", "SHARE/*/glob/*"),
    "filter fileglob by map": ("['OUT/glob/*'] | map('fileglob') | list", "OUT/glob/*"),
    "filter realpath": ("'SHARE/link' | realpath", "SHARE/link"),
    "filter expandvars": ("'$PLANTED' | expandvars", "filter ansible.builtin.expandvars"),
    "filter expanduser": ("'~' | expanduser", "filter ansible.builtin.expanduser"),
    "filter parse_xml": ("'<a/>' | ansible.netcommon.parse_xml('OUT/spec.yml')", "filter ansible.netcommon.parse_xml"),
    "filter of another collection": ("'x' | community.sops.decrypt", "filter community.sops.decrypt"),
    "test file": ("'OUT/secret' is file", "OUT/secret"),
    "test file in vain": ("'OUT/none' is file", "OUT/none"),
    "test exists": ("'OUT/secret' is ansible.builtin.exists", "OUT/secret"),
    "test link_exists": ("'OUT/secret' is link_exists", "OUT/secret"),
    "test directory": ("'OUT' is directory", "OUT"),
    "test is_dir": ("'OUT' is is_dir", "OUT"),
    "test link": ("'OUT' is link", "OUT"),
    "test mount": ("'/proc' is mount", "/proc"),
    "test same_file": ("'SHARE/include.j2' is same_file('OUT/secret')", "OUT/secret"),
    "test vaulted_file": ("'OUT/secret' is vaulted_file", "OUT/secret"),
    "tests by select": ("['OUT/secret'] | select('file') | list", "OUT/secret"),
}
TASKS = {
    "copy": ("copy: {src: OUT/secret, dest: SHARE/got}", "OUT/secret"),
    "copy upwards": ("copy: {src: UP/secret, dest: SHARE/got}", "secret"),
    "copy by its long name": ("ansible.builtin.copy: {src: OUT/secret, dest: SHARE/got}", "OUT/secret"),
    "copy by its old name": ("ansible.legacy.copy: {src: OUT/secret, dest: SHARE/got}", "OUT/secret"),
    "copy by action": ("action: copy src=OUT/secret dest=SHARE/got", "OUT/secret"),
    "copy by module_defaults": (
        "{copy: {dest: SHARE/got}, module_defaults: {copy: {src: OUT/secret}}}",
        "OUT/secret",
    ),
    "copy of a link": ("copy: {src: link, dest: SHARE/got}", "SHARE/link"),
    "copy of a folder": ("copy: {src: OUT/parts, dest: SHARE/got}", "OUT/parts"),
    "copy of a folder with a link": ("copy: {src: folder, dest: SHARE/got}", "OUT/secret"),
    "copy of a linked folder": ("copy: {src: away/parts/, dest: SHARE/got}", "SHARE/away/parts/"),
    "copy without decrypting": ("copy: {src: OUT/secret, dest: SHARE/got, decrypt: false}", "OUT/secret"),
    "script": ("script: OUT/script", "OUT/script"),
    "script by a link": ("script: script", "SHARE/script"),
    "template": ("template: {src: OUT/secret, dest: SHARE/got}", "OUT/secret"),
    "template upwards": ("template: {src: UP/secret, dest: SHARE/got}", "secret"),
    "template by a link": ("template: {src: link, dest: SHARE/got}", "SHARE/link"),
    "template that includes": ("template: {src: include.j2, dest: SHARE/got}", "SHARE/link"),
    "template that imports": ("template: {src: import.j2, dest: SHARE/got}", "SHARE/macro"),
    "template that extends": ("template: {src: extends.j2, dest: SHARE/got}", "SHARE/link"),
    "template with signs of its own": (
        "template: {src: include.j2, dest: SHARE/got, variable_start_string: '<<', variable_end_string: '>>'}",
        "SHARE/link",
    ),
    "template with a search path": (
        "{template: {src: search.j2, dest: SHARE/got}, loop: [[OUT]], loop_control: {loop_var: ansible_search_path}}",
        "secret",
    ),
    "unarchive": ("unarchive: {src: OUT/packed.tar, dest: SHARE}", "OUT/packed.tar"),
    "assemble": ("assemble: {src: OUT/parts, dest: SHARE/got, remote_src: false}", "OUT/parts"),
    "assemble with a link": ("assemble: {src: folder, dest: SHARE/got, remote_src: false}", "SHARE/folder/link"),
    "uri": ("uri: {url: 'http://127.0.0.1:9', method: PUT, src: OUT/secret, remote_src: false}", "OUT/secret"),
    "uri in parts": (
        "uri: {url: 'http://127.0.0.1:9', method: PUT, body_format: form-multipart, body: {a: {filename: OUT/secret}}}",
        "OUT/secret",
    ),
    "patch": ("ansible.posix.patch: {src: OUT/secret, dest: SHARE/got}", "OUT/secret"),
    "include_vars": ("{include_vars: OUT/secret.yml, register: found}", "OUT/secret.yml"),
    "include_vars by a link": ("include_vars: link.yml", "SHARE/link.yml"),
    "include_vars of a folder": ("include_vars: {dir: OUT/vars}", "OUT/vars"),
    "include_vars of a folder upwards": ("include_vars: {dir: UP/vars}", "vars"),
    "include_vars of a folder with a link": ("include_vars: {dir: SHARE/vars_folder}", "SHARE/vars_folder/link.yml"),
    "include_tasks": ("include_tasks: OUT/tasks.yml", "OUT/tasks.yml"),
    "include_tasks by a link": ("include_tasks: tasks.yml", "SHARE/tasks.yml"),
    "include_tasks upwards": ("include_tasks: UP/tasks.yml", "tasks.yml"),
    "with_file": ("{debug: {msg: '{{ item }}'}, with_file: [OUT/secret]}", "OUT/secret"),
    "with_fileglob": ("{debug: {msg: '{{ item }}'}, with_fileglob: ['OUT/glob/*']}", "OUT/glob"),
    "with_lines": ("{debug: {msg: '{{ item }}'}, with_lines: [cat OUT/secret]}", "lookup lines"),
    "with_pipe": ("{debug: {msg: '{{ item }}'}, with_pipe: [cat OUT/secret]}", "lookup pipe"),
    "with_env": ("{debug: {msg: '{{ item }}'}, with_env: [PLANTED]}", "lookup env"),
    "with_first_found": ("{debug: {msg: '{{ item }}'}, with_first_found: [OUT/secret]}", "OUT/secret"),
    "with_url": ("{debug: {msg: '{{ item }}'}, with_url: ['file://OUT/secret']}", "lookup url"),
    "with_ini": ("{debug: {msg: '{{ item }}'}, with_ini: ['key section=a file=OUT/secret.ini']}", "OUT/secret.ini"),
    "with_csvfile": (
        "{debug: {msg: '{{ item }}'}, with_csvfile: ['key file=OUT/secret.csv delimiter=,']}",
        "OUT/secret.csv",
    ),
    "with_template": ("{debug: {msg: '{{ item }}'}, with_template: [OUT/secret]}", "OUT/secret"),
    "with_unvault": ("{debug: {msg: '{{ item }}'}, with_unvault: [OUT/secret]}", "OUT/secret"),
    "with_config": ("{debug: {msg: '{{ item }}'}, with_config: [DEFAULT_LOCAL_TMP]}", "lookup config"),
    "fileglob with a search path": (
        "{debug: {msg: \"{{ query('fileglob', '*.x') }}\"}, loop: [[OUT/glob]],"
        " loop_control: {loop_var: ansible_search_path}}",
        "*.x",
    ),
    "when": ("{debug: {msg: x}, when: \"lookup('pipe', 'cat OUT/secret') != ''\"}", "lookup pipe"),
    "variable": (
        "{debug: {msg: '{{ later }}'}, vars: {later: \"{{ lookup('pipe', 'cat OUT/secret') }}\"}}",
        "lookup pipe",
    ),
}
TASKS |= {
    f"{name} as a template": (f'debug: {{msg: "{{{{ {text} }}}}"}}', says) for name, (text, says) in EXPRESSIONS.items()
}


def task_line(text: str) -> str:
    return text if text.startswith("{") else f"{{{text}}}"


@pytest.mark.parametrize("way", ["threads-asyncssh", "processes"])
@pytest.mark.parametrize("case", TASKS)
def test_a_task_that_would_read_outside_the_share_fails_with_its_reason(
    play: Start, leaked: Callable[[Runner], bool], share: Path, outside: Path, case: str
) -> None:
    text, says = TASKS[case]
    runner = play(task_line(text))
    runner.ended()
    assert not leaked(runner)
    assert {done["status"] for done in runner.done().values()} == {"failed"}, messages(runner)
    says = says.replace("OUT", str(outside)).replace("SHARE", str(share))
    assert f"{says} is refused" in messages(runner)
    assert "on the engine" in messages(runner)


ROLES = {  # further lines of a play, its tasks, and what the refusal names
    "import_tasks": ("", "import_tasks: OUT/tasks.yml", "OUT/tasks.yml"),
    "import_tasks by a link": ("", "import_tasks: tasks.yml", "SHARE/tasks.yml"),
    "vars_files": ("  vars_files: [OUT/secret.yml]\n", "fail: {msg: '{{ planted }}'}", "OUT/secret.yml"),
    "vars_files by a link": ("  vars_files: [link.yml]\n", "fail: {msg: '{{ planted }}'}", "SHARE/link.yml"),
    "roles": ("  roles: [OUT/role]\n", "debug: {msg: x}", "OUT/role"),
    "roles by a link": ("  roles: [linked]\n", "debug: {msg: x}", "OUT/role"),
    "import_role": ("", "import_role: {name: OUT/role}", "OUT/role"),
    "import_role of a file": ("", "import_role: {name: SHARE/role, tasks_from: UP/../../UP/tasks.yml}", ""),
    "include_role": ("", "include_role: {name: OUT/role}", "OUT/role"),
    "include_role by a link": ("", "include_role: {name: linked}", "OUT/role"),
    "include_role for all": ("", "include_role: {name: OUT/role, public: true}", "OUT/role"),
    "a role's dependency": ("", "include_role: {name: depending}", "OUT/role"),
    "a role's tasks by a link": ("", "include_role: {name: tasks}", "SHARE/roles/tasks/tasks/main.yml"),
    "a role's variables by a link": ("", "include_role: {name: vars}", "SHARE/roles/vars/vars/main.yml"),
    "a role's defaults by a link": ("", "include_role: {name: defaults}", "SHARE/roles/defaults/defaults/main.yml"),
    "include_role of a file": ("", "include_role: {name: SHARE/role, tasks_from: OUT/tasks.yml}", ""),
}


@pytest.mark.parametrize("way", ["threads-asyncssh", "processes"])
@pytest.mark.parametrize("case", ROLES)
def test_tasks_roles_and_variables_outside_the_share_are_not_loaded(
    play: Start, leaked: Callable[[Runner], bool], share: Path, outside: Path, case: str
) -> None:
    """What is loaded before the first task fails on all hosts. Stock refuses files outside a role by itself."""
    more, task, says = ROLES[case]
    runner = play(task_line(task), more=more.replace("OUT", str(outside)))
    runner.result()
    assert not leaked(runner)
    reasons = messages(runner) + "".join(event["reason"] for event in runner.named("unit_failed"))
    assert not [done for done in runner.done().values() if done["status"] == "success"], reasons
    says = says.replace("OUT", str(outside)).replace("SHARE", str(share))
    assert (f"{says} is refused" if says else "") in reasons


GROUP_VARS = {  # a link in the share, what it leads to outside
    "group_vars/all.yml": "secret.yml",
    "group_vars/target_hosts": "vars",
    "group_vars": ".",
    "host_vars/127.100.0.1.yml": "secret.yml",
}


@pytest.mark.parametrize("link", GROUP_VARS)
def test_variables_of_groups_and_hosts_outside_the_share_are_not_loaded(
    play: Start, leaked: Callable[[Runner], bool], share: Path, outside: Path, link: str
) -> None:
    link_group_vars(share, outside, link)
    runner = play("{fail: {msg: '{{ planted }}'}}")
    runner.result()
    assert not leaked(runner)
    reasons = messages(runner) + "".join(event["reason"] for event in runner.named("unit_failed"))
    assert "is refused: on the engine only files below" in reasons


def link_group_vars(share: Path, outside: Path, link: str) -> None:
    (outside / "all.yml").symlink_to("secret.yml")
    (share / link).parent.mkdir(exist_ok=True)
    (share / link).symlink_to(outside / GROUP_VARS[link])


IMPORTED = ("OUT/play.yml", "UP/play.yml", "away/play.yml")


@pytest.mark.parametrize("path", IMPORTED)
def test_a_playbook_outside_the_share_is_not_imported(
    playbook: Start, leaked: Callable[[Runner], bool], path: str
) -> None:
    runner = playbook(f"- import_playbook: {path}\n")
    runner.ended(code=1)
    assert not leaked(runner)
    (event,) = runner.named("unit_failed")
    assert "play.yml is refused: on the engine only files below" in event["reason"]


AD_HOC: tuple[tuple[str, str | dict[str, str]], ...] = (
    ("copy", "src=OUT/secret dest=SHARE/got"),
    ("copy", {"src": "OUT/secret", "dest": "SHARE/got"}),
    ("script", "OUT/script"),
    ("command", "echo {{ lookup('pipe', 'cat OUT/secret') }}"),
    ("copy", {"content": "{{ lookup('file', 'OUT/secret') }}", "dest": "SHARE/got"}),
)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("module", "args"), AD_HOC)
def test_ad_hoc_arguments_read_nothing_outside_the_share(
    parent: Preloaded,
    fleet: Fleet,
    leaked: Callable[[Runner], bool],
    share: Path,
    outside: Path,
    way: str,
    module: str,
    args: str | dict[str, str],
) -> None:
    if isinstance(args, str):
        given: str | dict[str, str] = named(args, share, outside)
    else:
        given = {key: named(value, share, outside) for key, value in args.items()}
    runner = parent.start(
        make_job(fleet.hosts(), fleet.port, fleet.key, share, module=module, args=given, template=True, **WAYS[way])
    )
    (done,) = runner.ended().values()
    assert not leaked(runner)
    assert done["status"] == "failed"
    assert "is refused" in done["msg"]


WRITING = (
    "{fetch: {src: SHARE/folder/fine, dest: OUT/new}}",
    "{fetch: {src: SHARE/folder/fine, dest: OUT/new, flat: true}}",
    "{ansible.builtin.fetch: {src: SHARE/folder/fine, dest: SHARE/new}}",
    "{ansible.legacy.fetch: {src: SHARE/folder/fine, dest: SHARE/new}}",
    "{debug: {msg: \"{{ lookup('password', 'OUT/new') }}\"}}",
    "{debug: {msg: \"{{ lookup('password', 'SHARE/new length=8') }}\"}}",
    "{debug: {msg: '{{ item }}'}, with_password: [new]}",
)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("task", WRITING)
def test_nothing_is_written_on_the_engine(play: Start, share: Path, outside: Path, task: str) -> None:
    runner = play(task)
    runner.ended()
    assert {done["status"] for done in runner.done().values()} == {"failed"}
    assert "is refused: it writes on the engine" in messages(runner)
    assert not (outside / "new").exists()
    assert not (share / "new").exists()


def test_the_vault_password_is_used_and_not_read(
    play: Start, outside: Path, leaked: Callable[[Runner], bool], share: Path
) -> None:
    """It lies outside the share, and vaulted files in it are opened all the same."""
    lib = VaultLib([("default", VaultSecret(SECRET.encode()))])
    (share / "hidden.yml").write_bytes(lib.encrypt("hidden: found"))
    runner = play(
        "{include_vars: hidden.yml}",
        "{assert: {that: [hidden == 'found']}}",
        "{debug: {msg: \"{{ lookup('file', 'OUT/secret') }}\"}}",
        vault_password_file=str(outside / "secret"),
    )
    (done,) = runner.ended().values()
    assert [row["status"] for row in done["detail"]["tasks"]] == ["ok", "ok", "failed"]
    assert "is refused" in done["msg"]
    assert not leaked(runner)


@pytest.mark.parametrize("way", WAYS)
def test_collections_beside_the_playbook_are_left_out(play: Start, share: Path) -> None:
    """Stock's command tells the loader of collections where the playbook lies; here nobody does."""
    _write(share / "collections/ansible_collections/own/one/roles/role/tasks/main.yml", "- debug: {msg: x}\n")
    runner = play("{include_role: {name: own.one.role}}")
    runner.ended()
    assert {done["status"] for done in runner.done().values()} == {"failed"}
    assert "own.one.role" in messages(runner)


def test_roles_are_looked_for_in_the_share_alone(play: Start, share: Path) -> None:
    """Not in the folders of the user and of the system."""
    runner = play("{include_role: {name: nowhere}}")
    runner.ended()
    assert f"the role 'nowhere' was not found in {share}/roles:{share}" in messages(runner)


FINE = {  # files of the share, as playbooks use them
    "files/text": "of files",
    "data.ini": "[a]\nkey=of ini\n",
    "data.csv": "key,of csv\n",
    "templates/outer.j2": "{% include 'inner.j2' %} {% import 'inner.j2' as inner %}{{ inner.name }}",
    "templates/inner.j2": "{% set name = 'imported' %}included",
    "vars/more.yml": "more: of vars\n",
    "group_vars/target_hosts.yml": "of_group: 1\n",
    "host_vars/127.100.0.1/one.yml": "of_host: 1\n",
    "all_vars/one.yml": "one: 1\n",
    "all_vars/deeper/two.yml": "two: 2\n",
    "more_tasks.yml": "- {set_fact: {included: true}}\n",
    "roles/own/tasks/main.yml": "- {include_tasks: next.yml}\n",
    "roles/own/tasks/next.yml": "- {copy: {src: own, dest: 'HOST/own'}}\n",
    "roles/own/files/own": "of role",
    "parts/1": "one ",
    "parts/2": "two",
    "tree/a/b": "deep",
    "run.sh": "#!/bin/sh\necho ran\n",
}


@pytest.mark.parametrize("way", WAYS)
def test_what_lies_in_the_share_is_read_as_ever(play: Start, share: Path, outside: Path) -> None:
    host = share / "host"
    host.mkdir(mode=0o777)
    host.chmod(0o777)
    for name, text in FINE.items():
        _write(share / name, text.replace("HOST", str(host)))
    (share / "tree/inner").symlink_to(share / "files/text")
    with tarfile.open(share / "files/packed.tar", "w") as packed:
        packed.add(share / "parts/1", "unpacked")
    conditions = (
        "lookup('file', 'text') == 'of files'",
        "lookup('file', 'SHARE/files/text') == 'of files'",
        "lookup('file', 'tree/../files/text') == 'of files'",
        "lookup('ini', 'key section=a file=data.ini') == 'of ini'",
        "lookup('csvfile', 'key file=data.csv delimiter=,') == 'of csv'",
        "lookup('template', 'outer.j2') == 'included imported'",
        "lookup('unvault', 'files/text') == 'of files'",
        "query('fileglob', 'text') == ['SHARE/files/text']",
        "lookup('first_found', ['none', 'files/text']) == 'SHARE/files/text'",
        "lookup('password', '/dev/null length=8') | length == 8",
        "query('sequence', 'count=2') == ['1', '2']",
        "lookup('dict', {'a': 1}).key == 'a'",
        "lookup('vars', 'inventory_hostname') == inventory_hostname",
        "query('community.general.flattened', [1, [2]]) | length == 2",
        "'SHARE/files/text' is file",
        "'SHARE/none' is not exists",
        "'SHARE/files' | realpath == 'SHARE/files'",
        "'SHARE/parts/*' | fileglob | length == 2",
        "'a' | upper == 'A' and 'a' | b64encode == 'YQ==' and [1, 2] | sum == 3 and 3 is odd",
        "'1.2.3' is version('1.2', '>') and 1 | community.general.dict_kv('a') == {'a': 1}",
    )
    runner = play(
        f"{{assert: {{that: {json.dumps(conditions)}}}}}",
        "{debug: {msg: '{{ item }}'}, with_file: [text]}",
        "{assert: {that: [of_group == 1, of_host == 1]}}",
        "{include_vars: more.yml}",
        "{include_vars: {dir: all_vars}}",
        "{assert: {that: [more == 'of vars', one == 1, two == 2]}}",
        "{include_tasks: more_tasks.yml}",
        "{import_tasks: more_tasks.yml}",
        "{assert: {that: [included]}}",
        "{include_role: {name: own}}",
        f"{{copy: {{src: text, dest: {host}/copied}}}}",
        f"{{copy: {{src: tree, dest: {host}}}}}",
        f"{{template: {{src: outer.j2, dest: {host}/templated}}}}",
        f"{{assemble: {{src: parts, dest: {host}/assembled, remote_src: false}}}}",
        f"{{unarchive: {{src: packed.tar, dest: {host}}}}}",
        "{script: run.sh}",
        more="  vars_files: [more.yml, /dev/null]\n",
    )
    runner.ended()
    assert {done["status"] for done in runner.done().values()} == {"success"}, messages(runner)
    got = {str(path.relative_to(host)): path.read_text() for path in host.rglob("*") if path.is_file()}
    assert got == {
        "own": "of role",
        "copied": "of files",
        "tree/a/b": "deep",
        "tree/inner": "of files",
        "templated": "included imported",
        "assembled": "one \ntwo",
        "unpacked": "one ",
    }
