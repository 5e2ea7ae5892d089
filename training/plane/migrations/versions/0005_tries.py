"""The number of tries of a row that have ended without an answer."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the columns."""
    for table in ("jobs", "versions"):
        op.add_column(table, sa.Column("tries", sa.Integer(), server_default="0", nullable=False))
