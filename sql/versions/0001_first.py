"""The tables of the first release.

MySQL commits each statement by itself: every one of them can be run again after a crash in the middle.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None

Key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Text = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
Moment = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def Ascii(length: int) -> sa.String:
    return sa.String(length).with_variant(
        mysql.VARCHAR(length, charset="ascii", collation="ascii_bin"), "mysql", "mariadb"
    )


def create(name: str, *parts: sa.Column[Any] | sa.Constraint, indexes: dict[str, Sequence[str]] | None = None) -> None:
    op.create_table(
        name,
        *parts,
        if_not_exists=True,
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
    existing = {index["name"] for index in sa.inspect(op.get_bind()).get_indexes(name)}
    for index, columns in (indexes or {}).items():
        if index not in existing:
            op.create_index(index, name, list(columns))


def count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, nullable=False, server_default="0")


def upgrade() -> None:
    create(
        "task",
        sa.Column("key", Key, primary_key=True, autoincrement=True),
        sa.Column("id", Ascii(160), nullable=False, unique=True),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("type", Ascii(16), nullable=False),
        sa.Column("module", Ascii(255)),
        sa.Column("args", Text),
        sa.Column("playbook_name", sa.String(255)),
        sa.Column("playbook_content", Text),
        sa.Column("timeout_seconds", sa.Integer, nullable=False),
        sa.Column("options", Text, nullable=False),
        sa.Column("warnings", Text, nullable=False),
        sa.Column("request_hash", Ascii(64), nullable=False),
        sa.Column("state", Ascii(16), nullable=False),
        sa.Column("host_count", sa.Integer, nullable=False),
        sa.Column("unit_count", sa.Integer, nullable=False),
        sa.Column("submitted_by", sa.String(160)),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("started_at", Moment),
        sa.Column("finished_at", Moment),
        indexes={"task_by_state": ("state", "key")},
    )
    create(
        "unit",
        sa.Column("id", Key, primary_key=True, autoincrement=True),
        sa.Column("task_key", Key, sa.ForeignKey("task.key"), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("state", Ascii(16), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False, server_default="1"),
        sa.Column("incarnation", Ascii(32)),
        sa.Column("host_count", sa.Integer, nullable=False),
        sa.Column("published_at", Moment),
        sa.Column("begun_at", Moment),
        sa.Column("finished_at", Moment),
        count("success"),
        count("failed"),
        count("unreachable"),
        count("timeout"),
        count("held"),
        count("not_started"),
        count("cancelled"),
        count("lost"),
        sa.UniqueConstraint("task_key", "number", name="unit_number"),
        indexes={
            "unit_by_state": ("state", "task_key", "id"),
            "unit_by_incarnation": ("incarnation", "state"),
        },
    )
    create(
        "host_result",
        sa.Column("id", Key, primary_key=True, autoincrement=True),
        sa.Column("task_key", Key, sa.ForeignKey("task.key"), nullable=False),
        sa.Column("unit_id", Key, sa.ForeignKey("unit.id"), nullable=False),
        sa.Column("host", Ascii(253), nullable=False),
        sa.Column("status", Ascii(16), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False, server_default="1"),
        sa.Column("rc", sa.Integer),
        sa.Column("changed", sa.Boolean),
        sa.Column("stdout", Text),
        sa.Column("stderr", Text),
        sa.Column("msg", Text),
        sa.Column("tasks_ok", sa.Integer),
        sa.Column("tasks_total", sa.Integer),
        sa.Column("stuck_task", sa.String(255)),
        sa.Column("stage", Ascii(16)),
        sa.Column("since", Moment),
        sa.Column("blame", Text),
        sa.Column("stopped_on_host", Ascii(8)),
        sa.Column("engine", sa.String(255)),
        sa.Column("started_at", Moment),
        sa.Column("finished_at", Moment),
        sa.Column("detail", Text),
        sa.UniqueConstraint("task_key", "host", name="host_once_a_task"),
        indexes={
            "host_result_by_task": ("task_key", "id"),
            "host_result_by_unit": ("unit_id", "status"),
            "host_result_by_status": ("task_key", "status", "since"),
            "host_result_by_host": ("host", "id"),
        },
    )
    create(
        "engine",
        sa.Column("incarnation", Ascii(32), primary_key=True),
        sa.Column("id", sa.String(255), nullable=False),
        sa.Column("host_name", sa.String(255), nullable=False),
        sa.Column("version", Ascii(32), nullable=False),
        sa.Column("slots", sa.Integer, nullable=False),
        sa.Column("free_slots", sa.Integer, nullable=False),
        sa.Column("beat", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("state", Ascii(16), nullable=False),
        sa.Column("missing", Text),
        sa.Column("started_at", Moment, nullable=False),
        sa.Column("beat_at", Moment, nullable=False),
        indexes={"engine_by_state": ("state", "id")},
    )
    create(
        "leader",
        sa.Column("name", Ascii(32), primary_key=True),
        sa.Column("holder", Ascii(64), nullable=False),
        sa.Column("beat", sa.BigInteger, nullable=False, server_default="0"),
    )
    create(
        "host_key",
        sa.Column("host", Ascii(253), primary_key=True),
        sa.Column("port", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("key_type", Ascii(64), primary_key=True),
        sa.Column("key", Ascii(4096), nullable=False),
        sa.Column("first_seen_at", Moment, nullable=False),
        sa.Column("engine", sa.String(255), nullable=False),
    )
