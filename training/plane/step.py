"""The next action for a job: a pure function of the job, its newest attempt, a look at the machine, and the time.

Owns every deadline and every rule of retrying. Reading, looking and doing are the reconciler's. A job reaches a final
state only when its machine is gone.
"""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from training.plane.job import FINAL, LOSSES, WAITS, Attempt, AttemptState, Cause, Job, JobState
from training.plane.launcher import Presence, Seen

START_SECONDS: Final = 900.0
CREATE_SECONDS: Final = 120.0
LOST_SECONDS: Final = 600.0
CANCEL_GRACE_SECONDS: Final = 30.0
END_GRACE_SECONDS: Final = 60.0
KILL_AFTER_SECONDS: Final = 30.0
# A clock that jumps for a moment ends no job.
CLOCK_GRACE_SECONDS: Final = 60.0
MOST_LOSSES: Final = 10
BACKOFF_SECONDS: Final = (0.0, 60.0, 120.0, 300.0, 600.0)
WAIT_SECONDS: Final = (60.0, 120.0, 300.0, 600.0)
GIVE_UP_SECONDS: Final = 86_400.0
# A price is a float of the platform's.
PRICE_TOLERANCE: Final = 1.001
POLL_SECONDS: Final = 2.0
STOP_POLL_SECONDS: Final = 0.25

# Exit codes of pod/run.sh. Codes from 100 to 199 are 100 + curl's code of the download that failed.
DATA_REFUSED_CODE: Final = 65
CANCELLED_CODE: Final = 76
DEADLINE_CODE: Final = 77
# curl's 22 is an answer of 400 and above: asking again does not help.
HTTP_REFUSED_CODE: Final = 122


@dataclass(frozen=True, slots=True)
class Wait:
    """Look again after so many seconds; None for never, since the job is final."""

    seconds: float | None


@dataclass(frozen=True, slots=True)
class Move:
    """Change the job's state alone."""

    state: JobState
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """Write down a new attempt, before any machine is made."""


@dataclass(frozen=True, slots=True)
class Create:
    """Make the machine of the attempt that is written down."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Write down how far the attempt is, and the job with the attempt."""

    attempt: AttemptState
    job: JobState


@dataclass(frozen=True, slots=True)
class Stop:
    """End the machine, by force when `kill`. The attempt keeps the first cause that is written down."""

    cause: Cause
    kill: bool = False


@dataclass(frozen=True, slots=True)
class Bury:
    """The machine is gone: write down the attempt's end."""

    cause: Cause
    exit_code: int | None


@dataclass(frozen=True, slots=True)
class Retry:
    """Queue the job again, due after so many seconds. Losses and waits count apart from failures of the recipe."""

    seconds: float
    counted: Literal["failures", "losses", "waits"]


@dataclass(frozen=True, slots=True)
class Finish:
    """Move the job to a final state."""

    state: JobState
    reason: str


Action: TypeAlias = Wait | Move | Request | Create | Mark | Stop | Bury | Retry | Finish


def step(job: Job, attempt: Attempt | None, seen: Seen, now: float, steady_since: float = 0.0) -> Action:
    """The next action. `seen` is the look at the attempt's machine, absent without an attempt.

    `steady_since` is when the clock last jumped: silence is counted from there, since a heartbeat from before the jump
    has a time of another clock. Deadlines hold again CLOCK_GRACE_SECONDS later.
    """
    if job.state in FINAL:
        return Wait(None)
    if attempt is None or attempt.state is AttemptState.GONE:
        return _without_machine(job, attempt, now)
    if seen.presence in {Presence.ABSENT, Presence.EXITED}:
        return _machine_away(job, attempt, seen, now)
    return _with_machine(job, attempt, seen, now, steady_since)


def _without_machine(job: Job, attempt: Attempt | None, now: float) -> Action:
    if job.state not in {JobState.VALIDATING, JobState.QUEUED}:
        return _settled(job, attempt, now)
    if job.cancel_asked_at is not None:
        return Finish(JobState.CANCELLED, "cancelled before the start")
    return _validated(job) if job.state is JobState.VALIDATING else Request()


