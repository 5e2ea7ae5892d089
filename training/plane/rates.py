"""Rates of callers: a token bucket for each, in this worker.

Owns the rates. The arithmetic is the gateway's (gateway/access/budget.py). What a caller may have in all belongs to the
module of the thing: reports.py, upload.py, token.py, dataset.py, jobs.py.
"""

import threading
from typing import Final

from gateway.access.budget import Allowance, LocalBudget
from market_inference.contract import errors as contract
from training.plane.errors import OverloadedError

MACHINE: Final = Allowance(50.0, 200.0, 0.0)
"""Requests of an attempt: a second, and at once. A machine reports every ten seconds, and uploads a file by three
requests."""


class Rates:
    """The buckets of one worker, for requests on several threads."""

    def __init__(self) -> None:
        self._budget = LocalBudget()
        self._lock = threading.Lock()

    def spend(self, who: str, allowance: Allowance) -> None:
        """Count one request. Raises OverloadedError."""
        try:
            with self._lock:
                self._budget.spend(who, allowance, 1.0)
        except contract.RateLimitedError as error:
            text = f"at most {allowance.per_second:g} requests a second, {allowance.burst:g} at once"
            raise OverloadedError(text, retry_after=error.retry_after) from None
