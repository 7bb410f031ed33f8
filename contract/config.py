"""Configuration: conf/server.conf and its overrides as frozen dataclasses, one a section.

The fields are the keys in lower case; contract/options.py says what a declaration means.
`python -m contract.shipped` prints the file that lists them all, conf/server.conf.
"""

# ruff: noqa: RUF009 - the functions of contract.options return dataclasses.field()

from __future__ import annotations

import os
import re
import socket
import ssl
import typing
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from contract import failpoint, inifile, layers, logs, options, secret, supervised
from contract.errors import ConfigError
from contract.inifile import Problem, Where
from contract.layers import Layer, Section
from contract.masking import MASKABLE_CHARACTERS

_TOKEN_IN_URL = re.compile("https://[^/@:]*:([^/@]*)@")

API_PASSWORD_VARIABLE = "EXECUTE_ENGINE_ZABBIX_API_PASSWORD_FILE"  # of whoever provisions Zabbix
ENGINE = "execute_engine"
DISTRIBUTE = "distribute"  # the two services, where it matters who reads

# Variables of ours that are no configuration. The last ones are marks on the engine's processes.
_OTHER_VARIABLES = frozenset(
    {
        failpoint.VARIABLE,
        logs.FORMAT_VARIABLE,
        logs.LEVEL_VARIABLE,
        secret.VARIABLE,
        supervised.VARIABLE,
        API_PASSWORD_VARIABLE,
        "EXECUTE_ENGINE_INCARNATION",
        "EXECUTE_ENGINE_STATE_DIR_MARK",
    }
)

_NAME = r"[A-Za-z0-9._-]{1,249}"
_ADDRESS = r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]+)(:[0-9]{1,5})?"
_PORT = re.compile(":([0-9]+)$")  # of such an address
_HOST_KEY_CHECKING = ("accept-new", "yes", "no")


@dataclass(frozen=True)
class KafkaSettings:
    """Kafka between distribute and the engines."""

    bootstrap_servers: tuple[str, ...] = options.listing(
        "Brokers, host:port, comma-separated. Empty: no Kafka, the engines take units straight from the database.",
        pattern=_ADDRESS,
        expected="host:port, comma-separated",
    )
    group_id: str = options.text(
        "execute-engine", "Consumer group of the engines.", pattern=_NAME, expected="letters, digits and . _ -"
    )
    auto_offset_reset: str = options.choice(
        "earliest", ("earliest", "latest"), "Where a new group starts: always earliest, latest would lose units."
    )
    topic: str = options.text(
        "execute-engine-units", "Topic of the units.", pattern=_NAME, expected="letters, digits and . _ -"
    )
    partitions: int = options.integer(
        24, 1, 10_000, "Partitions of the topic; at least as many as engines. A smaller topic is grown."
    )
    replication: int | None = options.integer(None, 1, 100, "Copies of each partition. Empty: the broker's default.")
    security_protocol: str = options.choice(
        "PLAINTEXT", ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"), "PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL."
    )
    sasl_mechanism: str = options.choice(
        "", ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"), "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; with SASL_* only."
    )
    sasl_username: str = options.text("", "User at the brokers; with SASL_* only.")
    sasl_password: str = options.secret("Password at the brokers; with SASL_* only.")
    ssl_cafile: Path | None = options.file("Certificates that the brokers are checked against. Empty: the system's.")


@dataclass(frozen=True)
class DatabaseSettings:
    """The database of both services: MySQL 8 or MariaDB 10.6 and newer, or SQLite. [MySQL] means the same."""

    ip: str = options.text(
        "", "Address of the MySQL server. Empty: SQLite.", pattern=r"\S+", expected="an address or a name"
    )
    port: int = options.integer(3306, 1, 65535, "Port of the MySQL server.")
    database: str = options.text(
        "execute_engine", "Name of the database.", pattern=r"[A-Za-z0-9_$-]{1,64}", expected="letters, digits, _ $ -"
    )
    user: str = options.text("", "User of the database.")
    password: str = options.secret("Password of the database user.")
    sqlite_file: Path = options.folder("data/execute_engine.db", "The SQLite database, used while IP is empty.")
    ssl_ca: Path | None = options.file(
        "Certificates that the MySQL server is checked against, by TLS. Empty: not checked."
    )


@dataclass(frozen=True)
class ZabbixSettings:
    """Heartbeats to Zabbix, as trapper items."""

    ip: tuple[str, ...] = options.listing(
        "Servers or proxies, comma-separated, each with :port or without. Empty: no heartbeat is sent.",
        pattern=_ADDRESS,
        expected="addresses or names, with :port or without, IPv6 in brackets, comma-separated",
    )
    zabbix_port: int = options.integer(10051, 1, 65535, "Trapper port of those in IP that name none.")
    item: str = options.text(
        "exec.engine.ping", "Key of the item that gets 1.", pattern=r"\S{1,255}", expected="a key without blanks"
    )
    host: str = options.text("", "This machine's name in Zabbix. Empty: its host name.")


