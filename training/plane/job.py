"""A job and its attempts, as the store holds both.

Owns the states, and the set of final states. The transitions belong to step.py.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sqlalchemy import RowMapping


class JobState(StrEnum):
    """Where a job is. `refused`, `succeeded`, `failed` and `cancelled` are final."""

    VALIDATING = "validating"
    QUEUED = "queued"
    LAUNCHING = "launching"
    STARTING = "starting"
    RUNNING = "running"
    FINISHING = "finishing"
    CANCELLING = "cancelling"
    REFUSED = "refused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINAL: Final = frozenset({JobState.REFUSED, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})


class AttemptState(StrEnum):
    """Where an attempt's machine is. `gone` is final: the machine was seen to be away."""

    REQUESTED = "requested"
    PROVISIONING = "provisioning"
    RUNNING = "running"
    ENDED = "ended"
    GONE = "gone"


class Cause(StrEnum):
    """Why an attempt was stopped or ended, where the exit code alone does not say so."""

    NONE = ""
    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    NO_START = "no_start"
    SILENT = "silent"
    LOST = "lost"
    CRASH_LOOP = "crash_loop"
    DOWNLOAD = "download"
    DATA_REFUSED = "data_refused"
    RECIPE = "recipe"


# Losses of the infrastructure. Another attempt may do better, and the recipe is not to blame.
LOSSES: Final = frozenset({Cause.NO_START, Cause.SILENT, Cause.LOST, Cause.CRASH_LOOP, Cause.DOWNLOAD})


@dataclass(frozen=True, slots=True)
class Job:
    """A row of `jobs`, and the state of the job's dataset. Times are Unix times in seconds."""

    id: str
    owner: str
    state: JobState
    dataset_state: str
    dataset_reason: str
    attempt: int
    failures: int
    losses: int
    max_attempts: int
    max_seconds: float
    seconds_used: float
    cancel_asked_at: float | None
    finished: bool
    """Whether the newest attempt has reported a result whose artifacts are complete."""
    failed_step: int
    """The last reported step of the newest earlier attempt that the recipe failed; -1 for none."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A row of `attempts`."""

    job: str
    n: int
    name: str
    state: AttemptState
    requested_at: float
    created_at: float | None
    running_at: float | None
    heartbeat_at: float | None
    deadline: float
    stop_at: float | None
    ended_at: float | None
    starts: int
    step: int
    exit_code: int | None
    cause: Cause

    @classmethod
    def of(cls, row: RowMapping) -> "Attempt":
        """From a row of the table."""
        kept = {name: row[name] for name in cls.__slots__}
        return cls(**{**kept, "state": AttemptState(row["state"]), "cause": Cause(row["cause"])})
