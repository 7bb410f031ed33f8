"""Every table of both services. Times are UTC with microseconds, written by Python; they inform and decide nothing.

Ids and host names are ascii and compared by case on every database: the character set stands in the columns.
"""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeDecorator

metadata = sa.MetaData()

Key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # only INTEGER counts up by itself in SQLite
Text = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
Moment = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def Ascii(length: int) -> sa.String:
    """An ascii string that is compared by case."""
    return sa.String(length).with_variant(
        mysql.VARCHAR(length, charset="ascii", collation="ascii_bin"), "mysql", "mariadb"
    )


class Json(TypeDecorator[Any]):
    """A JSON value as text: the same on every database, unlike their own JSON types."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> str | None:
        return None if value is None else json.dumps(value, separators=(",", ":"))

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> Any:
        return None if value is None else json.loads(value)


def _table(name: str, *parts: sa.Column[Any] | sa.Index | sa.UniqueConstraint) -> sa.Table:
    # _bin: names are compared by case, as SQLite does, whatever the server's own default is.
    return sa.Table(name, metadata, *parts, mysql_engine="InnoDB", mysql_charset="utf8mb4", mysql_collate="utf8mb4_bin")


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, nullable=False, server_default="0")


task = _table(
    "task",
    sa.Column("key", Key, primary_key=True, autoincrement=True),
    sa.Column("id", Ascii(160), nullable=False, unique=True),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("type", Ascii(16), nullable=False),  # adhoc, playbook
    sa.Column("module", Ascii(255)),
    sa.Column("args", Text),  # as submitted; an object as its JSON, see options.args_are_json
    sa.Column("playbook_name", sa.String(255)),
    sa.Column("playbook_content", Text),
    sa.Column("timeout_seconds", sa.Integer, nullable=False),
    sa.Column("options", Json, nullable=False),
    sa.Column("warnings", Json, nullable=False),
    sa.Column("request_hash", Ascii(64), nullable=False),
    sa.Column("state", Ascii(16), nullable=False),
    sa.Column("host_count", sa.Integer, nullable=False),
    sa.Column("unit_count", sa.Integer, nullable=False),
    sa.Column("submitted_by", sa.String(160)),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("started_at", Moment),
    sa.Column("finished_at", Moment),
    sa.Column("rerun_of", Ascii(160)),  # the id of the task whose hosts these are
    sa.Column("cancelled_at", Moment),  # when its end was asked for
    sa.Column("projects", Json),  # {project: commit} that its text sees; null: none was there
    sa.Column("needs_files", sa.Boolean, nullable=False, server_default="0"),  # its text may read them
    sa.Index("task_by_state", "state", "key"),
)

unit = _table(
    "unit",
    sa.Column("id", Key, primary_key=True, autoincrement=True),
    sa.Column("task_key", Key, sa.ForeignKey("task.key"), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),  # from 1 within the task
    sa.Column("state", Ascii(16), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False, server_default="1"),
    sa.Column("incarnation", Ascii(32)),
    sa.Column("host_count", sa.Integer, nullable=False),
    sa.Column("published_at", Moment),
    sa.Column("begun_at", Moment),
    sa.Column("finished_at", Moment),
    _count("success"),
    _count("failed"),
    _count("unreachable"),
    _count("timeout"),
    _count("held"),
    _count("not_started"),
    _count("cancelled"),
    _count("lost"),
    sa.Column("stop_requested", sa.Boolean, nullable=False, server_default="0"),  # its engine reads it every 2 s
    sa.UniqueConstraint("task_key", "number", name="unit_number"),
    sa.Index("unit_by_state", "state", "task_key", "id"),
    sa.Index("unit_by_incarnation", "incarnation", "state"),
)

host_result = _table(
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
    sa.Column("stuck_task", sa.String(255)),  # the current one while running
    sa.Column("stage", Ascii(16)),
    sa.Column("since", Moment),
    sa.Column("blame", Text),
    sa.Column("stopped_on_host", Ascii(8)),
    sa.Column("engine", sa.String(255)),
    sa.Column("started_at", Moment),
    sa.Column("finished_at", Moment),
    sa.Column("detail", Json),
    sa.Column("late", sa.Boolean, nullable=False, server_default="0"),  # came when the host counted as lost already
    sa.UniqueConstraint("task_key", "host", name="host_once_a_task"),
    sa.Index("host_result_by_task", "task_key", "id"),
    sa.Index("host_result_by_unit", "unit_id", "status"),
    sa.Index("host_result_by_status", "task_key", "status", "since"),
    sa.Index("host_result_by_host", "host", "id"),
)

engine = _table(
    "engine",
    sa.Column("incarnation", Ascii(32), primary_key=True),
    sa.Column("id", sa.String(255), nullable=False),
    sa.Column("host_name", sa.String(255), nullable=False),
    sa.Column("version", Ascii(32), nullable=False),
    sa.Column("slots", sa.Integer, nullable=False),
    sa.Column("free_slots", sa.Integer, nullable=False),
    sa.Column("beat", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("state", Ascii(16), nullable=False),
    sa.Column("missing", Text),  # one sentence, null when nothing is missing
    sa.Column("started_at", Moment, nullable=False),
    sa.Column("beat_at", Moment, nullable=False),
    sa.Column("sees_files", sa.Boolean, nullable=False, server_default="1"),  # the share answers
    sa.Index("engine_by_state", "state", "id"),
)

leader = _table(
    "leader",
    sa.Column("name", Ascii(32), primary_key=True),
    sa.Column("holder", Ascii(64), nullable=False),
    sa.Column("beat", sa.BigInteger, nullable=False, server_default="0"),
)

dispatch_hold = _table(  # a row while all dispatching is held
    "dispatch_hold",
    sa.Column("name", Ascii(32), primary_key=True),
    sa.Column("held_by", sa.String(255), nullable=False),
    sa.Column("since", Moment, nullable=False),
)

host_key = _table(
    "host_key",
    sa.Column("host", Ascii(253), primary_key=True),
    sa.Column("port", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("key_type", Ascii(64), primary_key=True),
    sa.Column("key", Ascii(4096), nullable=False),
    sa.Column("first_seen_at", Moment, nullable=False),
    sa.Column("engine", sa.String(255), nullable=False),
)

project = _table(  # what FILES_DIR/<name> shows
    "project",
    sa.Column("name", Ascii(200), primary_key=True),
    sa.Column("group_path", Ascii(255), nullable=False),
    sa.Column("ref", Ascii(255), nullable=False),  # as it was asked for; the default branch by its name
    sa.Column("commit_id", Ascii(80), nullable=False),
    sa.Column("updated_at", Moment, nullable=False),
)

project_version = _table(  # a folder of FILES_DIR/.versions; it goes when the row has gone
    "project_version",
    sa.Column("project", Ascii(200), primary_key=True),
    sa.Column("commit_id", Ascii(80), primary_key=True),
    sa.Column("ref", Ascii(255), nullable=False),  # by which it was cloned last
    sa.Column("files", sa.BigInteger, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("ready_at", Moment, nullable=False),
)

clone_job = _table(
    "clone_job",
    sa.Column("id", Ascii(32), primary_key=True),
    sa.Column("project", Ascii(200), nullable=False),
    sa.Column("state", Ascii(16), nullable=False),  # running, ready, failed
    sa.Column("progress", Json),  # of git: what it does, objects received and in all, percent
    sa.Column("answer", Json),  # as the request would have been answered
    sa.Column("submitted_by", sa.String(160), nullable=False),
    sa.Column("started_at", Moment, nullable=False),
    sa.Column("finished_at", Moment),
    sa.Index("clone_job_by_project", "project", "started_at"),
)

audit = _table(  # rows are only ever added
    "audit",
    sa.Column("id", Key, primary_key=True, autoincrement=True),
    sa.Column("at", Moment, nullable=False),
    sa.Column("who", Ascii(64), nullable=False),  # the name of a token
    sa.Column("address", Ascii(64), nullable=False),
    sa.Column("action", Ascii(32), nullable=False),
    sa.Column("target", sa.String(255)),  # the id of a task, the name of a project
    sa.Column("code", sa.Integer, nullable=False),
    sa.Column("msg", sa.String(1000), nullable=False),
    sa.Index("audit_by_who", "who", "id"),
    sa.Index("audit_by_target", "target", "id"),
)
