"""The number of checks that were begun on a dataset."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the column."""
    op.add_column("datasets", sa.Column("checks", sa.Integer(), server_default="0", nullable=False))
