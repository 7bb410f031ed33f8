from __future__ import annotations

import dataclasses
import os
import socket
from pathlib import Path

import pytest

from contract import config, inifile, options, secret, shipped
from contract.config import Config
from contract.errors import ConfigError
from tests.servers.certificates import Authority

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def no_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.startswith("EXECUTE_ENGINE_")]:
        monkeypatch.delenv(variable)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "conf").mkdir()
    return tmp_path / "conf" / "server.conf"


def loaded(file: Path, text: str) -> Config:
    file.write_text(text)
    return config.load(file)


def problems(file: Path, text: str) -> list[str]:
    """What is reported, with FILE in place of the path."""
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        config.load(file)
    first, *lines = str(caught.value).splitlines()
    assert first == "the configuration cannot be used:"
    return [line.strip().replace(str(file), "FILE") for line in lines]


def test_the_shipped_file_has_every_key_with_its_default() -> None:
    nothing: list[inifile.Problem] = []
    blocks = inifile.read(ROOT / "conf" / "server.conf", nothing)
    assert nothing == []
    written = {(block.name, entry.key): entry.value for block in blocks for entry in block.entries}
    declared = {
        (section.names[0], key): options.default_text(item)
        for section in config.sections()
        for key, item, _ in section.declared()
    }
    assert written == declared


def test_the_shipped_file_is_made_from_the_declarations() -> None:
    assert (ROOT / "conf" / "server.conf").read_text() == shipped.text()
    assert (ROOT / "docs" / "configuration.md").read_text() == shipped.table()


def test_the_shipped_file_means_the_defaults(file: Path) -> None:
    assert loaded(file, shipped.text()) == loaded(file, "")


def test_the_defaults_of_the_dataclasses_are_those_of_an_empty_file(file: Path) -> None:
    found = loaded(file, "")
    for section in config.sections():
        settings = getattr(found, section.attribute)
        for item in dataclasses.fields(settings):
            if isinstance(item.default, Path) or item.name in ("engine_id", "host"):
                continue
            assert getattr(settings, item.name) == item.default, item.name
    assert found.engine.engine_id == found.zabbix.host == socket.gethostname()
    assert found.distribute.host == "127.0.0.1"


def test_every_kind_of_value_is_read(file: Path) -> None:
    found = loaded(
        file,
        """\ufeff# a comment
; another
[Kafka_Cluster]
bootstrap_servers = 10.0.0.1:9092 , , kafka.example.com, [::1]:9093
Group_Id: engines
[MySQL]
IP=db
user = u=1:2
PASSWORD = 50% of #1; and $HOME %(x)s
[Zabbix]
IP = 10.0.0.9
[Exec_Engine]\r
NUMBER = 7
SLOTS = 60
ALLOW_LOCAL = Yes
STATE_DIR = ../state
[Data_Send]
EXEC = 0.5
""",
    )
    assert found.kafka.bootstrap_servers == ("10.0.0.1:9092", "kafka.example.com", "[::1]:9093")
    assert found.kafka.group_id == "engines"
    assert (found.database.ip, found.database.user) == ("db", "u=1:2")
    assert found.database.password == "50% of #1; and $HOME %(x)s"
    assert found.zabbix.ip == ("10.0.0.9",)
    assert (found.engine.number, found.engine.slots, found.engine.allow_local) == (7, 60, True)
    assert found.engine.state_dir == file.parent.parent.parent / "state"
    assert found.intervals.exec == 0.5


