"""Our runner against the stock ansible and ansible-playbook commands: every task result, field by field."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from execute_engine.job import Job
from tests.differential import record, stock
from tests.differential.cases import PLAYBOOKS, ROOM, SINGLE, Case
from tests.runner_process import WAYS, Preloaded, make_job, preloaded
from tests.servers.fleet import Fleet

FILES = Path(stock.__file__).parent / "playbooks"
LONG_HOSTS = 3
RUNNERS_AT_ONCE = 3
Results = dict[tuple[str, str], list[tuple[str, Any]]]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Preloaded, Path]]:
    directory = tmp_path_factory.mktemp("ours")
    with preloaded(directory.parent / "runners.log", {"RECORD_DIRECTORY": str(directory)}) as parent:
        yield parent, directory


@pytest.fixture(scope="module")
def expected(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Results]:
    """What the stock commands give, by the case's name, and by PLAYBOOK STRATEGY."""
    directory = tmp_path_factory.mktemp("stock")
    commands = {case.name: _module_command(case, fleet, directory) for case in SINGLE}
    for playbook, strategy in PLAYBOOKS:
        commands[f"{playbook} {strategy}"] = _playbook_command(playbook, strategy, fleet, directory)
    requests = [_request(name, argv, directory) for name, argv in commands.items()]
    # Makes the directory on the hosts that the first module to need it warns of.
    first = _module_command(Case("first", "lineinfile", f"path={ROOM}-first line=one create=yes"), fleet, directory)
    stock.run([_request("first", first, directory)], directory)
    _clean_hosts()
    stock.run(requests[: len(SINGLE)], directory)
    for request in requests[len(SINGLE) :]:  # these write the same files on the hosts
        _clean_hosts()
        stock.run([request], directory)
    return {name: record.read(directory / _file_name(name)) for name in commands}


@pytest.mark.parametrize("way", WAYS)
def test_single_modules_give_what_the_stock_commands_give(
    fleet: Fleet, expected: dict[str, Results], recording: tuple[Preloaded, Path], way: str
) -> None:
    _clean_hosts()
    parent, directory = recording
    differences = []
    waiting = list(SINGLE)
    while waiting:
        batch, waiting = waiting[:RUNNERS_AT_ONCE], waiting[RUNNERS_AT_ONCE:]
        runners = [(case, parent.start(_job(case, fleet, **WAYS[way]))) for case in batch]
        for case, runner in runners:
            runner.result()
            ours = record.read(directory / str(runner.pid))
            only_kinds = case.own_words and way == "threads-asyncssh"
            differences += _differences(case.name, expected[case.name], ours, only_kinds)
            assert expected[case.name] or case.name == "unknown module", f"stock gave nothing for {case.name}"
    assert not differences, "\n".join(differences)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("playbook", "strategy"), PLAYBOOKS)
def test_playbooks_give_what_the_stock_command_gives(
    fleet: Fleet,
    expected: dict[str, Results],
    recording: tuple[Preloaded, Path],
    playbook: str,
    strategy: str,
    way: str,
) -> None:
    if way != "threads-asyncssh" and (playbook, strategy) not in (("corners", "free"), ("together", "linear")):
        return
    _clean_hosts()
    parent, directory = recording
    content = (FILES / f"{playbook}.yml").read_text()
    entries = content.count("\n- hosts:")
    job = make_job(
        fleet.hosts(count=LONG_HOSTS),
        fleet.port,
        fleet.key,
        FILES,
        playbook_content=content,
        playbook_name=f"{playbook}.yml",
        strategies=(strategy,) * entries,
        **WAYS[way],
    )
    runner = parent.start(job)
    assert runner.result() == 0
    wanted = expected[f"{playbook} {strategy}"]
    assert wanted
    differences = _differences(playbook, wanted, record.read(directory / str(runner.pid)))
    assert not differences, "\n".join(differences)
    assert set(runner.done()) == set(job.hosts)


