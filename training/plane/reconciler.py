"""Advances jobs step by step: claim the job, observe the machine, call step(), act.

Owns the order of effects: an attempt is written down before its machine is made, and every write carries the lease. A
worker may end between any two lines; the next worker reads the rows, looks at the machine, and goes on.
"""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection

from training.plane import database, event, jobs
from training.plane.claims import Claims
from training.plane.clock import Clock
from training.plane.database import Database, Lease
from training.plane.job import Attempt, AttemptState, Job
from training.plane.launcher import Launcher, LaunchError, PodSpec, Presence, Seen
from training.plane.schema import jobs as table
from training.plane.step import (
    STOP_POLL_SECONDS,
    Action,
    Bury,
    Create,
    Finish,
    Mark,
    Move,
    Request,
    Retry,
    Stop,
    Wait,
    step,
)

_MOST_STEPS = 20
_CREATE_AGAIN_SECONDS = 2.0
# The end of a machine wakes a queued job before this.
_FULL_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Plane:
    """This plane as machines see the plane. `public_url` is called by pods, `name` marks this plane's machines."""

    name: str
    public_url: str
    max_machines: int = 64


class Reconciler:
    """Advances jobs in one worker. Several reconcilers may work on one database."""

    def __init__(self, store: Database, launcher: Launcher, plane: Plane, worker: str, clock: Clock) -> None:
        self._store = store
        self._launcher = launcher
        self._plane = plane
        self._clock = clock
        self._claims = Claims(store, table, worker, clock)

    def turn(self) -> bool:
        """Bring one job that is due as far as it goes now. Whether there was one."""
        claimed = self._claims.take()
        if claimed is None:
            return False
        _, lease = claimed
        with self._claims.held(lease):
            self._advance(lease)
        return True

    def _advance(self, lease: Lease) -> None:
        seconds: float | None = 0.0
        for _ in range(_MOST_STEPS):
            with self._store.read() as connection:
                job, attempt = jobs.read(connection, lease.id)
            action = step(job, attempt, self._look(attempt), self._clock.now(), self._clock.steady_since)
            if isinstance(action, Wait):
                seconds = action.seconds
                break
            pause = self._do(lease, job, attempt, action)
            if pause is not None:
                seconds = pause
                break
        with self._store.begin() as connection:
            database.release(connection, lease, None if seconds is None else self._clock.now() + seconds)

    def _look(self, attempt: Attempt | None) -> Seen:
        if attempt is None or attempt.state is AttemptState.GONE:
            return Seen(Presence.ABSENT)
        return self._launcher.look(attempt.name)

    def _do(self, lease: Lease, job: Job, attempt: Attempt | None, action: Action) -> float | None:
        """Carry the action out. Seconds to wait before the next step, None to go on at once."""
        now = self._clock.now()
        if isinstance(action, Request):
            with self._store.read() as connection:
                if jobs.machines(connection) >= self._plane.max_machines:
                    return _FULL_SECONDS
            offer = self._launcher.offers()[0]
            name = f"{self._plane.name}-{job.id.lower()}-{job.attempt + 1}"
            self._write(lambda c: jobs.request(c, lease, now, job, name, offer.usd_per_hour))
            return None
        if isinstance(action, Move):
            self._write(lambda c: jobs.move(c, lease, now, action))
            return None
        if isinstance(action, Finish):
            self._write(lambda c: jobs.finish(c, lease, now, action))
            return None
        if isinstance(action, Retry):
            self._write(lambda c: jobs.retry(c, lease, now, job, action))
            return action.seconds
        if attempt is None:
            raise RuntimeError(f"{type(action).__name__} without an attempt")
        return self._with_attempt(lease, job, attempt, action)

    def _with_attempt(self, lease: Lease, job: Job, attempt: Attempt, action: Action) -> float | None:
        now = self._clock.now()
        if isinstance(action, Create):
            return self._create(lease, job, attempt)
        if isinstance(action, Mark):
            self._write(lambda c: jobs.mark(c, lease, now, attempt, action))
        elif isinstance(action, Bury):
            self._write(lambda c: jobs.bury(c, lease, now, job, attempt, action))
            self._write(jobs.poke_queued)
        elif isinstance(action, Stop):
            self._write(lambda c: jobs.stop(c, lease, now, attempt, action))
            self._launcher.stop(attempt.name, now=action.kill)
            return STOP_POLL_SECONDS
        return None

    def _create(self, lease: Lease, job: Job, attempt: Attempt) -> float | None:
        now = self._clock.now()
        with self._store.begin() as connection:
            token = jobs.job_token(connection, lease, now, job, attempt)
        try:
            self._launcher.launch(attempt.name, self._launcher.offers()[0], self._pod(attempt, token, now))
        except LaunchError as error:
            why = str(error)
            self._write(lambda c: event.append(c, job.id, attempt.n, now, "launch_failed", reason=why))
            return _CREATE_AGAIN_SECONDS
        return None

    def _pod(self, attempt: Attempt, token: str, now: float) -> PodSpec:
        return PodSpec(
            {
                "PLANE_URL": self._plane.public_url,
                "JOB_ID": attempt.job,
                "ATTEMPT": str(attempt.n),
                "JOB_TOKEN": token,
                "DEADLINE_SECONDS": str(max(1, int(attempt.deadline - now))),
            }
        )

    def _write(self, verb: Callable[[Connection], None]) -> None:
        with self._store.begin() as connection:
            verb(connection)