def _validated(job: Job) -> Action:
    if job.dataset_state == "ready":
        return Finish(JobState.REFUSED, job.dataset_reason) if job.dataset_reason else Move(JobState.QUEUED)
    if job.dataset_state in {"refused", "deleted"}:
        return Finish(JobState.REFUSED, f"the dataset is {job.dataset_state}: {job.dataset_reason}".rstrip(": "))
    return Wait(POLL_SECONDS)


def _machine_away(job: Job, attempt: Attempt, seen: Seen, now: float) -> Action:
    """No machine, or one that has ended, of an attempt that is not gone."""
    if seen.presence is Presence.ABSENT and _may_appear(attempt, seen, now):
        return Wait(POLL_SECONDS)
    never = attempt.state is AttemptState.REQUESTED and attempt.running_at is None and attempt.ended_at is None
    if never and seen.presence is Presence.ABSENT:
        if attempt.stop_at is not None:
            return Bury(attempt.cause, None)
        if job.cancel_asked_at is not None:
            return Stop(Cause.CANCELLED)
        if now > attempt.requested_at + CREATE_SECONDS + 2 * seen.hidden_seconds:
            return Stop(Cause.CAPACITY)
        return Create()
    exit_code = attempt.exit_code if attempt.exit_code is not None else seen.exit_code
    return Bury(attempt.cause or _cause(attempt, exit_code), exit_code)


def _may_appear(attempt: Attempt, seen: Seen, now: float) -> bool:
    """Whether the attempt's machine may exist although the platform does not show the machine yet.

    A machine that has reported its end does not. A machine whose id is known was looked for by the id: once it has
    reported or the plane has ended it, an absent machine is gone. A machine without a known id may be missing from the
    platform's list, and is there as long as it reports.
    """
    if attempt.asked_at is None or not now < max(attempt.asked_at, attempt.heartbeat_at or 0.0) + seen.hidden_seconds:
        return False
    known = bool(attempt.handle) and (attempt.running_at is not None or attempt.stop_at is not None)
    return attempt.ended_at is None and not known


def _cause(attempt: Attempt, exit_code: int | None) -> Cause:
    if attempt.starts > 1:
        return Cause.CRASH_LOOP
    if attempt.ended_at is None and exit_code in {None, 0}:
        return Cause.LOST
    if exit_code == 0:
        return Cause.NONE
    if exit_code == DATA_REFUSED_CODE:
        return Cause.DATA_REFUSED
    if exit_code == DEADLINE_CODE:
        return Cause.DEADLINE
    if exit_code == CANCELLED_CODE:
        return Cause.CANCELLED
    if exit_code is not None and 100 < exit_code < 128 and exit_code != HTTP_REFUSED_CODE:
        return Cause.DOWNLOAD
    return Cause.RECIPE


def _with_machine(job: Job, attempt: Attempt, seen: Seen, now: float, steady_since: float) -> Action:
    is_steady = now > steady_since + CLOCK_GRACE_SECONDS
    spent = is_steady and _is_spent(attempt, seen, now)
    if attempt.stop_at is not None:
        kill = spent or now > attempt.stop_at + KILL_AFTER_SECONDS or now < attempt.stop_at
        return Stop(attempt.cause, kill=True) if kill else Wait(STOP_POLL_SECONDS)
    if cause := _why_stop(job, attempt, seen, now, steady_since, late=spent or (is_steady and now > attempt.deadline)):
        return Stop(cause, kill=spent)
    wanted = _mark(job, attempt, seen)
    if wanted != Mark(attempt.state, job.state):
        return wanted
    return Wait(POLL_SECONDS if attempt.ended_at is None else STOP_POLL_SECONDS)


def _is_spent(attempt: Attempt, seen: Seen, now: float) -> bool:
    """Whether the machine may have cost the whole reservation, by the platform's own price."""
    until = attempt.paid_until(max(attempt.usd_per_hour, seen.usd_per_hour or 0.0))
    return until is not None and now > until


def _mark(job: Job, attempt: Attempt, seen: Seen) -> Mark:
    """The states that fit a machine that is there."""
    if job.cancel_asked_at is not None:
        return Mark(attempt.state, JobState.CANCELLING)
    if attempt.ended_at is not None:
        return Mark(AttemptState.ENDED, JobState.FINISHING)
    if attempt.running_at is not None:
        return Mark(AttemptState.RUNNING, JobState.RUNNING)
    return Mark(AttemptState.PROVISIONING, JobState.STARTING)


