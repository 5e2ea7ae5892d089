"""A job and its attempts, as the store holds both.

Owns the states, and the set of final states. The transitions belong to step.py.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import RowMapping

from training.plane.launcher import Handle, Wanted


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
    CAPACITY = "capacity"
    PRICE = "price"
    BUDGET = "budget"
    SPENT = "spent"
    LINGERED = "lingered"
    IMPOSSIBLE = "impossible"
    RECIPE = "recipe"
    GIVEN_UP = "given_up"


# Losses of the infrastructure. Another attempt may do better, and the recipe is not to blame.
LOSSES: Final = frozenset({Cause.NO_START, Cause.SILENT, Cause.LOST, Cause.CRASH_LOOP, Cause.DOWNLOAD})
# Waits for a machine. Another time may do better; neither the recipe nor a machine is to blame.
WAITS: Final = frozenset({Cause.CAPACITY, Cause.PRICE, Cause.BUDGET})


@dataclass(frozen=True, slots=True)
class Job:
    """A row of `jobs`, and the state of the job's dataset. Times are Unix times in seconds."""

    id: str
    owner: str
    state: JobState
    dataset_state: str
    dataset_reason: str
    """Why the dataset was refused, or why the recipe cannot take the dataset."""
    attempt: int
    failures: int
    losses: int
    max_attempts: int
    max_seconds: float
    seconds_used: float
    cancel_asked_at: float | None
    finished: bool
    """Whether the newest attempt has reported a result whose artifacts are complete."""
    launcher: str
    wanted: Wanted
    created_at: float
    waits: int
    """How often the job has waited for a machine."""
    max_usd: float | None
    failed_step: int
    """The last reported step of the newest earlier attempt that the recipe failed; -1 for none."""

    @classmethod
    def of(cls, row: RowMapping, **known: Any) -> "Job":
        """From a row of the table, and the fields that no column has."""
        kept = {name: row[name] for name in cls.__slots__ if name in row}
        return cls(**{**kept, "state": JobState(row["state"]), **known})


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
    launcher: str
    handle: str
    offer: str
    asked_at: float | None
    """When the machine was last asked for, None before and after a definite refusal."""
    unanswered_at: float | None
    """When the machine was first asked for without an answer, None when the newest request was the first."""
    why: str
    usd_per_hour: float
    """The price that was agreed to."""
    usd_reserved: float
    """The worst case, with `usd_doubted`."""
    usd_doubted: float
    """The possible cost of machines from earlier requests without an answer."""

    @property
    def machine(self) -> Handle:
        """The attempt's machine."""
        return Handle(self.name, self.handle)

    @property
    def billed_since(self) -> float | None:
        """The earliest time from which the platform may bill the machine; None when no machine can have been made."""
        return self.asked_at if self.unanswered_at is None else self.unanswered_at

    def paid_until(self, usd_per_hour: float) -> float | None:
        """Until when the reservation pays for the machine at a price; None for a machine that costs nothing."""
        if self.billed_since is None or usd_per_hour <= 0:
            return None
        return self.billed_since + (self.usd_reserved - self.usd_doubted) / usd_per_hour * 3600.0

    @classmethod
    def of(cls, row: RowMapping) -> "Attempt":
        """From a row of the table."""
        kept = {name: row[name] for name in cls.__slots__}
        return cls(**{**kept, "state": AttemptState(row["state"]), "cause": Cause(row["cause"])})
