"""A result that comes after its host was counted as lost takes the place of that, and is marked."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    if "late" not in {found["name"] for found in sa.inspect(op.get_bind()).get_columns("host_result")}:
        op.add_column("host_result", sa.Column("late", sa.Boolean, nullable=False, server_default="0"))
