"""The tables of models: names, versions, promotions, and looks at holdouts.

Owns names, types and indexes of columns, beside schema.py. `promotions` is append-only: rows are never changed.
"""

from sqlalchemy import JSON, Column, Double, Index, Integer, String, Table, UniqueConstraint

from training.plane.schema import MOST_OWNER_CHARACTERS, Counter, Told, claimable, metadata, tries

models = Table(
    "models",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("owner", String(MOST_OWNER_CHARACTERS), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("champion", String(40), nullable=False, server_default=""),
    Column("shadow", String(40), nullable=False, server_default=""),
    Column("shadow_share", Double, nullable=False, server_default="0"),
    Column("watched_until", Double),
    Column("watched", JSON),
    Column("created_at", Double, nullable=False),
)
"""`champion`, `shadow`: labels of versions. An empty champion is the model that replicas have by configuration."""

versions = Table(
    "versions",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("number", Integer, nullable=False),
    Column("label", String(40), nullable=False),
    Column("owner", String(MOST_OWNER_CHARACTERS), nullable=False),
    Column("job", String(26), nullable=False),
    Column("dataset", String(26), nullable=False),
    Column("dataset_sha256", String(64), nullable=False),
    Column("image", String(300), nullable=False, server_default=""),
    Column("manifest", JSON, nullable=False),
    Column("files", JSON, nullable=False),
    Column("measures", JSON, nullable=False),
    Column("state", String(20), nullable=False),
    Column("report", JSON),
    Column("created_at", Double, nullable=False),
    Column("judged_at", Double),
    tries(),
    *claimable(),
    UniqueConstraint("name", "number", name="versions_number"),
    UniqueConstraint("name", "job", name="versions_job"),
    Index("versions_due", "due_at"),
)

promotions = Table(
    "promotions",
    metadata,
    Column("seq", Counter, primary_key=True, autoincrement=True),
    Column("name", String(64), nullable=False),
    Column("action", String(20), nullable=False),
    Column("before", String(40), nullable=False),
    Column("after", String(40), nullable=False),
    Column("at", Double, nullable=False),
    Column("author", String(MOST_OWNER_CHARACTERS), nullable=False),
    Column("cause", String(20), nullable=False),
    Column("reason", Told, nullable=False),
    Index("promotions_name", "name", "seq"),
)

looks = Table(
    "looks",
    metadata,
    Column("holdout", String(64), primary_key=True),
    Column("version", String(26), primary_key=True),
    Column("at", Double, nullable=False),
)
