"""Advances jobs step by step: claim the job, observe the machine, call step(), act.

Owns the order of effects: an attempt is written down before its machine is made, and every write carries the lease. A
worker may end between any two lines; the next worker reads the rows, looks at the machine, and goes on.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Concatenate, Final, ParamSpec

from sqlalchemy import Connection, Row

from runtime.logs import fields
from runtime.remote.http import LONGEST_WAIT_SECONDS
from training.plane import budget, database, jobs, terms
from training.plane.claims import Bound, Claims
from training.plane.clock import Clock
from training.plane.database import Database, Lease
from training.plane.job import Attempt, AttemptState, Cause, Job
from training.plane.launcher import (
    AnswerLostError,
    LauncherAwayError,
    LaunchError,
    LaunchImpossibleError,
    Offer,
    OfferRefusedError,
    PodSpec,
    Presence,
    Seen,
)
from training.plane.machines import Machines
from training.plane.schema import jobs as table
from training.plane.step import (
    POLL_SECONDS,
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
from training.plane.terms import Terms

log = logging.getLogger(__name__)

P = ParamSpec("P")
MOST_TRIES: Final = 30
"""Tries to advance a job that may end by an error: about six hours, since a job that trains loses its machine."""
_MOST_STEPS = 20
_CREATE_AGAIN_SECONDS = 2.0
_AWAY_SECONDS = 5.0
_MOST_OFFERS = 20
_MACHINES: Final = "machines of the plane"
# The end of a machine wakes a queued job before this.
_FULL_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Plane:
    """This plane as machines see the plane. `public_url` is called by pods."""

    public_url: str
    max_machines: int = 64
    budget_usd: float = 0.0
    """What an owner without a budget of their own may spend in a month."""


class OverBudgetError(OfferRefusedError):
    """The owner's budget does not cover the worst case of the offer."""


class SpentError(OfferRefusedError):
    """What is left of the job's max_usd pays for no machine of the offer."""


# The cause of an attempt that got no machine, by the last refusal of an offer.
_CAUSES: Final = {OverBudgetError: Cause.BUDGET, SpentError: Cause.SPENT, LaunchImpossibleError: Cause.IMPOSSIBLE}


