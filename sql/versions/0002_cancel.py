"""A task can be cancelled and run again, and all dispatching be held.

MySQL commits each statement by itself: every one of them can be run again after a crash in the middle.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0002"
down_revision = "0001"

Moment = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def Ascii(length: int) -> sa.String:
    return sa.String(length).with_variant(
        mysql.VARCHAR(length, charset="ascii", collation="ascii_bin"), "mysql", "mariadb"
    )


def add(table: str, column: sa.Column[object]) -> None:
    if column.name not in {found["name"] for found in sa.inspect(op.get_bind()).get_columns(table)}:
        op.add_column(table, column)


def upgrade() -> None:
    add("task", sa.Column("rerun_of", Ascii(160)))
    add("task", sa.Column("cancelled_at", Moment))
    add("unit", sa.Column("stop_requested", sa.Boolean, nullable=False, server_default="0"))
    op.create_table(
        "dispatch_hold",
        sa.Column("name", Ascii(32), primary_key=True),
        sa.Column("held_by", sa.String(255), nullable=False),
        sa.Column("since", Moment, nullable=False),
        if_not_exists=True,
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
