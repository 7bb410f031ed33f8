"""Project files: what was cloned, which versions there are, and which of them a task sees.

MySQL commits each statement by itself: every one of them can be run again after a crash in the middle.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0005"
down_revision = "0004"

Moment = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
Text = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")


def Ascii(length: int) -> sa.String:
    return sa.String(length).with_variant(
        mysql.VARCHAR(length, charset="ascii", collation="ascii_bin"), "mysql", "mariadb"
    )


def upgrade() -> None:
    _add_column("task", sa.Column("projects", Text))
    _add_column("task", sa.Column("needs_files", sa.Boolean, nullable=False, server_default="0"))
    _add_column("engine", sa.Column("sees_files", sa.Boolean, nullable=False, server_default="1"))
    _create_table(
        "project",
        sa.Column("name", Ascii(200), primary_key=True),
        sa.Column("group_path", Ascii(255), nullable=False),
        sa.Column("ref", Ascii(255), nullable=False),
        sa.Column("commit_id", Ascii(80), nullable=False),
        sa.Column("updated_at", Moment, nullable=False),
    )
    _create_table(
        "project_version",
        sa.Column("project", Ascii(200), primary_key=True),
        sa.Column("commit_id", Ascii(80), primary_key=True),
        sa.Column("ref", Ascii(255), nullable=False),
        sa.Column("files", sa.BigInteger, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("ready_at", Moment, nullable=False),
    )
    _create_table(
        "clone_job",
        sa.Column("id", Ascii(32), primary_key=True),
        sa.Column("project", Ascii(200), nullable=False),
        sa.Column("state", Ascii(16), nullable=False),
        sa.Column("progress", Text),
        sa.Column("answer", Text),
        sa.Column("submitted_by", sa.String(160), nullable=False),
        sa.Column("started_at", Moment, nullable=False),
        sa.Column("finished_at", Moment),
    )
    existing = {index["name"] for index in sa.inspect(op.get_bind()).get_indexes("clone_job")}
    if "clone_job_by_project" not in existing:
        op.create_index("clone_job_by_project", "clone_job", ["project", "started_at"])


def _add_column(table: str, column: sa.Column) -> None:
    existing = {found["name"] for found in sa.inspect(op.get_bind()).get_columns(table)}
    if column.name not in existing:
        op.add_column(table, column)


def _create_table(name: str, *columns: sa.Column) -> None:
    op.create_table(
        name,
        *columns,
        if_not_exists=True,
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
