"""The terms of an attempt: the longest life and the largest cost of its machine.

Owns the arithmetic of caps, as pure functions.
"""

from dataclasses import dataclass
from typing import Final

from training.plane.job import Attempt, Job
from training.plane.launcher import Offer
from training.plane.step import START_SECONDS

# A shorter life is too short for any training.
FEWEST_SECONDS: Final = 60.0
# The reaper looks for machines without a live attempt every so many seconds.
REAP_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Terms:
    """`seconds` from the request for the machine to its end, `run_seconds` of these after the start at most.

    `usd` is the cost of all `seconds`, the worst case.
    """

    seconds: float
    run_seconds: float
    usd: float


def longest(job: Job) -> float:
    """Seconds that a machine of the job may live by `max_seconds`. The platform bills the start as well."""
    return START_SECONDS + max(0.0, job.max_seconds - job.seconds_used)


def of(job: Job, offer: Offer, spent: float) -> Terms | None:
    """The terms of the job's next machine: by `max_seconds`, and by the rest of `max_usd`; None if that is spent.

    `spent`: USD of the job's earlier attempts and of doubted machines.
    """
    seconds = longest(job)
    if job.max_usd is not None and offer.usd_per_hour > 0:
        seconds = min(seconds, (job.max_usd - spent) / offer.usd_per_hour * 3600.0)
    if seconds < FEWEST_SECONDS:
        return None
    run_seconds = max(1.0, min(seconds, job.max_seconds - job.seconds_used))
    return Terms(seconds, run_seconds, cost(offer.usd_per_hour, seconds))


def cost(usd_per_hour: float, seconds: float) -> float:
    """USD of a machine for so many seconds."""
    return usd_per_hour * max(0.0, seconds) / 3600.0


def doubted(attempt: Attempt, now: float) -> float:
    """The possible cost in USD of machines from the attempt's earlier requests without an answer.

    A request is repeated when a machine would be listed by now: the reaper ends such a machine within REAP_SECONDS.
    """
    if attempt.asked_at is None:
        return attempt.usd_doubted
    return attempt.usd_doubted + cost(attempt.usd_per_hour, now - attempt.asked_at + REAP_SECONDS)
