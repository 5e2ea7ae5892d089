"""The tables of the store.

Owns names, types and indexes of columns. Times are Unix times in seconds. migrations/ makes the tables; a test holds
both against each other. `claimable` rows are worked on by one worker at a time: database.py has the claim.
"""

import json
import re
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Dialect,
    Double,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

metadata = MetaData()
# SQLite counts up by itself only in a column of exactly the type INTEGER.
_NOT_STORED: Final = re.compile("[\0\ud800-\udfff]")
Counter = BigInteger().with_variant(Integer, "sqlite")
MOST_OWNER_CHARACTERS: Final = 200
"""The gateway takes longer names: caller.py refuses these."""


class Told(TypeDecorator[str]):
    """Text that repeats what others have sent. PostgreSQL stores no NUL, and UTF-8 has no surrogates."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else str(_storable(value))


def document(value: Any) -> str:
    """The JSON of a value, its texts as Told stores texts: PostgreSQL reads no field of JSON with a NUL."""
    return json.dumps(_storable(value))


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return _NOT_STORED.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_storable(name): _storable(one) for name, one in value.items()}
    return [_storable(one) for one in value] if isinstance(value, list | tuple) else value


def claimable() -> list[Column[object]]:
    """The row's due time, the lease of the worker at work, and the count of pokes."""
    return [
        Column("due_at", Double),
        Column("lease_owner", String(64)),
        Column("lease_token", String(26)),
        Column("lease_until", Double),
        Column("pokes", Integer, nullable=False, server_default="0"),
    ]


def tries() -> Column[int]:
    """Claims of the row whose work has not ended: by a bug, or with the worker. A release sets the number to 0."""
    return Column("tries", Integer, nullable=False, server_default="0")


