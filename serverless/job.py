"""A job in flight: ids, call, outcome, and the log line at the end."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inference.calls.call import ReplicaCall
from market_inference.contract import deadline
from market_inference.contract.errors import DrainingError, InternalError, OverloadedError, ServiceUnavailableError
from runtime.logs import fields
from serverless import request as incoming
from serverless.request import Request

log = logging.getLogger("serverless.job")

OK, CANCELLED = "OK", "CANCELLED"
_SERVICE_REFUSALS = {OverloadedError.reason, ServiceUnavailableError.reason, DrainingError.reason}


@dataclass(slots=True, eq=False)
class Job:
    """`outcome`: OK, CANCELLED or an error's reason. `request`: None until the input has been read."""

    job_id: str
    call: ReplicaCall
    began: float
    request: Request | None = None
    outcome: str = OK

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "Job":
        """Start the job that the SDK passed. Each job is a client of the queues: a large one delays no other."""
        job_id = str(given.get("id", ""))
        call = ReplicaCall(request_id=incoming.request_id(given), client=job_id or "runpod")
        return cls(job_id, call, deadline.now())

    @property
    def request_id(self) -> str:
        return self.call.request_id

    @property
    def action(self) -> str:
        """An action of this worker, or "none"; safe as a metric label, because unknown actions are not kept."""
        return self.request.action if self.request else "none"

    @property
    def names(self) -> Mapping[str, str]:
        """Field paths of the contract -> field names in the caller's JSON."""
        return self.request.names if self.request else {}

    def finish(self) -> float:
        """Write the log line and return the seconds that the job took."""
        seconds = deadline.now() - self.began
        log.log(
            _level(self.outcome),
            "job",
            extra=fields(
                request_id=self.request_id,
                job_id=self.job_id,
                action=self.action,
                outcome=self.outcome,
                seconds=round(seconds, 6),
                queue_seconds=round(self.call.queue_seconds, 6),
                device_seconds=round(self.call.device_seconds, 6),
                batch_items=self.call.batch_items,
                warnings=sum((self.call.warnings or {}).values()),
            ),
        )
        return seconds


def _level(outcome: str) -> int:
    """Bugs log at ERROR, refusals for lack of capacity at WARNING, callers' mistakes at INFO."""
    if outcome == InternalError.reason:
        return logging.ERROR
    return logging.WARNING if outcome in _SERVICE_REFUSALS else logging.INFO
