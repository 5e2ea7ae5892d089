"""A job while it is here: under which id it is answered, what became of it, and the log line that says so."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inference.calls.call import Call
from market_inference.contract import deadline
from market_inference.contract.errors import DrainingError, InternalError, OverloadedError, ServiceUnavailableError
from runtime.logs import fields
from serverless import request as incoming
from serverless.request import Request

log = logging.getLogger("serverless.job")

OK, CANCELLED = "OK", "CANCELLED"
_OURS = {OverloadedError.reason, ServiceUnavailableError.reason, DrainingError.reason}


@dataclass(slots=True, eq=False)
class Visit:
    """`outcome` is OK, CANCELLED or an error's reason; `request` is there once the job has been read."""

    job_id: str
    call: Call
    began: float
    request: Request | None = None
    outcome: str = OK

    @classmethod
    def of(cls, job: Mapping[str, Any]) -> "Visit":
        call = Call(request_id=incoming.request_id(job), client="runpod")
        return cls(str(job.get("id", "")), call, deadline.now())

    @property
    def request_id(self) -> str:
        return self.call.request_id

    @property
    def action(self) -> str:
        """One of this worker's actions, or "none": never a word of the caller's choice."""
        return self.request.action if self.request else "none"

    @property
    def names(self) -> Mapping[str, str]:
        """Field paths of the contract -> the caller's words."""
        return self.request.names if self.request else {}

    def end(self) -> float:
        """Write the log line; the seconds that the visit took."""
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
            ),
        )
        return seconds


def _level(outcome: str) -> int:
    """Bugs are errors, refusals of ours are warnings, and callers' mistakes are no more than information."""
    if outcome == InternalError.reason:
        return logging.ERROR
    return logging.WARNING if outcome in _OURS else logging.INFO
