"""The records of a finished call: a log line, metrics, the end of the span.

Owns the content of the log line, and its time: a later callback of the loop, so that answers leave first.
"""

import asyncio
import logging
from collections import deque

from gateway import traces
from gateway.calls.call import Call
from gateway.calls.completion import Ending
from gateway.metrics import Metrics
from market_inference.contract import deadline
from runtime import logs

log = logging.getLogger("gateway.request")

# Errors of this service are errors, refusals are warnings, and mistakes of callers are information.
_LEVELS = {
    **dict.fromkeys(("INTERNAL", "UNKNOWN"), logging.ERROR),
    **dict.fromkeys(("UNAVAILABLE", "RESOURCE_EXHAUSTED", "UNAUTHENTICATED"), logging.WARNING),
}


class Records:
    """The calls that have finished in this loop turn."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        # Call, ending, instant of the end, and whether the call gets a log line.
        self._finished: deque[tuple[Call, Ending, float, bool]] = deque()

    def add(self, call: Call, ending: Ending, line: bool = True) -> None:
        """Record a finished call; without a log line when `line` is false."""
        if not self._finished:
            asyncio.get_running_loop().call_soon(self._keep)
        self._finished.append((call, ending, deadline.now(), line))

    def _keep(self) -> None:
        try:
            while self._finished:
                self._keep_one(*self._finished.popleft())
        finally:
            if self._finished:  # a bug in one record must not lose the others
                asyncio.get_running_loop().call_soon(self._keep)

    def _keep_one(self, call: Call, ending: Ending, at: float, line: bool) -> None:
        seconds = at - call.began
        code, reason = ending
        if call.span is not None:
            traces.end(call.span, call, code, reason, at)
        self._metrics.answered(call, code, reason, seconds)
        if line:
            _log(call, code, reason, seconds)


def _log(call: Call, code: str, reason: str, seconds: float) -> None:
    timing = call.timing
    values = {
        "request_id": call.request_id,
        "trace_id": call.traceparent[3:35],
        "client": call.client.name,
        "method": call.method.name,
        "code": code,
        "reason": reason,
        "bytes": call.size_bytes,
        "model": call.asked.model,
        "items": call.asked.items,
        "units": call.units or call.asked.units,
        "seconds": int(seconds * 1e6) / 1e6,  # round() takes four times as long
        "gateway_seconds": int(call.gateway_seconds * 1e6) / 1e6,
        "queue_seconds": timing.queue_us * 1e-6,
        "form_seconds": timing.form_us * 1e-6,
        "device_seconds": call.device_seconds,
        "encode_seconds": timing.encode_us * 1e-6,
        "batch_items": timing.batch_items,
        "replica": call.replica,
        "attempts": call.attempts,
    }
    logs.event(log, _LEVELS.get(code, logging.INFO), "request", values)
