"""The store's verbs for jobs, as callers and the reconciler use them.

Owns the rows of `jobs` and `attempts`. The writes of pods belong to reports.py, the decisions to step.py. Verbs with a
lease raise LeaseLostError when another worker has the job.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, bindparam, case, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from training.plane import budget, database, dataset, event, identifier, terms, token
from training.plane.database import Lease
from training.plane.errors import ConflictError
from training.plane.job import FINAL, Attempt, AttemptState, Cause, Job, JobState
from training.plane.launcher import Made, Offer, Wanted
from training.plane.schema import attempts, datasets, jobs
from training.plane.step import Bury, Finish, Mark, Move, Retry, Stop
from training.plane.terms import Terms
from training.recipes import recipe as recipes

# A job token outlives the attempt's deadline by as long as a pod may hold its artifacts.
HOLD_SECONDS: Final = 3600.0
GIVEN_UP: Final = "given_up"
"""The event of a job that fails because of a bug."""
_LIVE: Final = [state for state in AttemptState if state is not AttemptState.GONE]
# Made once: each look at a job asks both.
_JOB: Final = (
    select(
        jobs,
        datasets.c.state.label("dataset_state"),
        datasets.c.reason.label("dataset_reason"),
        dataset.LABELS,
    )
    .select_from(jobs.outerjoin(datasets, jobs.c.dataset == datasets.c.id))
    .where(jobs.c.id == bindparam("asked"))
)
_LISTED: Final = [column for column in jobs.c if column.name not in {"recipe", "result"}]
_ATTEMPT: Final = select(attempts).where(attempts.c.job == bindparam("asked"), attempts.c.n == bindparam("nth"))


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job as it was asked for. `recipe` is the checked recipe, `text` the recipe as JSON in one fixed form."""

    owner: str
    name: str
    kind: str
    dataset: str
    recipe: dict[str, Any]
    text: str
    launcher: str
    max_attempts: int
    max_seconds: float
    max_usd: float | None = None
    idempotency_key: str | None = None

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


def create(connection: Connection, new: NewJob, now: float) -> tuple[str, bool]:
    """The job's id, and whether the job is new: the same key with the same request answers the job made before.

    Raises ConflictError for the same key with another request.
    """
    asked = hashlib.sha256(f"{new.dataset}\n{new.text}".encode()).hexdigest()
    job = identifier.new()
    row = {
        "id": job, "owner": new.owner, "idempotency_key": new.idempotency_key, "request_sha256": asked,
        "name": new.name, "kind": new.kind, "recipe": new.recipe, "recipe_sha256": new.sha256, "dataset": new.dataset,
        "launcher": new.launcher, "state": JobState.VALIDATING, "attempt": 0, "failures": 0, "losses": 0,
        "max_attempts": new.max_attempts, "max_seconds": new.max_seconds, "max_usd": new.max_usd, "seconds_used": 0.0,
        "created_at": now, "due_at": 0.0,
    }  # fmt: skip
    try:
        with connection.begin_nested():
            connection.execute(insert(jobs).values(**row))
    except IntegrityError:
        return _made_before(connection, new, asked), False
    event.append(connection, job, None, now, "created", recipe=new.kind, dataset=new.dataset)
    return job, True


def is_made(connection: Connection, owner: str, key: str) -> bool:
    """Whether the owner has made a job with this Idempotency-Key."""
    same = (jobs.c.owner == owner, jobs.c.idempotency_key == key)
    return connection.execute(select(jobs.c.id).where(*same)).first() is not None


def _made_before(connection: Connection, new: NewJob, asked: str) -> str:
    same = (jobs.c.owner == new.owner, jobs.c.idempotency_key == new.idempotency_key)
    row = connection.execute(select(jobs.c.id, jobs.c.request_sha256).where(*same)).one()
    if row.request_sha256 != asked:
        raise ConflictError(f"Idempotency-Key {new.idempotency_key!r} was used for another request")
    return str(row.id)