@dataclass(frozen=True)
class AnsibleSettings:
    """How the engines log in to the hosts and run Ansible there."""

    ssh_user: str = options.text("root", "User on the hosts.", pattern=r"\S+", expected="a name without blanks")
    ssh_password: str = options.secret("Password of the user on the hosts. Empty: only keys.")
    ssh_sudo_password: str = options.secret("Password that sudo asks for on the hosts.")
    ssh_port: int = options.integer(22, 1, 65535, "Port of sshd on the hosts.")
    ssh_key_file: Path | None = options.file("Private key for the hosts, no passphrase. Empty: only the password.")
    host_key_checking: str = options.choice(
        "accept-new",
        _HOST_KEY_CHECKING,
        "accept-new (the first key of a host is kept, another one refused), yes (only known keys) or no.",
    )
    connection: str = options.choice(
        "asyncssh",
        ("asyncssh", "openssh"),
        "asyncssh, or openssh for what only OpenSSH's client can do.",
    )
    workers: str = options.choice(
        "threads", ("threads", "processes"), "A thread or a process for each host of a unit; threads need a third."
    )
    python_interpreter: str = options.text(
        "/usr/bin/python3", "Python on the hosts.", pattern=r"[A-Za-z0-9_./+-]+", expected="a path without blanks"
    )
    vault_password_file: Path | None = options.file("Password of vaulted strings. Empty: such playbooks are refused.")


@dataclass(frozen=True)
class IntervalSettings:
    """How often things are done."""

    zabbix: int = options.integer(30, 1, 3600, "Seconds between two heartbeats.")
    exec: float = options.decimal(1.0, 0.01, 60, "Longest pause of an engine's main loop, seconds.")
    distribute_ip: str = options.text("", "Address of distribute, as others see it.")


def _log_level() -> str:
    words = "debug, info, warning or error. EXECUTE_ENGINE_LOG_LEVEL overrules it."
    level: str = options.choice("info", logs.LEVELS, words)
    return level


@dataclass(frozen=True)
class DistributeSettings:
    """The service that answers REST and cuts tasks into units."""

    host: str = options.text(
        "127.0.0.1", "Address that REST listens on.", pattern=r"\S+", expected="an address or a name"
    )
    port: int = options.integer(8007, 1, 65535, "Port that REST listens on.")
    workers: int = options.integer(2, 1, 256, "Processes that answer REST.")
    tokens_file: Path | None = options.file(
        "Tokens of the clients, made by python -m distribute token. Empty: only programs on this machine are answered.",
        must_be_readable=False,
    )
    no_auth: bool = options.switch(
        False, "yes: without TOKENS_FILE answer everybody, on any address and through proxies."
    )
    trusted_proxies: tuple[options.Network, ...] = options.networks(
        "127.0.0.1, ::1",
        "Proxies whose X-Forwarded-For is believed: addresses, or networks such as 10.1.0.0/24, comma-separated.",
    )
    requests_per_second: int = options.integer(
        100,
        0,
        100_000,
        "Requests a second of a token, or without tokens of an address, in each of WORKERS; 0: no limit.",
    )
    files_dir: Path = options.folder("data/files", "Projects cloned from Gitlab; shared with the engines.")
    parallel: int = options.integer(0, 0, 1_000_000, "Hosts of one task that run at once; 0: no limit.")
    retention_days: int = options.integer(90, 1, 36_500, "Days that finished tasks are kept.")
    log_level: str = _log_level()


