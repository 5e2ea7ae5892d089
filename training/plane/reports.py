"""Reports of pods: start, measurements, result, and end.

Owns the pod's side of `jobs` and `attempts`, guarded by the attempt: a report of an attempt that is not the newest one,
or that has ended, is a conflict. Every verb makes the job due, so that the reconciler acts at once. What a machine may
report again and again has a bound: the store keeps no more of a job, whatever its machines send.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, delete, func, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite

from training.plane import database, event
from training.plane.errors import ConflictError, InvalidRequestError, LimitReachedError, TooLargeError
from training.plane.job import Attempt, AttemptState
from training.plane.schema import attempts, jobs, measurements, uploads
from training.plane.token import Holder

MOST_MEASUREMENTS: Final = 1000
"""Measurements of a report."""
MOST_NAMES: Final = 200
"""Names of the measurements of a job."""
MOST_KEPT: Final = 50_000
"""Measurements that a job keeps. The store thins them out above."""
MOST_RESULT_BYTES: Final = 32 << 10
"""Bytes of a result as JSON: lists of jobs show the results, and the event of the result repeats its measures."""


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
    """The job's row, once for each attempt. Raises ConflictError for an attempt that is over.

    The second start is written down, and later ones are not.
    """
    job, attempt = _current(connection, holder)
    if attempt["starts"] > 1:
        return job
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


def report(connection: Connection, holder: Holder, sent: Report, now: float) -> Orders:
    """Take in a heartbeat with its measurements. Raises ConflictError, InvalidRequestError, LimitReachedError."""
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

    An attempt has one result: the same one again changes nothing. Raises ConflictError for another result, and naming
    an artifact that is missing; TooLargeError.
    """
    job, _ = _current(connection, holder)
    outcome = {"measures": dict(measures), "artifacts": sorted(names), "attempt": holder.attempt}
    if (size := len(json.dumps(outcome))) > MOST_RESULT_BYTES:
        raise TooLargeError.over("result", MOST_RESULT_BYTES, size)
    if has_result(job, holder):
        if job["result"] != outcome:
            raise ConflictError(f"attempt {holder.attempt} of the job has reported another result")
        return
    kept = select(uploads.c.name).where(
        uploads.c.job == holder.job,
        uploads.c.attempt == holder.attempt,
        uploads.c.kind == "artifact",
        uploads.c.complete_at.is_not(None),
    )
    complete = set(connection.execute(kept).scalars())
    if missing := sorted(set(names) - complete):
        raise ConflictError(f"artifacts are not complete: {', '.join(missing[:5])}")
    connection.execute(update(jobs).where(jobs.c.id == holder.job).values(result=outcome))
    event.append(connection, holder.job, holder.attempt, now, "result", **measures)


def has_result(job: RowMapping, holder: Holder) -> bool:
    """Whether the attempt has reported its result."""
    return bool((job["result"] or {}).get("attempt") == holder.attempt)


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
    _check_names(connection, holder.job, points)
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    rows = {(p.name, p.step): p for p in points}
    values = [
        {"job": holder.job, "attempt": holder.attempt, "name": p.name, "step": p.step, "at": p.at, "value": p.value}
        for p in rows.values()
    ]
    statement = insert(measurements).values(values)
    new = {column: statement.excluded[column] for column in ("attempt", "at", "value")}
    connection.execute(statement.on_conflict_do_update(index_elements=["job", "name", "step"], set_=new))
    counted = select(func.count()).select_from(measurements).where(measurements.c.job == holder.job)
    if connection.execute(counted).scalar_one() > MOST_KEPT:
        _thin_out(connection, holder.job)


def _check_names(connection: Connection, job: str, points: Sequence[Point]) -> None:
    """Raises LimitReachedError when the points bring more names than a job may have."""
    sent = {point.name for point in points}
    names = select(measurements.c.name).where(measurements.c.job == job)
    known = set(connection.execute(names.where(measurements.c.name.in_(sent)).distinct()).scalars())
    if sent <= known:
        return
    others = names.where(measurements.c.name.not_in(sent)).distinct().limit(MOST_NAMES + 1).subquery()
    if len(sent) + connection.execute(select(func.count()).select_from(others)).scalar_one() > MOST_NAMES:
        raise LimitReachedError.at("metrics", MOST_NAMES, "names of measurements of a job")


def _thin_out(connection: Connection, job: str) -> None:
    """Keep about half of MOST_KEPT: the steps of each name fall into parts of one length, and the newest of each stays.

    Every second measurement would go by age: the beginning of a long training would vanish.
    """
    columns, mine = measurements.c, measurements.c.job == job
    names = select(func.count(columns.name.distinct())).where(mine)
    parts = max(1, MOST_KEPT // (2 * connection.execute(names).scalar_one()))
    first = func.min(columns.step).over(partition_by=columns.name)
    length = 1 + (func.max(columns.step).over(partition_by=columns.name) - first) // parts
    placed = select(columns.name, columns.step, ((columns.step - first) // length).label("part")).where(mine).subquery()
    parted = (placed.c.name, placed.c.part)
    place = func.row_number().over(partition_by=parted, order_by=placed.c.step.desc()).label("place")
    ranked = select(placed.c.name, placed.c.step, place).subquery()
    gone = select(ranked.c.name, ranked.c.step).where(ranked.c.place > 1)
    connection.execute(delete(measurements).where(mine, tuple_(columns.name, columns.step).in_(gone)))