class Reconciler:
    """Advances jobs in one worker. Several reconcilers may work on one database."""

    def __init__(self, store: Database, machines: Machines, plane: Plane, worker: str, clock: Clock) -> None:
        self._store = store
        self._machines = machines
        self._plane = plane
        self._clock = clock
        self._claims = Claims(store, table, worker, clock, bound=Bound(MOST_TRIES, self._give_up))

    def turn(self) -> bool:
        """Bring one job that is due as far as it goes now. Whether there was one."""
        return self._claims.turn(lambda _, lease: self._advance(lease))

    def _advance(self, lease: Lease) -> None:
        seconds: float | None = 0.0
        for _ in range(_MOST_STEPS):
            with self._store.read() as connection:
                job, attempt = jobs.read(connection, lease.id)
            try:
                seen = self._look(attempt)
                action = step(job, attempt, seen, self._clock.now(), self._clock.steady_since)
                if isinstance(action, Wait):
                    seconds = action.seconds
                    break
                pause = self._do(lease, job, attempt, seen, action)
            except LauncherAwayError as error:
                log.warning("platform away", extra=fields(job=lease.id, reason=str(error)))
                seconds = min(error.retry_after or _AWAY_SECONDS, LONGEST_WAIT_SECONDS)
                break
            if pause is not None:
                seconds = pause
                break
        with self._store.begin() as connection:
            due = None if seconds is None else database.later(self._clock.now(), seconds)
            database.release(connection, lease, due)

    def _give_up(self, row: Row[Any], lease: Lease, why: str) -> None:
        with self._store.begin() as connection:
            jobs.given_up(connection, lease, self._clock.now(), why)

    def _look(self, attempt: Attempt | None) -> Seen:
        if attempt is None or attempt.state is AttemptState.GONE:
            return Seen(Presence.ABSENT)
        return self._machines.launcher(attempt.launcher).look(attempt.machine)

    def _do(self, lease: Lease, job: Job, attempt: Attempt | None, seen: Seen, action: Action) -> float | None:
        """Carry the action out. Seconds to wait before the next step, None to go on at once."""
        if isinstance(action, Request):
            return self._request(lease, job)
        if isinstance(action, Move):
            self._write(jobs.move, lease, action)
            return None
        if isinstance(action, Finish):
            self._write(jobs.finish, lease, action)
            return None
        if isinstance(action, Retry):
            self._write(jobs.retry, lease, job, action)
            return action.seconds
        if attempt is None:
            raise RuntimeError(f"{type(action).__name__} without an attempt")
        return self._with_attempt(lease, job, attempt, seen, action)

    def _request(self, lease: Lease, job: Job) -> float | None:
        """Write the next attempt down, where there is room for a machine."""
        most = self._plane.max_machines
        with self._store.read() as connection:
            if jobs.machines(connection) >= most:  # found without the lock, mostly
                return _FULL_SECONDS
        with self._store.begin() as connection:
            database.take_turns(connection, _MACHINES)
            if jobs.machines(connection) >= most:
                return _FULL_SECONDS
            jobs.request(connection, lease, self._clock.now(), job, self._machines.name(job.id, job.attempt + 1))
        return None

    def _with_attempt(self, lease: Lease, job: Job, attempt: Attempt, seen: Seen, action: Action) -> float | None:
        launcher = self._machines.launcher(attempt.launcher)
        if isinstance(action, Create):
            return self._create(lease, job, attempt)
        if isinstance(action, Mark):
            self._write(jobs.mark, lease, attempt, action, seen.id)
        elif isinstance(action, Bury):
            if seen.presence is Presence.EXITED:
                # A machine that has exited may be billed for its disk.
                launcher.stop(attempt.machine, now=True)
            self._write(jobs.bury, lease, job, attempt, action)
            with self._store.begin() as connection:
                jobs.poke_queued(connection)
        elif isinstance(action, Stop):
            self._write(jobs.stop, lease, attempt, action, machine=seen.id)
            launcher.stop(attempt.machine, now=action.kill)
            return STOP_POLL_SECONDS
        return None

    def _create(self, lease: Lease, job: Job, attempt: Attempt) -> float | None:
        """Take the offers in turn, each written down before the platform is asked, until one is a machine."""
        cause, why = Cause.CAPACITY, f"no offer fits the machine of the recipe ({job.wanted})"
        for offer in self._machines.launcher(attempt.launcher).offers(job.wanted)[:_MOST_OFFERS]:
            try:
                self._launch(lease, job, attempt, offer)
            except AnswerLostError as error:
                self._write(jobs.answer_lost, lease, attempt, str(error))
                return POLL_SECONDS
            except LaunchError as error:
                cause, why = _CAUSES.get(type(error), Cause.CAPACITY), str(error)
                self._write(jobs.refused, lease, attempt, offer, why)
                if isinstance(error, LaunchImpossibleError):
                    break
                if not isinstance(error, OfferRefusedError):
                    return error.retry_after or _CREATE_AGAIN_SECONDS
            else:
                return None
        self._write(jobs.stop, lease, attempt, Stop(cause), why)
        return None

    def _launch(self, lease: Lease, job: Job, attempt: Attempt, offer: Offer) -> None:
        """Reserve the worst case and write the offer down, then ask the platform. Raises LaunchError."""
        with self._store.begin() as connection:
            now = self._clock.now()
            doubted = terms.doubted(attempt, now)
            spent = budget.spent(connection, job.id) + doubted
            agreed = terms.of(job, offer, spent)
            if agreed is None:
                raise SpentError(f"{spent:.4f} of {job.max_usd} USD are spent")
            default = self._plane.budget_usd
            worst = agreed.usd + doubted
            if not budget.reserve(connection, job.owner, job.id, attempt.n, worst, now, default):
                raise OverBudgetError(f"the budget does not cover {worst:.2f} USD, the worst case on {offer.kind}")
            token = jobs.ask(connection, lease, now, job, attempt, offer, agreed)
        pod = self._pod(job, attempt, token, agreed)
        try:
            machine = self._machines.launcher(attempt.launcher).launch(attempt.name, offer, pod)
        except LaunchError as error:
            # A refusal may repeat the request, and is kept and shown.
            error.args = (str(error).replace(token, "(token)"),)
            raise
        self._write(jobs.made, lease, attempt, machine)

    def _pod(self, job: Job, attempt: Attempt, token: str, agreed: Terms) -> PodSpec:
        return PodSpec(
            {
                "PLANE_URL": self._plane.public_url,
                "JOB_ID": attempt.job,
                "ATTEMPT": str(attempt.n),
                "JOB_TOKEN": token,
                "DEADLINE_SECONDS": str(int(agreed.run_seconds)),
            },
            agreed.seconds,
            agreed.run_seconds,
            job.wanted,
        )

    def _write(
        self,
        verb: Callable[Concatenate[Connection, Lease, float, P], None],
        lease: Lease,
        *given: P.args,
        **named: P.kwargs,
    ) -> None:
        """Write in a transaction. The lease is renewed from the time after the wait for the store."""
        with self._store.begin() as connection:
            verb(connection, lease, self._clock.now(), *given, **named)