def _differences(name: str, stock_results: Results, ours: Results, only_kinds: bool = False) -> list[str]:
    found = []
    for key in sorted(stock_results.keys() | ours.keys()):
        theirs, mine = stock_results.get(key), ours.get(key)
        if only_kinds and theirs and mine:
            same = [kind for kind, _ in theirs] == [kind for kind, _ in mine]
        else:
            same = theirs == mine
        if not same:
            found.append(f"{name} {key}:\n  stock {json.dumps(theirs)[:1500]}\n  ours  {json.dumps(mine)[:1500]}")
    return found


def _job(case: Case, fleet: Fleet, **way: str) -> Job:
    fields: dict[str, Any] = {"become": case.become, "check": case.check, "user": case.user, **way}
    if case.tasks:
        fields |= {"playbook_content": _one_play(case), "become": None}
    else:
        fields |= {"module": case.module, "args": case.args, "template": True}
    return make_job(
        fleet.hosts(case.hosts, case.count),
        fleet.port,
        "" if case.password else fleet.key,
        FILES,
        password=case.password,
        sudo_password=case.sudo_password,
        python_interpreter=case.interpreter,
        **fields,
    )


def _one_play(case: Case) -> str:
    return f"- hosts: all\n  gather_facts: false\n  tasks:\n{_indented(case.tasks)}\n"


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def _module_command(case: Case, fleet: Fleet, directory: Path) -> list[str]:
    common = _common(
        fleet, fleet.hosts(case.hosts, case.count), case.user, case.interpreter, "" if case.password else str(fleet.key)
    )
    for name, password in (("connection", case.password), ("become", case.sudo_password)):
        if password:
            path = directory / f"{_file_name(case.name)}.{name}"
            path.write_text(password)
            common += [f"--{name}-password-file", str(path)]
    common += ["--check"] * case.check + ["--become"] * case.become
    if case.tasks:
        path = directory / f"{_file_name(case.name)}.yml"
        path.write_text(_one_play(case))
        return ["ansible-playbook", str(path), *common]
    return ["ansible", "all", "-m", case.module, "-a", case.args, *common]


def _playbook_command(playbook: str, strategy: str, fleet: Fleet, directory: Path) -> list[str]:
    content = (FILES / f"{playbook}.yml").read_text()
    path = directory / f"{playbook}-{strategy}.yml"
    path.write_text(content.replace("\n  gather_facts:", f"\n  strategy: {strategy}\n  gather_facts:"))
    (directory / "files").exists() or (directory / "files").symlink_to(FILES / "files")
    hosts = fleet.hosts(count=LONG_HOSTS)
    return ["ansible-playbook", str(path), *_common(fleet, hosts, fleet.user, "/usr/bin/python3", str(fleet.key))]


def _common(fleet: Fleet, hosts: list[str], user: str, interpreter: str, key: str) -> list[str]:
    inventory = Path(str(fleet.directory)) / f"inventory-{hosts[0]}-{len(hosts)}"
    inventory.write_text("[target_hosts]\n" + "\n".join(hosts) + "\n")
    variables = {
        "ansible_connection": "ssh",
        "ansible_port": fleet.port,
        "ansible_python_interpreter": interpreter,
        "ansible_user": user,
    }
    options = ["-i", str(inventory), "-u", user, "-f", "10", "-e", json.dumps(variables)]
    return options + (["--private-key", key] if key else [])


def _request(name: str, argv: list[str], directory: Path) -> dict[str, Any]:
    return {"argv": argv, "record": str(directory / _file_name(name)), "log": str(directory / "commands.log")}


def _file_name(name: str) -> str:
    return name.replace(" ", "-")


def _clean_hosts() -> None:
    shutil.rmtree(ROOM, ignore_errors=True)
    Path(ROOM).mkdir(mode=0o777)
    Path(ROOM).chmod(0o777)
    for left in Path("/tmp").glob("ee-differential-*"):
        left.unlink()
