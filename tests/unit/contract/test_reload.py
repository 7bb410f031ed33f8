from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract import config, logs, reload
from contract.config import Config
from contract.errors import ConfigError
from contract.reload import Reloadable

BEFORE = {
    "Zabbix": {"IP": "10.0.0.1", "HOST": "a"},
    "Exec_Engine": {"SLOTS": "10", "STATE_DIR": "state", "LOG_LEVEL": "info"},
    "Distribute": {"PORT": "8007", "PARALLEL": "0"},
    "Ansible": {"SSH_PASSWORD": "the former password"},
}
AFTER = {
    "Zabbix": {"IP": "10.0.0.2", "HOST": "a"},
    "Exec_Engine": {"SLOTS": "20", "STATE_DIR": "elsewhere", "LOG_LEVEL": "debug"},
    "Distribute": {"PORT": "8008", "PARALLEL": "5"},
    "Ansible": {"SSH_PASSWORD": "the present password"},
}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(logs.LEVEL_VARIABLE, raising=False)
    return write(tmp_path / "server.conf", BEFORE)


@pytest.fixture(autouse=True)
def level() -> Iterator[None]:
    before = logging.getLogger().level
    yield
    logging.getLogger().setLevel(before)


def write(file: Path, sections: dict[str, dict[str, str]]) -> Path:
    lines = [
        f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in of.items()) for name, of in sections.items()
    ]
    file.write_text("".join(lines))
    return file


def followed(file: Path, service: str) -> Reloadable:
    return Reloadable(config.load(file, service), service, lambda _: None)


def test_live_keys_change_and_the_others_are_named_without_their_values(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    reloadable = followed(file, config.ENGINE)
    write(file, AFTER)
    for _ in range(2):  # what needs a restart needs it until then
        caplog.clear()
        fresh = reloadable.read_again()
        assert "needs a restart: [Ansible] SSH_PASSWORD, [Exec_Engine] STATE_DIR" in caplog.messages
        assert "password" not in caplog.text
    assert (fresh.zabbix.ip, fresh.engine.slots, fresh.engine.log_level) == (("10.0.0.2",), 20, "debug")
    assert (fresh.engine.state_dir.name, fresh.ansible.ssh_password) == ("state", "the former password")
    assert logging.getLogger().level == logging.DEBUG


def test_each_service_names_its_own_keys(file: Path) -> None:
    before = config.load(file)
    after = config.load(write(file, AFTER))
    assert reload.differences(before, after, config.DISTRIBUTE) == (
        ["[Zabbix] IP", "[Distribute] PARALLEL", "[Exec_Engine] SLOTS", "[Exec_Engine] LOG_LEVEL"],
        ["[Distribute] PORT", "[Exec_Engine] STATE_DIR"],
    )
    live, waiting = reload.differences(before, after, config.ENGINE)
    assert not [key for key in (*live, *waiting) if key.startswith("[Distribute]")]


def test_a_broken_file_changes_nothing_and_each_problem_is_a_record(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reloadable, child = followed(file, config.ENGINE), config.load(file, config.ENGINE)
    write(file, {**AFTER, "Exec_Engine": {"SLOTS": "many", "RUNNERS": "0", "LOG_LEVEL": "loud"}})
    with pytest.raises(ConfigError) as refused:
        reloadable.read_again()
    assert len(refused.value.problems) == 3
    assert reload.follow(child, config.ENGINE) is child
    problems = [record.__dict__["problem"] for record in caplog.records]
    assert problems == refused.value.problems
    assert [problem for problem in problems if "expected one of debug, info, warning, error, found 'loud'" in problem]
    write(file, AFTER)
    assert reloadable.read_again().engine.slots == 20


def test_what_a_start_would_refuse_a_reload_refuses_too(file: Path) -> None:
    def check(found: Config) -> None:
        raise ConfigError(f"not with {found.engine.slots}")

    reloadable = Reloadable(config.load(file, config.ENGINE), config.ENGINE, check)
    write(file, AFTER)
    with pytest.raises(ConfigError) as refused:
        reloadable.read_again()
    assert refused.value.problems == ["not with 20"]


def test_a_child_follows(file: Path) -> None:
    child = config.load(file, config.DISTRIBUTE)
    write(file, AFTER)
    fresh = reload.follow(child, config.DISTRIBUTE)
    assert (fresh.distribute.parallel, fresh.distribute.port) == (5, 8007)


def test_the_level_in_the_environment_overrules_the_one_in_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(logs.LEVEL_VARIABLE, "warning")
    reloadable = followed(file, config.ENGINE)
    write(file, AFTER)
    assert reloadable.read_again().engine.log_level == "warning"
    assert logging.getLogger().level == logging.WARNING
