"""A task reads the version of a project that it was submitted with, whatever the project's link shows by now.

Here it always shows another one.
"""

from __future__ import annotations

import ast
import base64
import json
import os
import re
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import ansible
import pytest

from contract import project_files
from execute_engine.fence.files import COLLECTIONS
from execute_engine.fence.lookups import LOOKUPS
from execute_engine.fence.places import _MORE_HARMLESS_ACTIONS
from tests.project_share import A, B, add_version
from tests.runner_process import WAYS, Preloaded, Runner, make_job, one_play, preloaded
from tests.servers.fleet import Fleet

Start = Callable[..., Runner]
PINNED = {"app": A, "team/web": A}
OTHERS = "other"  # a project without a version of its own in the task


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Preloaded]:
    with preloaded(tmp_path_factory.mktemp("runners") / "log") as process:
        yield process


@pytest.fixture
def way() -> str:
    return "threads-asyncssh"


@pytest.fixture
def uploads() -> Iterator[Uploads]:
    with HTTPServer(("127.0.0.1", 0), Uploads) as server:
        Uploads.bodies = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        Uploads.port = server.server_port
        yield Uploads  # type: ignore[misc]
        server.shutdown()
        thread.join()


class Uploads(BaseHTTPRequestHandler):
    """Keeps what is sent to it."""

    bodies: ClassVar[list[str]] = []
    port = 0

    def do_PUT(self) -> None:
        self.bodies.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Not on stderr."""


def that(*conditions: str) -> str:
    """A task that fails where one of them is not true."""
    return f"{{assert: {{that: {json.dumps(conditions)}}}}}"


@pytest.fixture
def host(server_directory: Path) -> Path:
    """Where the hosts, which are this machine, may write."""
    server_directory.chmod(0o755)
    folder = server_directory / "host"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


def files_of(version: str, host: Path) -> dict[str, str]:
    """What a version consists of: the same names, and which version it is in each."""
    return {
        "text": f"of {version}",
        f"only_{version}": "",
        f"{version}.glob": "",
        "outer.j2": "{% include 'inner.j2' %} {% include 'PROJECT/inner.j2' %} {% import 'macro.j2' as m %}{{ m.of }}",
        "inner.j2": f"of {version}",
        "macro.j2": f"{{% set of = 'of {version}' %}}",
        "data.ini": f"[a]\nkey=of {version}\n",
        "data.csv": f"key,of {version}\n",
        "vars.yml": f"in_file: of {version}\n",
        f"vars_folder/{version}.yml": f"in_folder: of {version}\n",
        "tasks.yml": f"- {{set_fact: {{seen: of {version}}}}}\n",
        "play.yml": one_play(
            f"{{copy: {{src: text, dest: '{host}/of_play'}}}}",
            that(f"query('fileglob', '{'b' if version == 'a' else 'a'}.glob') == []"),
        ),
        "roles/own/tasks/main.yml": "".join(
            f"- {task}\n"
            for task in (
                f"{{copy: {{src: own, dest: '{host}/of_role'}}}}",
                "{include_tasks: next.yml}",
                "{include_vars: {dir: more}}",
                f"{{assert: {{that: [in_role == 'of {version}', seen_in_role == in_role, of_defaults == in_role]}}}}",
                f"{{include_vars: {{dir: vars/only_{version}}}}}",
                that("in_only == in_role", f"query('fileglob', '*.glob') | map('basename') == ['{version}.glob']"),
            )
        ),
        "roles/own/tasks/next.yml": f"- {{set_fact: {{in_role: of {version}}}}}\n",
        "roles/own/defaults/main.yml": f"of_defaults: of {version}\n",
        f"roles/own/vars/more/{version}.yml": f"seen_in_role: of {version}\n",
        f"roles/own/vars/only_{version}/one.yml": f"in_only: of {version}\n",
        "roles/own/files/own": f"of {version}",
        f"roles/own/files/{version}.glob": "",
        "parts/1": f"of {version},\n",
        f"parts/2{version}": f"of {version}",
        f"tree/deep/{version}": f"of {version}",
        "run.sh": f"#!/bin/sh\necho of {version}\n",
        "patch": f"--- a\n+++ b\n@@ -1 +1 @@\n-before\n+of {version}\n",
    }


@pytest.fixture
def files_dir(server_directory: Path, host: Path) -> Path:
    folder = server_directory / "files"
    for project in (*PINNED, OTHERS):
        for commit, version in ((A, "a"), (B, "b")):
            texts = {name: text.replace("PROJECT", project) for name, text in files_of(version, host).items()}
            made = add_version(folder, project, commit, texts)
            (made / "link").symlink_to("text")
            with tarfile.open(made / "packed.tar", "w") as packed:
                packed.add(made / "text", "unpacked")
    return folder


@pytest.fixture
def play(parent: Preloaded, fleet: Fleet, files_dir: Path, host: Path, way: str) -> Start:
    """Starts one play of these tasks, or the content of a playbook; FILES and HOST in it are folders."""

    def start(*tasks: str, content: str = "", more: str = "", **fields: Any) -> Runner:
        content = content or one_play(*tasks, more=more)
        content = content.replace("FILES", str(files_dir)).replace("HOST", str(host))
        fields = WAYS[way] | {"projects": PINNED, "playbook_content": content} | fields
        hosts = fleet.hosts(count=fields.pop("count", 1))
        return parent.start(make_job(hosts, fleet.port, fleet.key, files_dir, **fields))

    return start


def succeeded(runner: Runner) -> None:
    runner.result()
    failed = [event["reason"] for event in runner.named("unit_failed")]
    said = "".join(f"{done['msg']} {done['stderr']} {done['detail']}" for done in runner.done().values())
    assert ({done["status"] for done in runner.done().values()}, failed) == ({"success"}, []), said


def in_folder(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


SEEN = "{assert: {that: [seen == 'of a']}}"
FORGET = "{set_fact: {seen: forgotten}}"
READING: dict[str, list[str]] = {  # the tasks by which each plugin that reads a file of the engine is tried
    "action/assemble": ["{assemble: {src: IN/parts, dest: HOST/assembled, remote_src: false}}"],
    "action/copy": [
        "{copy: {src: IN/text, dest: HOST/copied}}",
        "{copy: {src: IN/tree, dest: HOST}}",
    ],
    "action/include_vars": [
        "{include_vars: IN/vars.yml}",
        "{include_vars: {dir: IN/vars_folder}}",
        that("in_file == 'of a'", "in_folder == 'of a'"),
    ],
    "action/script": ["{script: IN/run.sh, register: ran}", that("ran.stdout_lines == ['of a']")],
    "action/template": ["{template: {src: IN/outer.j2, dest: HOST/templated}}"],
    "action/unarchive": ["{unarchive: {src: IN/packed.tar, dest: HOST}}"],
    "action/uri": [
        "{uri: {url: 'http://127.0.0.1:PORT', method: PUT, src: IN/text, remote_src: false}}",
        "{uri: {url: 'http://127.0.0.1:PORT', method: PUT, body_format: form-multipart, body: {a: PART}}}".replace(
            "PART", "{filename: IN/text}"
        ),
    ],
    "action/ansible.posix.patch": [
        '{copy: {content: "before\\n", dest: HOST/patched}}',
        "{ansible.posix.patch: {src: IN/patch, dest: HOST/patched}}",
    ],
    "lookup/csvfile": [that("lookup('csvfile', 'key file=IN/data.csv delimiter=,') == 'of a'")],
    "lookup/file": [
        that("lookup('file', 'IN/text') == 'of a'"),
        "{assert: {that: [item == 'of a']}, with_file: [IN/text]}",
    ],
    "lookup/fileglob": [
        that("query('fileglob', 'IN/*.glob') | map('basename') == ['a.glob']"),
        that("lookup('file', query('fileglob', 'IN/tex*')[0]) == 'of a'"),
    ],
    "lookup/first_found": [
        that("lookup('file', lookup('first_found', ['IN/only_b', 'IN/text'])) == 'of a'"),
        "{assert: {that: [item | basename == 'only_a']}, with_first_found: [IN/only_b, IN/only_a]}",
    ],
    "lookup/ini": [that("lookup('ini', 'key section=a file=IN/data.ini') == 'of a'")],
    "lookup/template": [that("lookup('template', 'IN/outer.j2') == 'of a of a of a'")],
    "lookup/unvault": [that("lookup('unvault', 'IN/text') == 'of a'")],
    "not a plugin": [
        FORGET,
        "{include_tasks: IN/tasks.yml}",
        SEEN,
        FORGET,
        "{import_tasks: IN/tasks.yml}",
        SEEN,
        "{include_role: {name: IN/roles/own}}",
    ],
    "filters and tests": [
        that("'AT/only_a' is exists", "'AT/only_b' is not exists", "'AT/only_a' is file"),
        that("'AT/*.glob' | fileglob | map('basename') == ['a.glob']"),
        that("lookup('file', 'AT/text' | realpath) == 'of a'"),
    ],
}
WRITTEN = {
    **dict.fromkeys(("copied", "tree/deep/a", "unpacked"), "of a"),
    "assembled": "of a,\nof a",
    "templated": "of a of a of a",
    "patched": "of a\n",
    "of_role": "of a",
}
READ_NO_FILE = {  # they have the loader, and do not look at a client's path with it
    "action/fetch": "refused",
    "action/shell": "runs command",
    "action/community.general.iptables_state": "gives it to the action that runs its module",
    "lookup/config": "refused",
    "lookup/lines": "refused",
    "lookup/inventory_hostnames": "reads the inventory, which has no file",
    "lookup/password": "only /dev/null",
    "lookup/community.general.dependent": "templates with it",
}


def test_every_plugin_that_reads_a_file_of_the_engine_is_tried() -> None:
    plugins = Path(ansible.__file__).parent / "plugins"
    sources = {
        f"{kind}/{path.stem}": path for kind in ("action", "lookup") for path in (plugins / kind).glob("[a-z]*.py")
    }
    collections = [("lookup", name) for name in LOOKUPS if not name.startswith("ansible.builtin.")]
    for kind, name in (*collections, *(("action", name) for name in _MORE_HARMLESS_ACTIONS)):
        owner, collection, plugin = name.split(".")
        sources[f"{kind}/{name}"] = Path(COLLECTIONS, owner, collection, f"plugins/{kind}/{plugin}.py")
    reading = {name for name, path in sources.items() if _reads(ast.parse(path.read_text()))}
    assert reading - set(READ_NO_FILE) == {name for name in READING if "/" in name}


def _reads(tree: ast.AST) -> bool:
    asked = {"_loader", "_find_needle", "find_file_in_search_path"}
    return any(isinstance(node, ast.Attribute) and node.attr in asked for node in ast.walk(tree))


@pytest.mark.parametrize(
    ("written", "way"),
    [
        ("app", "processes"),
        ("FILES/team/web", "threads-asyncssh"),
        (f"FILES/.versions/app/{B}", "threads-asyncssh"),
    ],
)
def test_whatever_reads_a_file_of_a_project_reads_the_version_of_the_task(
    play: Start, files_dir: Path, host: Path, uploads: Uploads, written: str
) -> None:
    """By its name, by an absolute path, and where something has followed the link before."""
    absolute = written if written.startswith("FILES") else f"FILES/{written}"
    tasks = [
        task.replace("IN", written).replace("AT", absolute).replace("PORT", str(uploads.port))
        for some in READING.values()
        for task in some
    ]
    succeeded(play(*tasks, more=f"  vars_files: [{written}/vars.yml]\n"))
    assert in_folder(host) == WRITTEN
    assert uploads.bodies[0] == "of a"
    assert base64.b64encode(b"of a").decode() in uploads.bodies[1]


@pytest.mark.parametrize(
    ("written", "way"), [("app/play.yml", "processes"), ("FILES/team/web/play.yml", "threads-asyncssh")]
)
def test_a_play_of_a_project_is_of_the_version_of_the_task(play: Start, host: Path, written: str) -> None:
    succeeded(play(content=f"- import_playbook: {written}\n"))
    assert in_folder(host) == {"of_play": "of a"}


@pytest.mark.parametrize("written", ["team/small", "FILES/team/small", "team/small/"])
def test_a_whole_project_is_copied_as_a_folder_of_its_name(
    play: Start, files_dir: Path, host: Path, written: str
) -> None:
    for commit in (A, B):
        add_version(files_dir, "team/small", commit, {"deep/text": f"of {commit[0]}", f"only_{commit[0]}": ""})
    succeeded(play(f"{{copy: {{src: {written}, dest: HOST}}}}", projects={"team/small": A}))
    folder = "" if written.endswith("/") else "small/"
    assert in_folder(host) == {f"{folder}deep/text": "of a", f"{folder}only_a": ""}


def test_a_role_by_its_name_in_a_project_is_of_the_version_of_the_task(
    play: Start, files_dir: Path, host: Path
) -> None:
    for commit in (A, B):
        folder = project_files.version(files_dir, "app", commit)
        (folder / "roles.yml").write_text("- {hosts: all, gather_facts: false, roles: [own]}\n")
        (folder / "roles/own/meta").mkdir()
        (folder / "roles/own/meta/main.yml").write_text("dependencies: [next]\n")
        (folder / "roles/next/tasks").mkdir(parents=True)
        (folder / "roles/next/tasks/main.yml").write_text(
            f"- {{copy: {{content: 'of {commit[0]}', dest: '{host}/of_next'}}}}\n"
        )
    succeeded(play(content="- import_playbook: app/roles.yml\n"))
    assert in_folder(host) == {"of_role": "of a", "of_next": "of a"}


@pytest.mark.parametrize("only_in", [A, B], ids=["only pinned", "only shown"])
def test_group_vars_beside_a_play_of_a_project_are_of_the_version_of_the_task(
    play: Start, files_dir: Path, fleet: Fleet, host: Path, only_in: str
) -> None:
    for commit in (A, B):
        folder = project_files.version(files_dir, "app", commit)
        task = f"{{copy: {{content: '{{{{ a }}}} {{{{ b | default(0) }}}}', dest: '{host}/told'}}}}"
        (folder / "vars_play.yml").write_text(one_play(task))
        (folder / "group_vars").mkdir()
        (folder / "group_vars/all.yml").write_text(f"a: of {commit[0]}\n")
        if commit == only_in:
            (folder / "host_vars").mkdir()
            for name in fleet.hosts():
                (folder / "host_vars" / f"{name}.yml").write_text("b: by host\n")
    succeeded(play(content="- import_playbook: app/vars_play.yml\n"))
    assert in_folder(host) == {"told": "of a by host" if only_in == A else "of a 0"}


def test_one_project_reads_another_ones_version(play: Start, files_dir: Path) -> None:
    """By a path that leads out of the project's folder, as it is written."""
    folder = project_files.version(files_dir, "app", A) / "deep"
    folder.mkdir()
    (folder / "across.yml").write_text("- {set_fact: {seen: \"{{ lookup('file', '../../team/web/text') }}\"}}\n")
    succeeded(play("{include_tasks: app/deep/across.yml}", SEEN))


