"""Reports of pods: start, measurements, result, and end.

Owns the pod's side of `jobs` and `attempts`, guarded by the attempt: a report of an attempt that is not the newest one,
or that has ended, is a conflict. Every verb makes the job due, so that the reconciler acts at once.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, select, update
from sqlalchemy.dialects import postgresql, sqlite

from training.plane import database, event
from training.plane.errors import ConflictError, InvalidRequestError
from training.plane.job import Attempt, AttemptState
from training.plane.schema import attempts, checkpoints, jobs, measurements, uploads
from training.plane.token import Holder

MOST_MEASUREMENTS: Final = 1000


@dataclass(frozen=True, slots=True)
class Point:
    """A named number at a training step. `at` is a Unix time."""

    step: int
    name: str
    value: float
    at: float


@dataclass(frozen=True, slots=True)
class Report:
    """A batch of measurements, and how far the training is, from 0 to 1."""

    step: int = 0
    progress: float | None = None
    points: Sequence[Point] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True)
class Orders:
    """The answer to a report. `seconds_left` is the time to the deadline."""

    stop: bool
    seconds_left: float


def start(connection: Connection, holder: Holder, now: float) -> RowMapping:
    """The job's row, once for each attempt. Raises ConflictError for a second start and for an attempt that is over."""
    job, attempt = _current(connection, holder)
    _attempt(connection, holder, {"starts": attempt["starts"] + 1})
    if attempt["starts"]:
        database.poke(connection, jobs, holder.job)
        event.append(connection, holder.job, holder.attempt, now, "started_again")
        return job
    left = job["max_seconds"] - job["seconds_used"]
    known = {"running_at": now, "heartbeat_at": now, "deadline": min(attempt["deadline"], now + left)}
    if attempt["created_at"] is None:
        # The machine of a lost answer is billed, also when no look ever shows the machine.
        known["created_at"] = Attempt.of(attempt).billed_since or now
    _attempt(connection, holder, known)
    first = {} if job["started_at"] is not None else {"started_at": now}
    database.poke(connection, jobs, holder.job, **first)
    event.append(connection, holder.job, holder.attempt, now, "started")
    return job


def paid_seconds(connection: Connection, holder: Holder, now: float) -> float | None:
    """Seconds until the end of the attempt's reservation; None for a machine without a price."""
    attempt = Attempt.of(_row(connection, holder))
    until = attempt.paid_until(attempt.usd_per_hour)
    return None if until is None else max(0.0, until - now)


def started_before(connection: Connection, holder: Holder) -> bool:
    """Whether the attempt's machine has started more than once."""
    return int(_row(connection, holder)["starts"]) > 1


def newest_checkpoint(connection: Connection, job: str) -> RowMapping | None:
    """The complete checkpoint with the highest step."""
    found = select(checkpoints).where(checkpoints.c.job == job).order_by(checkpoints.c.step.desc()).limit(1)
    return connection.execute(found).mappings().first()


def report(connection: Connection, holder: Holder, sent: Report, now: float) -> Orders:
    """Take in a heartbeat with its measurements. Raises ConflictError, InvalidRequestError."""
    _check(sent)
    job, attempt = _current(connection, holder)
    _attempt(connection, holder, {"heartbeat_at": now, "step": max(attempt["step"], sent.step)})
    if sent.progress is not None:
        shown = min(1.0, max(0.0, sent.progress))
        connection.execute(update(jobs).where(jobs.c.id == holder.job).values(progress=shown))
    _measure(connection, holder, sent.points)
    stop = job["cancel_asked_at"] is not None or attempt["stop_at"] is not None
    return Orders(stop, max(0.0, attempt["deadline"] - now))


def result(
    connection: Connection, holder: Holder, measures: Mapping[str, Any], names: Sequence[str], now: float
) -> None:
    """Take in the outcome of the training: measures, and the names of the artifacts. All artifacts must be complete.

    Raises ConflictError naming an artifact that is missing.
    """
    _current(connection, holder)
    kept = select(uploads.c.name).where(
        uploads.c.job == holder.job,
        uploads.c.attempt == holder.attempt,
        uploads.c.kind == "artifact",
        uploads.c.complete_at.is_not(None),
    )
    complete = set(connection.execute(kept).scalars())
    if missing := sorted(set(names) - complete):
        raise ConflictError(f"artifacts are not complete: {', '.join(missing[:5])}")
    values = {"result": {"measures": dict(measures), "artifacts": sorted(names), "attempt": holder.attempt}}
    connection.execute(update(jobs).where(jobs.c.id == holder.job).values(**values))
    event.append(connection, holder.job, holder.attempt, now, "result", **measures)


def end(connection: Connection, holder: Holder, exit_code: int, line: int, command: str, now: float) -> None:
    """Take in the pod's end. A second report of the same end changes nothing."""
    event.lock(connection, holder.job)
    row = _row(connection, holder)
    if row["ended_at"] is not None or row["state"] == AttemptState.GONE:
        return
    ended = {"ended_at": now, "exit_code": exit_code, "failed_line": line or None, "failed_command": command or None}
    _attempt(connection, holder, ended)
    database.poke(connection, jobs, holder.job)
    said = {"line": line, "command": command} if line else {}
    event.append(connection, holder.job, holder.attempt, now, "ended", exit_code=exit_code, **said)


def _current(connection: Connection, holder: Holder) -> tuple[RowMapping, RowMapping]:
    """The job and its attempt, locked. Raises ConflictError when the attempt is over or not the newest one."""
    event.lock(connection, holder.job)
    job = connection.execute(select(jobs).where(jobs.c.id == holder.job)).mappings().one()
    attempt = _row(connection, holder)
    over = attempt["ended_at"] is not None or attempt["state"] == AttemptState.GONE
    if job["attempt"] != holder.attempt or over:
        raise ConflictError(f"attempt {holder.attempt} of the job is over")
    return job, attempt


def _row(connection: Connection, holder: Holder) -> RowMapping:
    same = (attempts.c.job == holder.job, attempts.c.n == holder.attempt)
    return connection.execute(select(attempts).where(*same)).mappings().one()


def _attempt(connection: Connection, holder: Holder, values: Mapping[str, Any]) -> None:
    same = (attempts.c.job == holder.job, attempts.c.n == holder.attempt)
    connection.execute(update(attempts).where(*same).values(**values))


def _check(sent: Report) -> None:
    if len(sent.points) > MOST_MEASUREMENTS:
        raise InvalidRequestError.at("metrics", f"at most {MOST_MEASUREMENTS} in one report", MOST_MEASUREMENTS)
    for place, point in enumerate(sent.points):
        if not math.isfinite(point.value):
            raise InvalidRequestError.at(f"metrics[{place}].value", "must be a finite number")


def _measure(connection: Connection, holder: Holder, points: Sequence[Point]) -> None:
    """A repeated measurement, as after a resume, replaces the previous measurement."""
    if not points:
        return
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    rows = {(p.name, p.step): p for p in points}
    values = [
        {"job": holder.job, "attempt": holder.attempt, "name": p.name, "step": p.step, "at": p.at, "value": p.value}
        for p in rows.values()
    ]
    statement = insert(measurements).values(values)
    new = {column: statement.excluded[column] for column in ("attempt", "at", "value")}
    connection.execute(statement.on_conflict_do_update(index_elements=["job", "name", "step"], set_=new))
