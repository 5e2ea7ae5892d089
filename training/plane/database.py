"""The connection to SQLite or PostgreSQL, the migrations at start, and the claim of a row.

Owns the differences between the two databases. A transaction on SQLite takes the write lock at its begin: a
read that later turns into a write would fail with "database is locked" without waiting.
"""

import functools
import logging
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config as AlembicConfig
from sqlalchemy import (
    Connection,
    Engine,
    Row,
    RowMapping,
    Select,
    Table,
    bindparam,
    case,
    create_engine,
    event,
    func,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.sql.dml import ReturningUpdate

from runtime.logs import fields
from training.plane import identifier
from training.plane.errors import NotFoundError
from training.plane.schema import document

log = logging.getLogger(__name__)

LEASE_SECONDS: Final = 30.0
# No row is put off by more than this. A later time means that the clock was ahead when the row was written.
LONGEST_WAIT_SECONDS: Final = 900.0
_BUSY_SECONDS = 30.0
# How long a transaction waits for one of the connections: a caller is told to come again before the caller gives up.
_POOL_SECONDS = 10.0
# How long PostgreSQL may take for one statement, with the wait for locks.
ANSWER_SECONDS: Final = 8.0
_READING = "training_reading"
# Of writes that a full disk still takes: some hundred transactions, or any number of deletions one after another.
_ROOM_BYTES = 16 << 20
_DISK_FULL = "53100"  # PostgreSQL's SQLSTATE
_MIGRATION_LOCK = 4_207_849_484_125_923_118
_MIGRATIONS = Path(__file__).with_name("migrations")


class StoreFullError(OperationalError):
    """The disk of the database is full: the row was not written."""


class LeaseLostError(Exception):
    """Another worker holds the row now, so the write is out of date."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write one row until `until`. `pokes` is the row's count of pokes at the claim."""

    table: Table
    id: str
    token: str
    pokes: int


class Database:
    """Transactions on a database.

    Raises sqlalchemy.exc.DBAPIError when the database is away, sqlalchemy.exc.TimeoutError when all connections are in
    use.
    """

    def __init__(self, url: str, seconds: float | None = ANSWER_SECONDS) -> None:
        """`url` as SQLAlchemy reads it: sqlite:////path/file.db or postgresql+psycopg://host/name.

        `seconds`: a statement on PostgreSQL takes no longer; None for no limit.
        """
        self.url = url
        self.sqlite = url.startswith("sqlite")
        self.engine = _sqlite(url) if self.sqlite else _postgresql(url, seconds)

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A transaction, committed when the block ends well."""
        try:
            with self.engine.begin() as connection:
                yield connection
        except OperationalError as error:
            full = getattr(error.orig, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL
            if full or getattr(error.orig, "sqlstate", "") == _DISK_FULL:
                raise StoreFullError(error.statement, None, error.orig or error, hide_parameters=True) from error
            raise

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads. On SQLite neither the reader nor a writer waits for the other."""
        with self.engine.connect() as connection:
            reading = connection.execution_options(**{_READING: True})
            with reading.begin():
                yield reading

    def migrate(self) -> None:
        """Bring the schema to the newest version, however long that takes. Workers starting together take turns."""
        config = AlembicConfig()
        config.set_main_option("script_location", str(_MIGRATIONS))
        patient = nullcontext(self) if self.sqlite else closing(Database(self.url, None))
        with patient as store, store.begin() as connection:
            if not self.sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def keep_room(self) -> None:
        """Let SQLite's log of writes take its room on the disk now, so that a disk without room still takes deletions.

        SQLite writes the log from the beginning again and again, and never shortens the file while a connection is
        open. A transaction that is rolled back makes the file long and changes nothing.
        """
        if not self.sqlite or Path(f"{self.engine.url.database}-wal").stat().st_size > _ROOM_BYTES // 2:
            return
        try:
            with self.engine.connect() as connection, connection.begin() as transaction:
                connection.execute(text(f"CREATE TABLE room AS SELECT zeroblob({_ROOM_BYTES}) AS bytes"))
                transaction.rollback()
        except OperationalError:
            log.warning("no room on the disk of the store", extra=fields(bytes=_ROOM_BYTES))

    def close(self) -> None:
        self.engine.dispose()


def _postgresql(url: str, seconds: float | None) -> Engine:
    from training.plane import postgresql  # psycopg takes a tenth of a second

    # Without the parameters of a statement in its errors: the log shows no value of a caller.
    settings = {"pool_pre_ping": True, "pool_size": 10, "pool_timeout": _POOL_SECONDS, "hide_parameters": True}
    return postgresql.engine(url, seconds, **settings)


def _sqlite(url: str) -> Engine:
    connect = {"timeout": _BUSY_SECONDS, "check_same_thread": False}
    settings: dict[str, Any] = {"pool_timeout": _POOL_SECONDS, "hide_parameters": True, "json_serializer": document}
    engine = create_engine(url, connect_args=connect, **settings)

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
        # SQLAlchemy's BEGIN below replaces the one that the driver would send later.
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", f"busy_timeout={int(_BUSY_SECONDS * 1000)}"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        reading = connection.get_execution_options().get(_READING, False)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


def claim(
    connection: Connection, table: Table, worker: str, now: float, only: tuple[str, ...] | None = None
) -> tuple[Row[Any], Lease] | None:
    """The first due row without another worker's lease, claimed for this worker; None without such a row.

    `only`: the keys of the rows that come into question; None for all.

    One UPDATE, so that of two workers only one gets the row. A lease or a due time too far ahead was written by a clock
    that has since been set back, and does not hold.
    """
    token = identifier.new()
    lease = {"token": token, "worker": worker, "until": now + LEASE_SECONDS}
    row = connection.execute(_claim(table, only), {**_times(now), **lease}).first()
    return None if row is None else (row, Lease(table, row[0], token, row._mapping["pokes"]))


def is_due(connection: Connection, table: Table, now: float, only: tuple[str, ...] | None = None) -> bool:
    """Whether claim() would find a row. A look without a write keeps idle workers off the write lock."""
    return connection.execute(_first(table, only), _times(now)).first() is not None


# Both statements are made once: workers ask them all the time.
@functools.cache
def _first(table: Table, only: tuple[str, ...] | None) -> Select[Any]:
    """The key of the row that is due first."""
    key, columns = table.primary_key.columns.values()[0], table.c
    # Rows without a due time are never due; SQLite reads them all unless the index begins behind them.
    named = [columns.due_at >= 0.0] if only is None else [columns.due_at >= 0.0, key.in_(only)]
    due = or_(columns.due_at <= bindparam("at"), columns.due_at > bindparam("too_late"))
    until = columns.lease_until
    free = or_(until.is_(None), until < bindparam("at"), until > bindparam("too_long"))
    return select(key).where(*named, due, free).order_by(columns.due_at).limit(1)


@functools.cache
def _claim(table: Table, only: tuple[str, ...] | None) -> ReturningUpdate[Any]:
    key = table.primary_key.columns.values()[0]
    # Of rows due at the same time the oldest one: ULIDs sort by time. A look alone needs no such sort.
    first = _first(table, only).order_by(key).with_for_update(skip_locked=True).scalar_subquery()
    lease: dict[str, Any] = {
        "lease_token": bindparam("token"), "lease_owner": bindparam("worker"), "lease_until": bindparam("until"),
    }  # fmt: skip
    if "tries" in table.c:
        lease["tries"] = table.c.tries + 1
    return update(table).where(key == first).values(lease).returning(*table.c)


def one(connection: Connection, wanted: Select[Any], what: str, name: str) -> RowMapping:
    """The row. Raises NotFoundError without a row."""
    row = connection.execute(wanted).mappings().first()
    if row is None:
        raise NotFoundError(what, name)
    return row


def put_behind(connection: Connection, table: Table, owner: str, now: float) -> None:
    """Let the rows of the owner that are due wait behind the rows that are due already, the oldest row first."""
    key, columns = table.primary_key.columns.values()[0], table.c
    waiting = (columns.owner == owner, columns.lease_token.is_(None), columns.due_at >= 0.0, columns.due_at < now)
    # Locked rows are left out: a worker that claims one of them puts the others behind, too.
    found = select(key).where(*waiting).with_for_update(skip_locked=True).scalar_subquery()
    connection.execute(update(table).where(key.in_(found)).values(due_at=now))


def take_turns(connection: Connection, about: str) -> None:
    """Let transactions that count rows before they add one take turns, as all that write do on SQLite.

    `about`: what the rows have in common, such as their owner.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(about, 0))))


def _times(now: float) -> dict[str, float]:
    return {"at": now, "too_late": now + LONGEST_WAIT_SECONDS, "too_long": now + 2 * LEASE_SECONDS}


def later(now: float, seconds: float) -> float:
    """The due time of a row after a wait: a longer wait than LONGEST_WAIT_SECONDS would be none."""
    return now + min(seconds, LONGEST_WAIT_SECONDS)


def write(connection: Connection, lease: Lease, now: float, values: Mapping[str, Any]) -> None:
    """Change the row and renew the lease. Raises LeaseLostError."""
    _update(connection, lease, {**values, "lease_until": now + LEASE_SECONDS})


def release(connection: Connection, lease: Lease, due_at: float | None, **values: Any) -> None:
    """Give the row back, due again at `due_at`, or at once when the row was poked meanwhile. Raises LeaseLostError.

    The row's work has ended, unless `values` say how many tries have not.
    """
    columns = lease.table.c
    if "tries" in columns:
        values = {"tries": 0, **values}
    due = case((columns.pokes == lease.pokes, due_at), else_=0.0)
    _update(connection, lease, {**values, "due_at": due, "lease_until": None, "lease_token": None, "lease_owner": None})


def _update(connection: Connection, lease: Lease, values: Mapping[str, Any]) -> None:
    key = lease.table.primary_key.columns.values()[0]
    held = (key == lease.id, lease.table.c.lease_token == lease.token)
    if connection.execute(update(lease.table).where(*held).values(**values)).rowcount != 1:
        raise LeaseLostError(f"{lease.table.name} {lease.id}")


def poke(connection: Connection, table: Table, row_id: str, due_at: float = 0.0, **values: Any) -> None:
    """Make a row due now, also when a worker holds the row. `due_at`: the row's place among other rows that are due."""
    columns = table.c
    key = table.primary_key.columns.values()[0]
    connection.execute(update(table).where(key == row_id).values(**values, due_at=due_at, pokes=columns.pokes + 1))
