"""Who did what: rows that are only ever added.

MySQL commits each statement by itself: every one of them can be run again after a crash in the middle.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0004"
down_revision = "0003"

Moment = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
Key = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def Ascii(length: int) -> sa.String:
    return sa.String(length).with_variant(
        mysql.VARCHAR(length, charset="ascii", collation="ascii_bin"), "mysql", "mariadb"
    )


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("id", Key, primary_key=True, autoincrement=True),
        sa.Column("at", Moment, nullable=False),
        sa.Column("who", Ascii(64), nullable=False),
        sa.Column("address", Ascii(64), nullable=False),
        sa.Column("action", Ascii(32), nullable=False),
        sa.Column("target", sa.String(255)),
        sa.Column("code", sa.Integer, nullable=False),
        sa.Column("msg", sa.String(1000), nullable=False),
        if_not_exists=True,
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
    existing = {index["name"] for index in sa.inspect(op.get_bind()).get_indexes("audit")}
    for column in ("who", "target"):
        if f"audit_by_{column}" not in existing:
            op.create_index(f"audit_by_{column}", "audit", [column, "id"])