def test_a_project_that_the_task_does_not_name_is_as_the_share_shows_it(play: Start) -> None:
    succeeded(play(that("lookup('file', 'other/text') == 'of b'")))


def test_paths_in_results_are_those_that_the_client_wrote(play: Start) -> None:
    conditions = (
        "query('fileglob', 'app/*.glob') == ['FILES/app/a.glob']",
        "'FILES/app/*.glob' | fileglob == ['FILES/app/a.glob']",
        "lookup('first_found', ['app/only_b', 'app/only_a']) == 'FILES/app/only_a'",
    )
    succeeded(play(that(*conditions)))
    runner = play("{copy: {src: app/only_b, dest: HOST/x}}")
    (done,) = runner.ended().values()
    assert "app/only_b" in done["msg"]
    assert ".versions" not in done["msg"]


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("{copy: {src: NAME, dest: HOST/x}}", ".mirrors/app.git/packed"),
        ("{copy: {src: FILES/NAME, dest: HOST/x}}", ".known_hosts"),
        ("{copy: {src: app/../NAME, dest: HOST/x}}", ".mirrors/app.git/packed"),
        ("{copy: {src: link_to, dest: HOST/x}}", ".mirrors/app.git/packed"),
        ("{copy: {src: .mirrors, dest: HOST/x}}", ".mirrors/app.git/packed"),
        ("{debug: {msg: \"{{ 'FILES/NAME' is exists }}\"}}", ".locks/app"),
        ("{debug: {msg: \"{{ query('fileglob', '.mirrors/app.git/*') }}\"}}", ".mirrors/app.git/packed"),
    ],
)
def test_what_distribute_keeps_beside_the_projects_is_refused(
    play: Start, files_dir: Path, host: Path, task: str, name: str
) -> None:
    (files_dir / name).parent.mkdir(parents=True, exist_ok=True)
    (files_dir / name).write_text("hidden")
    (files_dir / "link_to").symlink_to(name)
    runner = play(task.replace("NAME", name))
    (done,) = runner.ended().values()
    assert done["status"] == "failed"
    assert "is refused: on the engine nothing is read whose name, directly below" in done["msg"]
    assert not list(host.iterdir())