def get(connection: Connection, owner: str, job: str) -> RowMapping:
    """The row. Raises NotFoundError when the job is not the owner's."""
    return database.one(connection, select(jobs).where(jobs.c.id == job, jobs.c.owner == owner), "job", job)


def listed(connection: Connection, owner: str, before: str, limit: int, state: str = "") -> list[RowMapping]:
    """The owner's jobs, the newest first, older than the job `before` where one is given.

    Without recipes and results, which have up to 64 and 32 KiB each.
    """
    found = select(*_LISTED).where(jobs.c.owner == owner).order_by(jobs.c.id.desc()).limit(limit)
    if before:
        found = found.where(jobs.c.id < before)
    if state:
        found = found.where(jobs.c.state == state)
    return list(connection.execute(found).mappings())


def attempts_of(connection: Connection, job: str) -> list[RowMapping]:
    """The job's attempts, the oldest first."""
    found = select(attempts).where(attempts.c.job == job).order_by(attempts.c.n)
    return list(connection.execute(found).mappings())


def cancel(connection: Connection, owner: str, job: str, now: float) -> None:
    """Ask for the job's end. A job that is final or asked already stays as it is. Raises NotFoundError."""
    row = get(connection, owner, job)
    if JobState(row["state"]) in FINAL or row["cancel_asked_at"] is not None:
        return
    event.append(connection, job, row["attempt"] or None, now, "cancel_asked")
    database.poke(connection, jobs, job, cancel_asked_at=now)


def read(connection: Connection, job: str) -> tuple[Job, Attempt | None]:
    """The job and its newest attempt, as step() wants both."""
    row = connection.execute(_JOB, {"asked": job}).mappings().one()
    attempt = connection.execute(_ATTEMPT, {"asked": job, "nth": row["attempt"]}).mappings().first()
    return _job(connection, row), None if attempt is None else Attempt.of(attempt)


def _job(connection: Connection, row: RowMapping) -> Job:
    failed_step = None
    if row["failures"]:
        failed = select(attempts.c.step).where(
            attempts.c.job == row["id"], attempts.c.n < row["attempt"], attempts.c.cause == Cause.RECIPE
        )
        failed_step = connection.execute(failed.order_by(attempts.c.n.desc()).limit(1)).scalar()
    return Job.of(
        row,
        dataset_state=row["dataset_state"] or "deleted",
        dataset_reason=row["dataset_reason"] or _unfit(row),
        finished=(row["result"] or {}).get("attempt") == row["attempt"],
        wanted=wanted(row["recipe"].get("machine") or {}),
        failed_step=-1 if failed_step is None else failed_step,
    )


def _unfit(row: RowMapping) -> str:
    """Why the job's recipe cannot take the dataset; a job may be made before the dataset is checked."""
    return recipes.unfit(row["recipe"], row["labels"] or ()) if row["state"] == JobState.VALIDATING else ""


def wanted(machine: Mapping[str, Any]) -> Wanted:
    """The machine that a recipe asks for; a recipe from before the fields asks for any."""
    known = {name: machine[name] for name in ("count", "memory_gb", "max_usd_per_hour") if name in machine}
    return Wanted(gpus=tuple(machine.get("gpus", ())), **known)


def move(connection: Connection, lease: Lease, now: float, action: Move) -> None:
    """Change the state alone."""
    database.write(connection, lease, now, {"state": action.state, "reason": action.reason})
    event.append(connection, lease.id, None, now, action.state, **({"reason": action.reason} if action.reason else {}))


def request(connection: Connection, lease: Lease, now: float, job: Job, name: str) -> None:
    """Write down the next attempt, before its machine is made."""
    n = job.attempt + 1
    database.write(connection, lease, now, {"state": JobState.LAUNCHING, "attempt": n})
    row = {
        "job": job.id, "n": n, "name": name, "state": AttemptState.REQUESTED, "requested_at": now, "starts": 0,
        "step": 0, "deadline": now + terms.longest(job), "launcher": job.launcher,
    }  # fmt: skip
    connection.execute(insert(attempts).values(**row))
    event.append(connection, job.id, n, now, JobState.LAUNCHING, machine=name)