def _why_stop(job: Job, attempt: Attempt, seen: Seen, now: float, steady_since: float, *, late: bool) -> Cause:
    """Why the machine is to end. No grace holds for a machine that is `late`: each further second is not reserved."""
    if seen.usd_per_hour is not None and seen.usd_per_hour > attempt.usd_per_hour * PRICE_TOLERANCE:
        return Cause.PRICE
    if attempt.starts > 1:
        return Cause.CRASH_LOOP
    if attempt.ended_at is not None:
        lingers = late or now > attempt.ended_at + END_GRACE_SECONDS
        return _cause(attempt, attempt.exit_code) or Cause.LINGERED if lingers else Cause.NONE
    if job.cancel_asked_at is not None:
        waited = late or now > job.cancel_asked_at + CANCEL_GRACE_SECONDS
        return Cause.CANCELLED if attempt.running_at is None or waited else Cause.NONE
    if late:
        return Cause.DEADLINE
    begun = attempt.created_at if attempt.created_at is not None else attempt.requested_at
    if attempt.running_at is None:
        return Cause.NO_START if now > max(begun, steady_since) + START_SECONDS else Cause.NONE
    heard = max(attempt.heartbeat_at or attempt.running_at, steady_since)
    return Cause.SILENT if now > heard + LOST_SECONDS else Cause.NONE


def _settled(job: Job, attempt: Attempt | None, now: float) -> Action:
    """The next action for a job after the end of its attempt."""
    if attempt is None:
        return Move(JobState.QUEUED)
    if job.finished and not attempt.exit_code:
        return Finish(JobState.SUCCEEDED, "")
    if job.cancel_asked_at is not None or attempt.cause is Cause.CANCELLED:
        return Finish(JobState.CANCELLED, "cancelled")
    if attempt.cause is Cause.DEADLINE or job.seconds_used >= job.max_seconds:
        money = "" if job.max_usd is None else f", max_usd {job.max_usd:g}"
        return Finish(JobState.FAILED, f"stopped at the deadline (max_seconds {job.max_seconds:g}{money})")
    if attempt.cause is Cause.DATA_REFUSED:
        return Finish(JobState.FAILED, "the recipe refused the dataset; the log has the reason")
    if attempt.cause is Cause.IMPOSSIBLE:
        return Finish(JobState.FAILED, f"the platform refuses to make a machine: {attempt.why}")
    if attempt.cause is Cause.SPENT:
        return Finish(JobState.FAILED, f"what is left of max_usd pays for no machine: {attempt.why}")
    if attempt.cause in WAITS:
        return _after_wait(job, attempt, now)
    if attempt.cause in LOSSES:
        return _after_loss(job, attempt)
    return _after_failure(job, attempt)


def _after_wait(job: Job, attempt: Attempt, now: float) -> Action:
    if now > job.created_at + GIVE_UP_SECONDS:
        return Finish(JobState.FAILED, f"no machine within a day: {attempt.why or attempt.cause}")
    return Retry(WAIT_SECONDS[min(job.waits, len(WAIT_SECONDS) - 1)], "waits")


def _after_loss(job: Job, attempt: Attempt) -> Action:
    if job.losses >= MOST_LOSSES:
        return Finish(JobState.FAILED, f"lost {job.losses + 1} machines, the last one: {attempt.cause}")
    return Retry(BACKOFF_SECONDS[min(job.losses, len(BACKOFF_SECONDS) - 1)], "losses")


def _after_failure(job: Job, attempt: Attempt) -> Action:
    why = f"exit code {attempt.exit_code}" if attempt.exit_code else "ended without a result"
    if job.failures + 1 >= job.max_attempts:
        return Finish(JobState.FAILED, f"the recipe failed: {why}")
    if job.failures and job.failed_step == attempt.step:
        return Finish(JobState.FAILED, f"the recipe failed twice at step {attempt.step}: {why}")
    return Retry(0.0, "failures")