@pytest.mark.parametrize("way", ["threads-asyncssh", "processes"])
@pytest.mark.parametrize("type_", ["adhoc", "playbook"])
def test_a_task_that_needs_no_files_does_not_touch_the_share(
    server_directory: Path, fleet: Fleet, files_dir: Path, host: Path, way: str, type_: str
) -> None:
    """It may hang at the first touch."""
    trace = server_directory / "trace"
    text = one_play(
        "{name: say, shell: echo hi, register: said}",
        that("said.stdout == 'hi'"),
        f"{{copy: {{content: '{{{{ said.stdout }}}}', dest: '{host}/said'}}}}",
    )
    fields = {"playbook_content": text} if type_ == "playbook" else {"module": "shell", "args": "echo hi"}
    fields |= WAYS[way] | {"needs_files": False, "projects": PINNED}
    with preloaded(server_directory / "log") as parent:
        command = ["strace", "-f", "-e", "trace=%file", "-o", str(trace), "-p", str(parent.pid)]
        with subprocess.Popen(command, stderr=subprocess.PIPE) as tracer:
            assert tracer.stderr is not None
            assert b"attached" in tracer.stderr.readline()
            succeeded(parent.start(make_job(fleet.hosts(), fleet.port, fleet.key, files_dir, **fields)))
            tracer.terminate()
            tracer.stderr.read()
    seen = trace.read_text()
    assert "/.ansible" in seen or "/proc/" in seen, "nothing was traced"
    assert [line for line in seen.splitlines() if str(files_dir) in line] == []


