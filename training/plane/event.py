"""Events of jobs: append-only rows, in an order that a reader can follow with a cursor.

Owns the writing and reading of events. A job's row is locked before the event's number is drawn: otherwise PostgreSQL
could commit number 8 before number 7, and a reader that has seen 8 would never see 7.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select

from training.plane.schema import events, jobs


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


def after(connection: Connection, job: str, seq: int, limit: int) -> list[Event]:
    """The job's events with a number above `seq`, oldest first, at most `limit`."""
    found = select(events).where(events.c.job == job, events.c.seq > seq).order_by(events.c.seq).limit(limit)
    return [Event(**row) for row in connection.execute(found).mappings()]