@dataclass(frozen=True)
class EngineSettings:
    """The service that runs units with Ansible."""

    number: int = options.integer(30, 1, 1000, "Hosts in a unit.")
    slots: int | None = options.integer(None, 1, 100_000, "Hosts at once. Empty: from cores and memory.")
    runners: int | None = options.integer(
        None, 1, 10_000, "Units at once. Empty: available memory / 40 MB, at least 64."
    )
    runner_memory: int = options.integer(
        2000, 100, 1_000_000, "MB that no process of a unit may exceed: the unit is ended before the machine is short."
    )
    engine_id: str = options.text(
        "", "Name of this engine, its own on each machine. Empty: the host name.", pattern=_NAME,
        expected="letters, digits and . _ -",
    )  # fmt: skip
    files_dir: Path = options.folder(
        "/mnt",
        "distribute's FILES_DIR as this machine sees it. Empty: /mnt, without Kafka distribute's own.",
        written="",
    )
    state_dir: Path = options.folder("data/engine", "What this engine keeps on disk.")
    spool_size: int = options.integer(
        1000, 1, 1_000_000, "MB of results that are kept on disk while the database is away; then nothing is claimed."
    )
    lease_seconds: int = options.integer(30, 2, 3600, "An engine without a sign of life for so long is taken for dead.")
    drain_seconds: int = options.integer(600, 0, 86_400, "Longest wait for running units at a stop, seconds.")
    runner_user: str = options.text(
        "", "User that runs tasks on the engine, where it is started as root. Empty: the engine's own.",
        pattern=r"[A-Za-z_][A-Za-z0-9_.-]{0,31}", expected="the name of a user",
    )  # fmt: skip
    allow_local: bool = options.switch(False, "yes: tasks may run on the engine itself.")
    log_level: str = _log_level()


@dataclass(frozen=True)
class GitlabSettings:
    """Where projects are cloned from."""

    ip: str = options.text("", "Address of Gitlab.", pattern=r"\S+", expected="an address or a name")
    group: str = options.text("", "Group of the projects, where a request names none.")
    url_template: str = options.text(
        "git@{ip}:{group}/{project}.git", "What is cloned; {ip}, {group} and {project} are filled in.",
        pattern=r"([^{}\s]|\{(ip|group|project)\})*\{project\}([^{}\s]|\{(ip|group|project)\})*",
        expected="a URL with {project}, and no braces but {ip}, {group} and {project}",
    )  # fmt: skip
    ssh_key_file: Path | None = options.file("Private key for Gitlab.")
    ssl_ca: Path | None = options.file("Certificates that Gitlab's is checked with, for https. Empty: the system's.")
    clone_timeout: int = options.integer(300, 1, 86_400, "Longest clone, seconds.")
    host_key_checking: str = options.choice(
        "accept-new", _HOST_KEY_CHECKING, "accept-new, yes or no; Gitlab's keys are kept in FILES_DIR/.known_hosts."
    )


def _of(*names: str, reader: str | None = None, live: tuple[str, ...] = ()) -> typing.Any:
    """A section of the file: its names, the only service that reads it, and the keys that a reload changes."""
    return field(metadata={"names": names, "reader": reader, "live": frozenset(live)})


@dataclass(frozen=True)
class Config:
    kafka: KafkaSettings = _of("Kafka_Cluster")
    database: DatabaseSettings = _of("Fil_EXEC_MySQL", "MySQL")
    zabbix: ZabbixSettings = _of("Zabbix", live=("*",))
    ansible: AnsibleSettings = _of("Ansible", reader=ENGINE)
    intervals: IntervalSettings = _of("Data_Send", live=("ZABBIX", "EXEC"))
    distribute: DistributeSettings = _of(
        "Distribute", reader=DISTRIBUTE, live=("REQUESTS_PER_SECOND", "PARALLEL", "LOG_LEVEL")
    )
    engine: EngineSettings = _of("Exec_Engine", live=("NUMBER", "SLOTS", "RUNNERS", "LOG_LEVEL"))
    gitlab: GitlabSettings = _of("Gitlab", reader=DISTRIBUTE)
    file: Path = Path("conf/server.conf")  # what was read
    secret_key_file: Path = Path("conf") / secret.FILE_NAME  # of contract.secret; may be missing
    warnings: tuple[str, ...] = ()  # what was read and overruled; the services log it once at their start

    def log_level(self, service: str) -> str:
        """One of logs.LEVELS; service as for load()."""
        return self.distribute.log_level if service == DISTRIBUTE else self.engine.log_level

    def secrets(self) -> tuple[str, ...]:
        """The secret values that are long enough to be masked wherever they appear."""
        return tuple(value for _, value in _secrets(self) if len(value) >= MASKABLE_CHARACTERS)


def sections() -> list[Section]:
    """Every section, in the order of the shipped file."""
    types = typing.get_type_hints(Config)
    declared = [item for item in fields(Config) if "names" in item.metadata]
    return [Section(item.name, settings=types[item.name], **item.metadata) for item in declared]


