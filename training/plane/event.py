"""Events of jobs: append-only rows, in an order that a reader can follow with a cursor.

Owns the writing and reading of events. A job's row is locked before the event's number is drawn: otherwise PostgreSQL
could commit number 8 before number 7, and a reader that has seen 8 would never see 7.
"""

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Text, cast, func, insert, select

from training.plane.schema import events, jobs

MOST_BYTES: Final = 256 << 10
"""Bytes of the data of the events that one look reads."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `at` is a Unix time."""

    seq: int
    job: str
    attempt: int | None
    at: float
    kind: str
    data: dict[str, Any]


def lock(connection: Connection, job: str) -> None:
    """Hold the job's row until the transaction ends. A writer of several rows of a job locks the job first."""
    connection.execute(select(jobs.c.id).where(jobs.c.id == job).with_for_update())


def append(connection: Connection, job: str, attempt: int | None, at: float, kind: str, /, **data: Any) -> None:
    """Write one event in the caller's transaction."""
    lock(connection, job)
    connection.execute(insert(events).values(job=job, attempt=attempt, at=at, kind=kind, data=data))


def count(connection: Connection, job: str, attempt: int, kind: str) -> int:
    """The number of the attempt's events of a kind."""
    same = (events.c.job == job, events.c.attempt == attempt, events.c.kind == kind)
    return connection.execute(select(func.count()).select_from(events).where(*same)).scalar_one()


def after(connection: Connection, job: str, seq: int, limit: int) -> list[Event]:
    """The job's next events with a number above `seq`, oldest first: at most `limit`, and about MOST_BYTES.

    The store counts the bytes, so that no more of them reach the plane. The event that crosses MOST_BYTES is the last.
    """
    size = func.length(cast(events.c.data, Text)).label("size")
    named = select(events, size).where(events.c.job == job, events.c.seq > seq)
    rows = named.order_by(events.c.seq).limit(limit).subquery()
    before = (func.sum(rows.c.size).over(order_by=rows.c.seq) - rows.c.size).label("before")
    summed = select(rows, before).subquery()
    columns = [summed.c[column.name] for column in events.c]
    found = select(*columns).where(summed.c.before < MOST_BYTES).order_by(summed.c.seq)
    return [Event(**row) for row in connection.execute(found).mappings()]