datasets = Table(
    "datasets",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("owner", String(MOST_OWNER_CHARACTERS), nullable=False),
    Column("name", String(200), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("state", String(20), nullable=False),
    Column("reason", Told, nullable=False, server_default=""),
    Column("key", String(100), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("upload", String(1024), nullable=False, server_default=""),
    Column("parts", Integer, nullable=False),
    Column("etags", JSON),
    Column("rows", BigInteger),
    Column("first_time", String(40)),
    Column("last_time", String(40)),
    Column("report", JSON),
    Column("checks", Integer, nullable=False, server_default="0"),
    Column("created_at", Double, nullable=False),
    Column("completed_at", Double),
    *claimable(),
    Index("datasets_owner", "owner", "id"),
    Index("datasets_due", "due_at"),
)

tokens = Table(
    "tokens",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("kind", String(20), nullable=False),
    Column("owner", String(MOST_OWNER_CHARACTERS), nullable=False),
    Column("dataset", String(26)),
    Column("job", String(26)),
    Column("attempt", Integer),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("used_at", Double),
    Column("revoked_at", Double),
    Index("tokens_job", "job", "attempt"),
    Index("tokens_dataset", "dataset"),
    Index("tokens_expires", "expires_at"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("owner", String(MOST_OWNER_CHARACTERS), nullable=False),
    Column("idempotency_key", String(200)),
    Column("request_sha256", String(64), nullable=False),
    Column("name", String(200), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("recipe", JSON, nullable=False),
    Column("recipe_sha256", String(64), nullable=False),
    Column("dataset", String(26), nullable=False),
    Column("launcher", String(20), nullable=False),
    Column("state", String(20), nullable=False),
    Column("reason", Told, nullable=False, server_default=""),
    Column("attempt", Integer, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("losses", Integer, nullable=False),
    Column("max_attempts", Integer, nullable=False),
    Column("max_seconds", Double, nullable=False),
    Column("seconds_used", Double, nullable=False),
    Column("max_usd", Double),
    Column("waits", Integer, nullable=False, server_default="0"),
    Column("cancel_asked_at", Double),
    Column("progress", Double, nullable=False, server_default="0"),
    Column("result", JSON),
    Column("created_at", Double, nullable=False),
    Column("started_at", Double),
    Column("ended_at", Double),
    tries(),
    *claimable(),
    UniqueConstraint("owner", "idempotency_key", name="jobs_idempotency"),
    Index("jobs_owner", "owner", "id"),
    Index("jobs_due", "due_at"),
    Index("jobs_state", "state"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("job", String(26), primary_key=True),
    Column("n", Integer, primary_key=True),
    Column("name", String(100), nullable=False, unique=True),
    Column("state", String(20), nullable=False),
    Column("requested_at", Double, nullable=False),
    Column("created_at", Double),
    Column("running_at", Double),
    Column("heartbeat_at", Double),
    Column("deadline", Double, nullable=False),
    Column("stop_at", Double),
    Column("ended_at", Double),
    Column("gone_at", Double),
    Column("starts", Integer, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("exit_code", Integer),
    Column("failed_line", Integer),
    Column("failed_command", Told),
    Column("cause", String(40), nullable=False, server_default=""),
    Column("launcher", String(20), nullable=False, server_default="process"),
    Column("handle", String(200), nullable=False, server_default=""),
    Column("offer", String(100), nullable=False, server_default=""),
    Column("asked_at", Double),
    Column("unanswered_at", Double),
    Column("why", Told, nullable=False, server_default=""),
    Column("usd_per_hour", Double, nullable=False, server_default="0"),
    Column("usd_reserved", Double, nullable=False, server_default="0"),
    Column("usd_doubted", Double, nullable=False, server_default="0"),
    Column("usd_billed", Double),
    Column("settled_at", Double),
    Index("attempts_state", "state"),
)

budgets = Table(
    "budgets",
    metadata,
    Column("owner", String(MOST_OWNER_CHARACTERS), primary_key=True),
    Column("usd_per_month", Double),
)

ledger = Table(
    "ledger",
    metadata,
    Column("seq", Counter, primary_key=True, autoincrement=True),
    Column("owner", String(MOST_OWNER_CHARACTERS), nullable=False),
    Column("period", String(7), nullable=False),
    Column("job", String(26), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("kind", String(20), nullable=False),
    Column("usd", Double, nullable=False),
    Column("at", Double, nullable=False),
    Index("ledger_owner", "owner", "period"),
    Index("ledger_job", "job", "attempt"),
)

settings = Table(
    "settings",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("value", String(200), nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("seq", Counter, primary_key=True, autoincrement=True),
    Column("job", String(26), nullable=False),
    Column("attempt", Integer),
    Column("at", Double, nullable=False),
    Column("kind", String(40), nullable=False),
    Column("data", JSON, nullable=False),
    Index("events_job", "job", "seq"),
    Index("events_kind", "kind"),
)

measurements = Table(
    "measurements",
    metadata,
    Column("job", String(26), primary_key=True),
    Column("name", String(100), primary_key=True),
    Column("step", BigInteger, primary_key=True),
    Column("attempt", Integer, nullable=False),
    Column("at", Double, nullable=False),
    Column("value", Double, nullable=False),
)

uploads = Table(
    "uploads",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("job", String(26), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("owner", String(MOST_OWNER_CHARACTERS), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("name", String(200), nullable=False),
    Column("key", String(100), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("complete_at", Double),
    Column("expires_at", Double, nullable=False),
    Index("uploads_job", "job", "kind"),
    Index("uploads_expires", "expires_at"),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("job", String(26), primary_key=True),
    Column("step", BigInteger, primary_key=True),
    Column("attempt", Integer, nullable=False),
    Column("files", JSON, nullable=False),
    Column("complete_at", Double, nullable=False),
)

secrets = Table(
    "secrets",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("value", String(64), nullable=False),
    Column("created_at", Double, nullable=False),
)

duties = Table(
    "duties",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("last_ok_at", Double),
    Column("last_error", Told, nullable=False, server_default=""),
    *claimable(),
)

totals = Table(
    "totals",
    metadata,
    Column("kind", String(40), primary_key=True),
    Column("swept", Double, nullable=False),
)
