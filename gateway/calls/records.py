"""What is kept of every request once it is over: a log line, metrics, the end of its span.

Owns what the line says, and when: after the answers of a loop turn have left, which do not wait for it.
"""

import asyncio
import logging
from collections import deque
from typing import NamedTuple

from gateway import traces
from gateway.calls.request import Request
from gateway.metrics import Metrics
from market_inference.contract import deadline
from runtime import logs

log = logging.getLogger("gateway.request")

# Errors of ours are errors, refusals are warnings, and callers' mistakes are no more than information.
_LEVELS = {
    **dict.fromkeys(("INTERNAL", "UNKNOWN"), logging.ERROR),
    **dict.fromkeys(("UNAVAILABLE", "RESOURCE_EXHAUSTED", "UNAUTHENTICATED"), logging.WARNING),
}


class _Over(NamedTuple):
    request: Request
    code: str
    reason: str
    at: float
    line: bool


class Records:
    """The requests that have ended in this loop turn."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._ended: deque[_Over] = deque()

    def over(self, request: Request, code: str, reason: str, *, line: bool = True) -> None:
        """A request has ended; `reason` is empty for a good answer, `line` is whether it gets a log line."""
        if not self._ended:
            asyncio.get_running_loop().call_soon(self._keep)
        self._ended.append(_Over(request, code, reason, deadline.now(), line))

    def _keep(self) -> None:
        try:
            while self._ended:
                self._keep_one(*self._ended.popleft())
        finally:
            if self._ended:  # one record's bug is not the others'
                asyncio.get_running_loop().call_soon(self._keep)

    def _keep_one(self, request: Request, code: str, reason: str, at: float, line: bool) -> None:
        seconds = at - request.began
        if request.span is not None:
            traces.end(request.span, request, code, reason, at)
        self._metrics.answered(request, code, reason, seconds)
        if line:
            _log(request, code, reason, seconds)


def _log(request: Request, code: str, reason: str, seconds: float) -> None:
    values = {
        "request_id": request.request_id,
        "client": request.client,
        "method": request.method.name,
        "code": code,
        "reason": reason,
        "bytes": request.cost,
        "units": request.units,
        "seconds": int(seconds * 1e6) / 1e6,  # round() takes four times as long
        "queue_seconds": request.queue_seconds,
        "device_seconds": request.device_seconds,
        "batch_items": request.batch_items,
        "replica": request.replica,
        "attempts": request.attempts,
    }
    logs.event(log, _LEVELS.get(code, logging.INFO), "request", values)
