"""Stock Ansible, given the texts of test_fence_files.py and test_fence_places.py: there each of them is a way out.

Where one is not, it stands in a table here with what stock says instead.
"""

from __future__ import annotations

import base64
import json
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.differential import attempts
from tests.differential.attempts import Attempt
from tests.integration import test_fence_files as files
from tests.integration import test_fence_places as places
from tests.runner_process import one_play
from tests.servers.fleet import Fleet

RAN_ELSEWHERE = "ran on (engine|OTHER|127.0.0.1)"
UPLOADED = r"/ansible-tmp-[\d.-]+/secret"
LOOKED = r'"msg": (true|false)'

# What stock says where it is not the secret: that something is there, or has come to the host, or was started.
TELLS = {
    "uri": UPLOADED,
    "uri in parts": UPLOADED,
    "patch": UPLOADED,
    "with_first_found": '"msg": "OUT/secret"',
    "when": '"msg": "x"',
    "config": "ansible-local-",
    "with_config": "ansible-local-",
    "file in vain": "'OUT/none': File not found",
    "file upwards in vain": "'UP/none': File not found",
    "file ~": "'~/none': File not found",
    "first_found": '"msg": "OUT/secret"',
    "first_found in vain": '"msg": "SHARE/folder/fine"',
    "filter realpath": '"msg": "OUT/secret"',
    "filter expanduser": f'"msg": "{Path.home()}"',
    "filter of another collection": "No such file or directory: 'sops'",
    "tests by select": "OUT/secret",
    "delegate_facts": '"ansible_host": "localhost"',  # it stores them
    "connection docker": "docker was started",
    "connection docker by a variable": "docker was started",
    "gathering on localhost": r'\["localhost", "Gathering Facts", "ok"',
    "ansible_ssh_pkcs11_provider": "to use pkcs11_provider you must specify a password",
    "rsync": "written: .*/copied",
    "rsync by its short name": "written: .*/copied",
    "rsync by action": "written: .*/copied",
    "telnet": "Connection refused",  # the engine's
    "a key": '"type": "RSA"',
    "a command's parser": "on the Ansible Controller",  # it was looked for
    "community.crypto.gpg_fingerprint": "gpg --no-keyring",
}
REFUSES = {  # what is no way out of stock either, and what it says
    "import_role of a file": "as it is not inside the expected role path",
    "include_role of a file": '"include_args"',  # and takes no file that is not the role's
    "connection paramiko": "paramiko is not installed",  # by its default; where it is, this is ssh by other settings
    "a plugin for the network": "Unable to automatically determine host network os",  # any task may set it
    "a device's command line": "Connection type ssh is not valid for this module",  # any task may set it
    "any device's command line": "Connection type ssh is not valid for this module",
    "ansible_control_path": '"CHANGED"|"changed"',  # of use with ControlPersist alone
    "ansible_ssh_password_mechanism": '"CHANGED"|"changed"',  # of use with a password alone
    **dict.fromkeys(places.ESCAPES, "is unsafe"),
    "tag python": "could not determine a constructor",
    "tag python's module": "could not determine a constructor",
    "tag unknown": "could not determine a constructor",
    "tag vault": "Input is not vault encrypted data",
}


PLACES_GROUP_VARS = {f"connection by {file}": file for file in places.GROUP_VARS}
FILES_GROUP_VARS = {f"variables by {link}": link for link in files.GROUP_VARS}
TAGS = {f"tag {name}": task for name, task in places.TAGS.items()}


def _plays() -> dict[str, str]:
    """The playbooks of both files, by the names of their cases."""
    marked = "{{{module}, loop: [{value}], loop_control: {{loop_var: {name}}}, vars: {{{how}}}}}"
    copied = "copy: {content: x, dest: 'SHARE/copied'}"
    by_file = "ansible_pipelining: false, ansible_ssh_transfer_method: {}"
    found = {name: one_play(files.task_line(text)) for name, (text, _) in files.TASKS.items()}
    found |= {name: one_play(files.task_line(text), more=more) for name, (more, text, _) in files.ROLES.items()}
    found |= {f"playbook {path}": f"- import_playbook: {path}\n" for path in files.IMPORTED}
    found |= {task: one_play(task) for task in files.WRITING}
    found |= {
        name: one_play(*tasks, more=places.PLAY_LINES.get(name, "")) for name, (tasks, _) in places.ELSEWHERE.items()
    }
    found |= {name: places.FINE_PLAY + plays for name, (plays, _) in places.PLAYS.items()}
    found["own and other hosts"] = places.MIXED_PLAY
    found["a meta task"] = one_play(*[task.replace("META", "clear_facts") for task in places.META_TASKS])
    found |= dict.fromkeys(PLACES_GROUP_VARS, one_play(*places.GROUP_TASKS))
    found |= dict.fromkeys(FILES_GROUP_VARS, one_play("{fail: {msg: '{{ planted }}'}}"))
    for name, value in places.FACTS.items():
        transfers = next((how for how in ("sftp", "scp") if how in name), "")
        module, how = (copied, by_file.format(transfers)) if transfers else ("command: MARK", "")
        found[name] = one_play(marked.format(module=module, value=value, name=name, how=how))
    found |= {name: one_play(f"{{{action}}}") for name, action in places.ACTIONS.items()}
    for name, expression in (*places.FILTERS.items(), *((escape, escape) for escape in places.ESCAPES)):
        found[name] = one_play(f'{{command: "echo {{{{ {expression} }}}}"}}')
    return found | {name: one_play(task) for name, task in TAGS.items()}