def ask(
    connection: Connection, lease: Lease, now: float, job: Job, attempt: Attempt, offer: Offer, agreed: Terms
) -> str:
    """Write down the offer that is about to be taken, and the terms: the deadline, and the reserved cost.

    The attempt's token, valid until the attempt is gone.
    """
    database.write(connection, lease, now, {"state": JobState.LAUNCHING})
    doubted = terms.doubted(attempt, now)
    price = {"offer": offer.kind, "usd_per_hour": offer.usd_per_hour, "usd_reserved": agreed.usd + doubted}
    known = {"asked_at": now, "unanswered_at": attempt.billed_since, "usd_doubted": doubted}
    _attempt(connection, attempt, {**known, "deadline": now + agreed.seconds, **price})
    ends = now + agreed.seconds + HOLD_SECONDS
    return token.issue(connection, token.JOB, job.owner, now, ends, job=job.id, attempt=attempt.n)


def refused(connection: Connection, lease: Lease, now: float, attempt: Attempt, offer: Offer, why: str) -> None:
    """Write down that no machine was made of the offer."""
    database.write(connection, lease, now, {})
    _attempt(connection, attempt, {"asked_at": None, "why": why})
    event.append(connection, attempt.job, attempt.n, now, "launch_failed", offer=offer.kind, reason=why)


def answer_lost(connection: Connection, lease: Lease, now: float, attempt: Attempt, why: str) -> None:
    """Write down that a machine may have been made; `asked_at` stays."""
    database.write(connection, lease, now, {})
    event.append(connection, attempt.job, attempt.n, now, "answer_lost", reason=why)


def made(connection: Connection, lease: Lease, now: float, attempt: Attempt, machine: Made) -> None:
    """Write down the machine that the platform has confirmed."""
    database.write(connection, lease, now, {"state": JobState.STARTING})
    known = {"state": AttemptState.PROVISIONING, "created_at": now, "handle": machine.id, "unanswered_at": None}
    _attempt(connection, attempt, known)
    event.append(connection, attempt.job, attempt.n, now, JobState.STARTING, id=machine.id)


def machines(connection: Connection) -> int:
    """The number of attempts that have a machine or wait for one."""
    live = select(func.count()).select_from(attempts).where(attempts.c.state.in_(_LIVE))
    return connection.execute(live).scalar_one()


def poke_queued(connection: Connection) -> None:
    """Make the next queued job due now: there is room for a machine. Owners take turns.

    The next job is of the owner with the fewest machines, of these the owner who has waited longest since the last
    machine, and of the owner's jobs the one that was made first.
    """
    waiting = (jobs.c.state == JobState.QUEUED, jobs.c.lease_token.is_(None))
    machines = func.count(case((attempts.c.state.in_(_LIVE), 1))).label("machines")
    served = (
        select(jobs.c.owner, machines, func.max(attempts.c.requested_at).label("last_at"))
        .join(attempts, attempts.c.job == jobs.c.id)
        .where(jobs.c.owner.in_(select(jobs.c.owner).where(*waiting)))
        .group_by(jobs.c.owner)
        .subquery()
    )
    order = (func.coalesce(served.c.machines, 0), func.coalesce(served.c.last_at, 0.0), jobs.c.id)
    found = select(jobs.c.id).outerjoin(served, served.c.owner == jobs.c.owner).where(*waiting).order_by(*order)
    first = connection.execute(found.limit(1)).scalar()
    if first is not None:
        database.poke(connection, jobs, first)


def mark(connection: Connection, lease: Lease, now: float, attempt: Attempt, action: Mark, machine: str) -> None:
    """Write down how far the attempt and the job are, and the platform's id of the machine."""
    database.write(connection, lease, now, {"state": action.job})
    known: dict[str, Any] = {"state": action.attempt, "handle": attempt.handle or machine}
    if attempt.created_at is None:
        known["created_at"] = now if attempt.billed_since is None else attempt.billed_since
    _attempt(connection, attempt, known)
    event.append(connection, attempt.job, attempt.n, now, action.job)