def test_every_problem_is_reported_at_once_with_its_line(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXECUTE_ENGINE_ZABBIX_ZABBIX_PORT", "0")
    monkeypatch.setenv("EXECUTE_ENGINE_NONSENSE", "1")
    monkeypatch.setenv("EXECUTE_ENGINE_ANSIBLE_SSH_PASSWORD", "do-not-show-me")
    monkeypatch.setenv("EXECUTE_ENGINE_GITLAB_GROUP_FILE", "/etc/passwd")
    monkeypatch.setenv("EXECUTE_ENGINE_LOG_LEVEL", "loud")
    found = problems(
        file,
        """PORT = 1
[Kafka_Clusters]
TOPIC = a
[Kafka_Cluster]
TOPIC = a b
PARTITION = 3
PARTITIONS = 3
partitions = 4
nonsense with the word do-not-show-me
 SASL_PASSWORD = do-not-show-me
AUTO_OFFSET_RESET = never
[Exec_Engine]
NUMBER = 1001
SLOTS = many
ALLOW_LOCAL = perhaps
[Data_Send
EXEC = 1e3
ZABBIX = 1_0
[Gitlab]
URL_TEMPLATE = git@{ip.__class__}:{project}
""",
    )
    assert found == [
        "FILE:1: expected a [section] before the first key",
        "FILE:2: unknown section [Kafka_Clusters], expected one of Kafka_Cluster, Fil_EXEC_MySQL, MySQL, Zabbix, "
        "Ansible, Data_Send, Distribute, Exec_Engine, Gitlab",
        "FILE:5: [Kafka_Cluster] TOPIC: expected letters, digits and . _ -, found 'a b'",
        "FILE:6: unknown key PARTITION in [Kafka_Cluster], expected one of AUTO_OFFSET_RESET, BOOTSTRAP_SERVERS, "
        "GROUP_ID, PARTITIONS, REPLICATION, SASL_MECHANISM, SASL_PASSWORD, SASL_USERNAME, SECURITY_PROTOCOL, "
        "SSL_CAFILE, TOPIC",
        "FILE:8: PARTITIONS was given at FILE:7 already",
        "FILE:9: expected KEY = value, [section] or a comment",
        "FILE:10: expected no blanks before a key: a value stands on one line",
        "FILE:11: [Kafka_Cluster] AUTO_OFFSET_RESET: expected one of earliest, latest, found 'never'",
        "FILE:13: [Exec_Engine] NUMBER: expected a whole number from 1 to 1000, found '1001'",
        "FILE:14: [Exec_Engine] SLOTS: expected a whole number from 1 to 100000, found 'many'",
        "FILE:15: [Exec_Engine] ALLOW_LOCAL: expected yes or no, found 'perhaps'",
        "FILE:16: expected [section], found no closing bracket",
        "FILE:20: [Gitlab] URL_TEMPLATE: expected a URL with {project}, and no braces but {ip}, {group} and {project}, "
        "found 'git@{ip.__class__}:{project}'",
        "EXECUTE_ENGINE_ANSIBLE_SSH_PASSWORD: a secret is not given by value, set "
        "EXECUTE_ENGINE_ANSIBLE_SSH_PASSWORD_FILE to the path of its file",
        "EXECUTE_ENGINE_GITLAB_GROUP_FILE: unknown variable, expected EXECUTE_ENGINE_SECTION_KEY",
        "EXECUTE_ENGINE_LOG_LEVEL: expected one of debug, info, warning, error, found 'loud'",
        "EXECUTE_ENGINE_NONSENSE: unknown variable, expected EXECUTE_ENGINE_SECTION_KEY",
        "EXECUTE_ENGINE_ZABBIX_ZABBIX_PORT: [Zabbix] ZABBIX_PORT: expected a whole number from 1 to 65535, found '0'",
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("[Data_Send]\nEXEC = 1e3", "a number from 0.01 to 60"),
        ("[Data_Send]\nEXEC = nan", "a number from 0.01 to 60"),
        ("[Data_Send]\nZABBIX = 1_0", "a whole number from 1 to 3600"),
        ("[Data_Send]\nZABBIX = \u0663\u0660", "a whole number from 1 to 3600"),
        ("[Kafka_Cluster]\nBOOTSTRAP_SERVERS = a:1, b c", "host:port, comma-separated"),
        ("[Zabbix]\nIP = zabbix, [::1]:0", "a port from 1 to 65535"),
        ("[Zabbix]\nIP = 10.0.0.1:65536", "a port from 1 to 65535"),
        ("[Zabbix]\nIP = ::1", "addresses or names, with :port or without, IPv6 in brackets"),
        ("[Distribute]\nTRUSTED_PROXIES = 10.1.0.0/33", "addresses and networks such as 10.1.0.0/24, not of all"),
        ("[Distribute]\nTRUSTED_PROXIES = 10.1.0.5/24", "addresses and networks such as 10.1.0.0/24, not of all"),
        ("[Distribute]\nTRUSTED_PROXIES = 10.1.0.5, nginx", "addresses and networks such as 10.1.0.0/24, not of all"),
        ("[Distribute]\nTRUSTED_PROXIES = 10.1.0.5 10.1.0.6", "addresses and networks such as 10.1.0.0/24, not of"),
        ("[Distribute]\nTRUSTED_PROXIES = 0.0.0.0/0", "addresses and networks such as 10.1.0.0/24, not of all"),
        ("[Distribute]\nTRUSTED_PROXIES = ::/0", "addresses and networks such as 10.1.0.0/24, not of all addresses"),
        ("[Exec_Engine]\nENGINE_ID = a b", "letters, digits and . _ -"),
        ("[Ansible]\nPYTHON_INTERPRETER = python; reboot", "a path without blanks"),
        ("[Ansible]\nCONNECTION = paramiko", "one of asyncssh, openssh"),
        ("[Gitlab]\nURL_TEMPLATE = git@{ip}", "a URL with {project}"),
    ],
)
def test_a_value_out_of_range_is_refused(file: Path, line: str, expected: str) -> None:
    (problem,) = problems(file, line)
    assert f"expected {expected}" in problem
    assert problem.startswith("FILE:2: ")