PLAYS = _plays()
AD_HOC = {f"{module} {args}": (module, args) for module, args in files.AD_HOC}


@dataclass(frozen=True)
class Controller:
    """Where stock is given one case."""

    share: Path
    outside: Path
    other: str

    def attempt(self, name: str) -> Attempt:
        files.fill_outside(self.outside)
        files.fill_share(self.share, self.outside)
        places.fill_share(self.share)
        if name in PLACES_GROUP_VARS:
            places.write_group_vars(self.share, PLACES_GROUP_VARS[name])
        if name in FILES_GROUP_VARS:
            files.link_group_vars(self.share, self.outside, FILES_GROUP_VARS[name])
        if name in PLAYS:
            return attempts.playbook(self.share, self.named(PLAYS[name]))
        module, args = AD_HOC[name]
        return attempts.ad_hoc(self.share, module, self.named(args if isinstance(args, str) else json.dumps(args)))

    def named(self, text: str) -> str:
        return places.named(files.named(text, self.share, self.outside), self.share, self.other)

    def came(self) -> str:
        """What was said, what has come to the host, where commands have run and what was written."""
        ran = "".join(f"ran on {where}\n" for where in (self.share / "ran").read_text().split())
        new = [path for path in (self.share / "copied", self.share / "new", self.outside / "new") if path.exists()]
        return Attempt(self.share, ()).said() + files.got(self.share) + ran + f"\nwritten: {new}"


@pytest.fixture(scope="module")
def controllers(fleet: Fleet) -> Iterator[dict[str, Controller]]:
    """By the names of the cases, all of which have run."""
    with tempfile.TemporaryDirectory(prefix="ee-") as name:  # short, and open to the hosts
        directory = Path(name)
        directory.chmod(0o755)
        other = fleet.hosts(count=3)[2]
        found = {
            name: Controller(directory / f"{number}/share", directory / f"{number}/outside", other)
            for number, name in enumerate((*PLAYS, *AD_HOC))
        }
        docker = directory / "bin/docker"
        docker.parent.mkdir()
        docker.write_text("#!/bin/sh\necho docker was started >&2; exit 1\n")
        docker.chmod(0o755)
        environment = {"PLANTED": files.SECRET, "PATH": f"{docker.parent}:{os.environ['PATH']}"}
        attempts.run([one.attempt(name) for name, one in found.items()], fleet, directory, environment)
        yield found


def _tells(name: str) -> str:
    """What shows that stock has done it."""
    if told := TELLS.get(name.removesuffix(" as a template")):
        return told
    if name.startswith("test "):
        return LOOKED
    if name in files.WRITING:
        return "written: .*/new"
    if name in places.FACTS:
        return f'{RAN_ELSEWHERE}|"unreachable", '
    tasks = (*places.ELSEWHERE, *places.FILTERS, *places.ESCAPES, *TAGS, "a meta task", *PLACES_GROUP_VARS)
    of_places = (*tasks, *places.PLAYS, "own and other hosts")
    return RAN_ELSEWHERE if name in of_places else files.SECRET


@pytest.mark.parametrize("name", [name for name in (*PLAYS, *AD_HOC) if name not in REFUSES])
def test_in_stock_it_is_a_way_out(controllers: dict[str, Controller], name: str) -> None:
    controller = controllers[name]
    assert re.search(controller.named(_tells(name)), controller.came())


@pytest.mark.parametrize("name", REFUSES)
def test_in_stock_it_is_none(controllers: dict[str, Controller], name: str) -> None:
    controller = controllers[name]
    came = controller.came()
    assert re.search(REFUSES[name], came)
    assert not re.search(controller.named(f"{RAN_ELSEWHERE}|{files.SECRET}|written: .*/"), came)


def test_in_stock_plugins_beside_a_playbook_and_in_a_role_are_loaded(fleet: Fleet, server_directory: Path) -> None:
    """Callbacks and variable plugins unasked, the others when their names are used; and the module for its own."""
    places.place_plugins(server_directory)
    tasks = [task for task in places.USING_PLUGINS if not task.startswith("{assert")]
    said = ""
    for more in ("  roles: [one]\n", "  strategy: evil\n"):
        attempt = attempts.playbook(server_directory, one_play(*tasks, more=more))
        attempts.run([attempt], fleet, server_directory, {})
        said += attempt.said()
    loaded = {path.name.removeprefix("loaded-") for path in server_directory.glob("loaded-*")}
    assert loaded == {"become", "callback", "connection", "filter", "lookup", "shell", "strategy", "test", "vars"}
    assert said.count('{"ping": "evil"') == 2


def test_in_stock_the_password_is_a_variable(fleet: Fleet, server_directory: Path) -> None:
    (server_directory / "password").write_text(fleet.password)
    content = one_play("{debug: {msg: '{{ ansible_password | b64encode }}'}}")
    attempt = attempts.playbook(server_directory, content, "--connection-password-file", f"{server_directory}/password")
    attempts.run([attempt], fleet, server_directory, {})
    assert base64.b64encode(fleet.password.encode()).decode() in attempt.said()


def test_in_stock_collections_beside_the_playbook_are_found(fleet: Fleet, server_directory: Path) -> None:
    role = server_directory / "collections/ansible_collections/own/one/roles/role/tasks/main.yml"
    role.parent.mkdir(parents=True)
    role.write_text("- debug: {msg: found it}\n")
    attempt = attempts.playbook(server_directory, one_play("{include_role: {name: own.one.role}}"))
    attempts.run([attempt], fleet, server_directory, {})
    assert '"msg": "found it"' in attempt.said()