@pytest.mark.parametrize(
    ("task", "more", "says"),
    [
        ("{import_tasks: app/pipe}", "", "nothing of it had been started on engine e1: it was"),
        ("{include_tasks: app/pipe}", "", "had finished 2 of 2 tasks and was"),
        ("{debug: {msg: x}}", "  vars_files: [app/pipe]\n", "nothing of it had been started on engine e1: it was"),
    ],
)
def test_hosts_that_wait_for_a_file_that_is_not_read_say_so(
    play: Start, files_dir: Path, task: str, more: str, says: str
) -> None:
    """Here the runner itself reads it, for all hosts, and none of them runs a task."""
    os.mkfifo(project_files.version(files_dir, "app", A) / "pipe")
    runner = play("{debug: {msg: x}}", task, more=more)
    time.sleep(4)
    runner.order_end()
    (done,) = runner.ended().values()
    assert re.fullmatch(rf"{says} waiting for the engine, which was reading \S*app/pipe for \d+ s", done["blame"])


@pytest.mark.parametrize("way", ["threads-asyncssh", "processes"])
def test_a_version_that_the_share_does_not_show_fails_the_task_with_a_sentence(play: Start, files_dir: Path) -> None:
    mark = project_files.version_mark(files_dir, "app", A)
    for text in (None, B):
        mark.unlink() if text is None else mark.write_text(text)
        begun = time.monotonic()
        runner = play("{copy: {src: app/text, dest: HOST/x}}", count=3)
        found = runner.ended()
        assert time.monotonic() - begun < 20  # all hosts wait side by side
        assert {done["status"] for done in found.values()} == {"failed"}
        says = f"the share at {files_dir} does not show commit {A} of project app: is it mounted, and with lookupcache"
        assert all(says in done["msg"] for done in found.values())


