"""The cost of machines that requests without an answer may have made, and an index for live attempts."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the columns and the index."""
    op.add_column("attempts", sa.Column("unanswered_at", sa.Double(), nullable=True))
    op.add_column("attempts", sa.Column("usd_doubted", sa.Double(), server_default="0", nullable=False))
    op.create_index("attempts_state", "attempts", ["state"])