def stop(
    connection: Connection, lease: Lease, now: float, attempt: Attempt, action: Stop, why: str = "", machine: str = ""
) -> None:
    """Record the order to end the attempt, with the cause; the first recorded cause stays."""
    database.write(connection, lease, now, {})
    if attempt.stop_at is None:
        known = {"why": why} if why else {}
        cause = attempt.cause or action.cause
        _attempt(connection, attempt, {"stop_at": now, "cause": cause, "handle": attempt.handle or machine, **known})
        event.append(connection, attempt.job, attempt.n, now, "stopping", cause=action.cause)


def bury(connection: Connection, lease: Lease, now: float, job: Job, attempt: Attempt, action: Bury) -> None:
    """Write down that the attempt's machine is gone, and end the attempt's tokens."""
    used = max(0.0, now - attempt.created_at) if attempt.created_at is not None else 0.0
    budget.charge(connection, job.owner, job.id, attempt.n, terms.cost(attempt.usd_per_hour, used), now)
    database.write(connection, lease, now, {"seconds_used": job.seconds_used + used})
    ended = {"state": AttemptState.GONE, "gone_at": now, "cause": action.cause, "exit_code": action.exit_code}
    _attempt(connection, attempt, ended)
    token.revoke(connection, now, job=attempt.job, attempt=attempt.n)
    event.append(connection, attempt.job, attempt.n, now, "gone", cause=action.cause, exit_code=action.exit_code)


def retry(connection: Connection, lease: Lease, now: float, job: Job, action: Retry) -> None:
    """Queue the job again; the caller releases the lease with the due time."""
    counted: dict[str, Any] = {action.counted: getattr(job, action.counted) + 1}
    database.write(connection, lease, now, {"state": JobState.QUEUED, **counted})
    event.append(connection, job.id, job.attempt, now, "retry", seconds=action.seconds, counted=action.counted)


def finish(connection: Connection, lease: Lease, now: float, action: Finish) -> None:
    """Move the job to a final state."""
    progress = {"progress": 1.0} if action.state is JobState.SUCCEEDED else {}
    final = {"state": action.state, "reason": action.reason, "ended_at": now, **progress}
    database.write(connection, lease, now, final)
    event.append(connection, lease.id, None, now, action.state, **({"reason": action.reason} if action.reason else {}))


def given_up(connection: Connection, lease: Lease, now: float, why: str) -> None:
    """Fail a job whose steps end by an error each time, and count its machine as gone: the reaper ends the machine."""
    event.lock(connection, lease.id)
    job = connection.execute(select(jobs.c.owner).where(jobs.c.id == lease.id)).one()
    live = select(attempts).where(attempts.c.job == lease.id, attempts.c.state != AttemptState.GONE)
    for row in connection.execute(live).mappings().all():
        used = 0.0 if row["created_at"] is None else max(0.0, now - row["created_at"])
        budget.charge(connection, job.owner, lease.id, row["n"], terms.cost(row["usd_per_hour"], used), now)
        same = (attempts.c.job == lease.id, attempts.c.n == row["n"])
        gone = {"state": AttemptState.GONE, "gone_at": now, "cause": row["cause"] or Cause.GIVEN_UP}
        connection.execute(update(attempts).where(*same).values(**gone))
    token.revoke(connection, now, job=lease.id)
    event.append(connection, lease.id, None, now, GIVEN_UP)
    event.append(connection, lease.id, None, now, JobState.FAILED, reason=why)
    database.release(connection, lease, None, state=JobState.FAILED, reason=why, ended_at=now)


def _attempt(connection: Connection, attempt: Attempt, values: dict[str, Any]) -> None:
    same = (attempts.c.job == attempt.job, attempts.c.n == attempt.n)
    connection.execute(update(attempts).where(*same).values(**values))