def test_a_version_that_the_share_shows_a_moment_later_is_waited_for(play: Start, files_dir: Path, host: Path) -> None:
    mark = project_files.version_mark(files_dir, "app", A)
    mark.unlink()
    runner = play("{copy: {src: app/text, dest: HOST/x}}")
    runner.read_until(lambda: bool(runner.named("task_started")))
    time.sleep(1)
    mark.write_text(A)
    succeeded(runner)
    assert in_folder(host) == {"x": "of a"}


@pytest.mark.parametrize("way", ["threads-asyncssh", "processes"])
@pytest.mark.parametrize(
    ("module", "args", "gives"),
    [
        ("copy", "src=app/text dest=HOST/x", "of a"),
        ("copy", {"src": "FILES/team/web/text", "dest": "HOST/x"}, "of a"),
        ("template", "src=app/inner.j2 dest=HOST/x", "of a"),
        ("script", "app/run.sh", ""),
        ("unarchive", "src=team/web/packed.tar dest=HOST", "of a"),
    ],
)
def test_ad_hoc_arguments_name_files_of_projects(
    parent: Preloaded,
    fleet: Fleet,
    files_dir: Path,
    host: Path,
    way: str,
    module: str,
    args: str | dict[str, str],
    gives: str,
) -> None:
    def named(text: str) -> str:
        return text.replace("HOST", str(host)).replace("FILES", str(files_dir))

    given = named(args) if isinstance(args, str) else {key: named(value) for key, value in args.items()}
    fields = WAYS[way] | {"module": module, "args": given, "projects": PINNED}
    runner = parent.start(make_job(fleet.hosts(), fleet.port, fleet.key, files_dir, **fields))
    (done,) = runner.ended().values()
    assert done["status"] == "success", done
    assert list(in_folder(host).values()) == ([gives] if gives else [])
    if module == "script":
        assert done["stdout"].split() == ["of", "a"]