def test_proxies_are_addresses_and_networks(file: Path) -> None:
    mapped = "::ffff:10.3.0.0/120, ::ffff:10.4.0.1"
    found = loaded(file, f"[Distribute]\nTRUSTED_PROXIES = 10.1.0.0/24, 10.2.0.1,, fd00::/64, {mapped}\n")
    assert [str(network) for network in found.distribute.trusted_proxies] == [
        "10.1.0.0/24", "10.2.0.1/32", "fd00::/64", "10.3.0.0/24", "10.4.0.1/32",
    ]  # fmt: skip


def test_an_unknown_section_is_one_problem_and_counts_without_keys_too(file: Path) -> None:
    found = problems(file, "[Empty]\n[Zabix]\nIP = a\nITEM = b\n")
    assert [problem.partition(",")[0] for problem in found] == [
        "FILE:1: unknown section [Empty]",
        "FILE:2: unknown section [Zabix]",
    ]


def test_a_file_that_cannot_be_read_is_one_problem(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.conf", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError, match=f"{path}: cannot be read: {reason}"):
            config.load(path)


def test_bytes_that_are_no_text_are_refused(file: Path) -> None:
    file.write_bytes(b"[Zabbix]\nITEM = \xff\n")
    with pytest.raises(ConfigError, match="expected UTF-8 text"):
        config.load(file)
    assert problems(file, "[Zabbix]\nITEM = a\0b\n") == ["FILE:2: expected text, found a control character"]


def test_mysql_and_its_old_name_are_one_section(file: Path) -> None:
    assert problems(file, "[MySQL]\nPORT = 1\n[Fil_EXEC_MySQL]\nPORT = 2\n") == [
        "FILE:4: PORT was given at FILE:2 already"
    ]


def test_an_environment_variable_overrides_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXECUTE_ENGINE_EXEC_ENGINE_NUMBER", "5")
    monkeypatch.setenv("EXECUTE_ENGINE_KAFKA_CLUSTER_BOOTSTRAP_SERVERS", "")
    monkeypatch.setenv("EXECUTE_ENGINE_MYSQL_PORT", "3307")
    found = loaded(file, "[Exec_Engine]\nNUMBER = 7\n[Kafka_Cluster]\nBOOTSTRAP_SERVERS = a:1\n")
    assert (found.engine.number, found.kafka.bootstrap_servers, found.database.port) == (5, (), 3307)


def test_variables_that_are_no_configuration_are_left_alone(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FAIL_POINT", "INCARNATION", "STATE_DIR_MARK", "SUPERVISOR_FD"):
        monkeypatch.setenv(f"EXECUTE_ENGINE_{name}", "whatever")
    monkeypatch.setenv("EXECUTE_ENGINE_LOG_FORMAT", "json")
    loaded(file, "")


def test_a_secret_comes_from_the_file_that_a_variable_names(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "password").write_text(" with blanks \n")
    monkeypatch.setenv("EXECUTE_ENGINE_FIL_EXEC_MYSQL_PASSWORD_FILE", "password")
    assert loaded(file, "[MySQL]\nPASSWORD = overridden\n").database.password == " with blanks "
    monkeypatch.setenv("EXECUTE_ENGINE_FIL_EXEC_MYSQL_PASSWORD_FILE", "/nonexistent/file")
    assert problems(file, "") == [
        "EXECUTE_ENGINE_FIL_EXEC_MYSQL_PASSWORD_FILE: /nonexistent/file cannot be read: No such file or directory"
    ]


def test_an_encrypted_secret_is_decrypted(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key_file = file.parent / "secret.key"
    secret.new_key(key_file)
    encrypted = secret.encrypt("the real password", key_file)
    text = f"[Ansible]\nSSH_PASSWORD = {encrypted}\n"
    assert loaded(file, text).ansible.ssh_password == "the real password"

    moved = key_file.rename(tmp_path / "key")
    (problem,) = problems(file, text)
    assert problem.startswith("FILE:2: [Ansible] SSH_PASSWORD: the key file")
    assert encrypted not in problem
    monkeypatch.setenv("EXECUTE_ENGINE_SECRET_KEY_FILE", str(moved))
    assert loaded(file, text).ansible.ssh_password == "the real password"

    moved.chmod(0o640)
    (problem,) = problems(file, text)
    assert "has mode 0640, expected 0600" in problem


def test_secrets_are_neither_shown_nor_listed_when_too_short_to_mask(file: Path) -> None:
    found = loaded(file, "[Ansible]\nSSH_PASSWORD = long enough\nSSH_SUDO_PASSWORD = short\n")
    assert found.secrets() == ("long enough",)
    assert "long enough" not in repr(found)
    assert "short" not in repr(found.ansible)
    (warning,) = found.warnings
    assert warning.startswith("[Ansible] SSH_SUDO_PASSWORD has fewer than 8 characters")


def test_the_token_in_the_url_of_gitlab_is_a_secret(file: Path) -> None:
    found = loaded(file, "[Gitlab]\nURL_TEMPLATE = https://oauth2:glpat-a%2Fsecret@{ip}/{group}/{project}.git\n")
    assert found.secrets() == ("glpat-a/secret",)


def test_latest_is_overruled_with_a_warning(file: Path) -> None:
    found = loaded(file, "[Kafka_Cluster]\nAUTO_OFFSET_RESET = latest\n")
    assert found.kafka.auto_offset_reset == "earliest"
    (warning,) = found.warnings
    assert "AUTO_OFFSET_RESET = latest is overruled" in warning


def test_relative_paths_start_above_conf(file: Path, tmp_path: Path) -> None:
    assert loaded(file, "").database.sqlite_file == tmp_path / "data" / "execute_engine.db"
    elsewhere = tmp_path / "my.conf"
    assert loaded(elsewhere, "").database.sqlite_file == tmp_path / "data" / "execute_engine.db"
    assert loaded(elsewhere, "[MySQL]\nSQLITE_FILE = /x/../y\n").database.sqlite_file == Path("/y")


def test_a_relative_path_of_the_file_itself_does_not_matter(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("")
    monkeypatch.chdir(file.parent)
    assert config.load(Path("server.conf")) == config.load(file)


def test_without_kafka_the_engine_uses_the_files_of_distribute(file: Path) -> None:
    own = "[Distribute]\nFILES_DIR = /d\n"
    assert loaded(file, own).engine.files_dir == Path("/d")
    assert loaded(file, own + "[Exec_Engine]\nFILES_DIR = /e\n").engine.files_dir == Path("/e")
    assert loaded(file, own + "[Kafka_Cluster]\nBOOTSTRAP_SERVERS = a:1\n").engine.files_dir == Path("/mnt")


def test_a_named_file_must_be_readable_for_the_service_that_reads_it(file: Path, tmp_path: Path) -> None:
    text = "[Ansible]\nSSH_KEY_FILE = key\n[Distribute]\nTOKENS_FILE = made-later\n"
    assert problems(file, text) == [
        f"FILE:2: [Ansible] SSH_KEY_FILE: {tmp_path / 'key'} cannot be read: No such file or directory"
    ]
    with pytest.raises(ConfigError):
        config.load(file, "execute_engine")
    assert config.load(file, "distribute").ansible.ssh_key_file == tmp_path / "key"
    (tmp_path / "key").touch()
    assert config.load(file).distribute.tokens_file == tmp_path / "made-later"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "[Kafka_Cluster]\nSECURITY_PROTOCOL = SASL_SSL\nSASL_USERNAME = u\n",
            "FILE:2: [Kafka_Cluster] SECURITY_PROTOCOL: SASL_SSL needs SASL_MECHANISM, SASL_USERNAME and SASL_PASSWORD",
        ),
        ("[MySQL]\nIP = db\n", "FILE:2: [Fil_EXEC_MySQL] IP: a MySQL server needs USER too"),
        (
            "[MySQL]\nSSL_CA = conf/server.conf\n",
            "FILE:2: [Fil_EXEC_MySQL] SSL_CA: expected certificates in PEM, found none in FILE",
        ),
        (
            "[Kafka_Cluster]\nSECURITY_PROTOCOL = SSL\nSSL_CAFILE = conf/server.conf\n",
            "FILE:3: [Kafka_Cluster] SSL_CAFILE: expected certificates in PEM, found none in FILE",
        ),
    ],
)
def test_values_that_do_not_fit_say_so(file: Path, text: str, problem: str) -> None:
    assert problems(file, text) == [problem]


def test_certificates_for_brokers_that_are_spoken_to_without_tls_are_refused(file: Path, tmp_path: Path) -> None:
    Authority(tmp_path)
    text = "[Kafka_Cluster]\nSECURITY_PROTOCOL = {}\nSSL_CAFILE = authority.pem\n"
    assert problems(file, text.format("PLAINTEXT")) == [
        "FILE:3: [Kafka_Cluster] SSL_CAFILE: needs SECURITY_PROTOCOL SSL or SASL_SSL, with another one nothing is"
        " encrypted or checked"
    ]
    assert loaded(file, text.format("SSL")).kafka.ssl_cafile == tmp_path / "authority.pem"