def load(path: Path, service: str | None = None) -> Config:
    """Read the file and the overrides. Raises ConfigError that lists every problem with file and line.

    service is DISTRIBUTE or ENGINE: then only the files that this one reads must be there, because the
    two have the same configuration but not the same keys. Without it every file that is named must be readable.
    """
    problems = [Problem(Where(variable), text) for variable, text in logs.environment_problems().items()]
    path = Path(os.path.abspath(path))
    root = path.parent.parent if path.parent.name == "conf" else path.parent
    key_file = secret.key_file(path.parent)
    layer = layers.of_file(inifile.read(path, problems), sections(), problems)
    layer |= layers.of_environment(os.environ, sections(), _OTHER_VARIABLES, root, problems)
    config = Config(
        **{
            section.attribute: section.settings(**layers.parse(layer, section, root, key_file, problems))
            for section in sections()
        }
    )
    for section in sections():
        if service in (None, section.reader) or section.reader is None:
            problems += layers.unreadable_files(layer, section, getattr(config, section.attribute))
    problems += _contradictions(config, layer)
    if problems:
        raise ConfigError(
            "the configuration cannot be used:\n" + "\n".join(f"  {problem}" for problem in sorted(problems))
        )
    return _completed(config, layer, path, key_file)


def _contradictions(config: Config, layer: Layer) -> Iterator[Problem]:
    """What each key alone does not show. A key that was refused already has its default here."""
    kafka, database = config.kafka, config.database
    has_sasl = kafka.sasl_mechanism and kafka.sasl_username and kafka.sasl_password
    if kafka.security_protocol.startswith("SASL") and not has_sasl:
        text = f"{kafka.security_protocol} needs SASL_MECHANISM, SASL_USERNAME and SASL_PASSWORD"
        where = layer["kafka", "SECURITY_PROTOCOL"].where
        yield Problem(where, f"[Kafka_Cluster] SECURITY_PROTOCOL: {text}")
    if database.ip and not database.user:
        yield Problem(layer["database", "IP"].where, "[Fil_EXEC_MySQL] IP: a MySQL server needs USER too")
    if kafka.ssl_cafile and not kafka.security_protocol.endswith("SSL"):
        text = "needs SECURITY_PROTOCOL SSL or SASL_SSL, with another one nothing is encrypted or checked"
        yield Problem(layer["kafka", "SSL_CAFILE"].where, f"[Kafka_Cluster] SSL_CAFILE: {text}")
    for address in config.zabbix.ip:
        if (found := _PORT.search(address)) and not 1 <= int(found[1]) <= 65535:
            text = f"[Zabbix] IP: expected a port from 1 to 65535, found {address!r}"
            yield Problem(layer["zabbix", "IP"].where, text)
    for section, attribute, key, file in (
        ("Kafka_Cluster", "kafka", "SSL_CAFILE", kafka.ssl_cafile),
        ("Fil_EXEC_MySQL", "database", "SSL_CA", database.ssl_ca),
    ):
        if file and os.access(file, os.R_OK) and not _holds_certificates(file):
            text = f"expected certificates in PEM, found none in {file}"
            yield Problem(layer[attribute, key].where, f"[{section}] {key}: {text}")


def _holds_certificates(file: Path) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except (OSError, ValueError):  # ssl's own are among them
        return False
    return True


def _completed(config: Config, layer: Layer, path: Path, key_file: Path) -> Config:
    """With the defaults that depend on other keys or on the machine, and with the warnings."""
    kafka, engine, distribute = config.kafka, config.engine, config.distribute
    warnings = []
    if level := os.environ.get(logs.LEVEL_VARIABLE):
        engine, distribute = replace(engine, log_level=level), replace(distribute, log_level=level)
    if kafka.auto_offset_reset == "latest":
        warnings.append("AUTO_OFFSET_RESET = latest is overruled: a new group starts at the earliest, or loses units")
        kafka = replace(kafka, auto_offset_reset="earliest")
    for key, value in _secrets(config):
        if 0 < len(value) < MASKABLE_CHARACTERS:
            warnings.append(f"{key} has fewer than {MASKABLE_CHARACTERS} characters: too short to be masked in output")
    files_dir_given = ("engine", "FILES_DIR") in layer and layer["engine", "FILES_DIR"].value
    if not kafka.bootstrap_servers and not files_dir_given:
        engine = replace(engine, files_dir=config.distribute.files_dir)
    host_name = socket.gethostname()
    return replace(
        config,
        kafka=kafka,
        distribute=distribute,
        engine=replace(engine, engine_id=engine.engine_id or host_name),
        zabbix=replace(config.zabbix, host=config.zabbix.host or host_name),
        file=path,
        secret_key_file=key_file,
        warnings=tuple(warnings),
    )


def _secrets(config: Config) -> Iterator[tuple[str, str]]:
    """Every secret key with its value."""
    for section in sections():
        for key, item, option in section.declared():
            if option.secret:
                yield f"[{section.names[0]}] {key}", getattr(getattr(config, section.attribute), item.name)
    if found := _TOKEN_IN_URL.match(config.gitlab.url_template):
        yield "the token in [Gitlab] URL_TEMPLATE", urllib.parse.unquote(found[1])
