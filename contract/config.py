"""Configuration: conf/server.conf and its overrides as frozen dataclasses, one a section."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


def _secret(default: str = "") -> str:
    return field(default=default, repr=False)


@dataclass(frozen=True)
class KafkaSettings:
    bootstrap_servers: tuple[str, ...] = ()  # empty: no broker, the database is the queue
    group_id: str = "execute-engine"
    auto_offset_reset: str = "earliest"
    topic: str = "execute-engine-units"
    partitions: int = 24
    replication: int | None = None  # None: the broker's default
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str = ""
    sasl_username: str = ""
    sasl_password: str = _secret()
    ssl_cafile: Path | None = None


@dataclass(frozen=True)
class DatabaseSettings:
    ip: str = ""  # empty: SQLite
    port: int = 3306
    database: str = "execute_engine"
    user: str = ""
    password: str = _secret()
    sqlite_file: Path = Path("data/execute_engine.db")
    ssl_ca: Path | None = None


@dataclass(frozen=True)
class ZabbixSettings:
    ip: tuple[str, ...] = ()  # empty: no heartbeat is sent
    zabbix_port: int = 10051
    item: str = "exec.engine.ping"
    host: str = ""  # filled with this machine's host name


@dataclass(frozen=True)
class AnsibleSettings:
    ssh_user: str = "root"
    ssh_password: str = _secret()
    ssh_sudo_password: str = _secret()
    ssh_port: int = 22
    ssh_key_file: Path | None = None
    host_key_checking: str = "accept-new"  # accept-new | yes | no
    connection: str = "asyncssh"  # asyncssh | openssh
    workers: str = "threads"  # threads | processes
    python_interpreter: str = "/usr/bin/python3"
    vault_password_file: Path | None = None


@dataclass(frozen=True)
class IntervalSettings:
    """[Data_Send]"""

    zabbix: int = 30  # seconds between two heartbeats
    exec: float = 1.0  # the longest pause of the consumer's loop, seconds
    distribute_ip: str = ""


@dataclass(frozen=True)
class DistributeSettings:
    host: str = "127.0.0.1"
    port: int = 8007
    workers: int = 2
    tokens_file: Path | None = None
    no_auth: bool = False
    files_dir: Path = Path("data/files")
    parallel: int = 0  # hosts of one task out at once; 0 = no limit
    retention_days: int = 90


@dataclass(frozen=True)
class EngineSettings:
    """[Exec_Engine]"""

    number: int = 30  # hosts in a unit
    slots: int | None = None  # None: from cores and memory
    runners: int | None = None  # None: from memory
    engine_id: str = ""  # filled with this machine's host name
    files_dir: Path = Path("/mnt")
    state_dir: Path = Path("data/engine")
    lease_seconds: int = 30
    drain_seconds: int = 600
    allow_local: bool = False


@dataclass(frozen=True)
class GitlabSettings:
    ip: str = ""
    group: str = ""
    url_template: str = "git@{ip}:{group}/{project}.git"
    ssh_key_file: Path | None = None
    clone_timeout: int = 300
    host_key_checking: str = "accept-new"


@dataclass(frozen=True)
class Config:
    kafka: KafkaSettings
    database: DatabaseSettings
    zabbix: ZabbixSettings
    ansible: AnsibleSettings
    intervals: IntervalSettings
    distribute: DistributeSettings
    engine: EngineSettings
    gitlab: GitlabSettings
    warnings: tuple[str, ...] = ()  # what was read and overruled; the services log it once at their start


def load(path: Path) -> Config:
    """Read the file and the overrides. Raises ConfigError that lists every problem with file and line."""
    raise NotImplementedError
