"""The records of a replied request: metrics, and a log line.

Owns the content of the log line, and its time: a later callback of the loop, so that replies leave first. The line has
ids, names, counts and times, never texts or series.
"""

import asyncio
import logging
from collections import deque

from inference.calls.call import ReplicaCall
from inference.metrics import Metrics
from runtime import logs

log = logging.getLogger("inference.request")


class Records:
    """The requests that have been replied to in this loop turn."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        # Method, code, call and seconds of each.
        self._replied: deque[tuple[str, str, ReplicaCall, float]] = deque()

    def add(self, method: str, code: str, call: ReplicaCall, seconds: float) -> None:
        """Record a replied request; `code` is OK or the reason of the error."""
        self._metrics.answered(method, code, call, seconds)
        if not log.isEnabledFor(logging.INFO):
            return
        if not self._replied:
            asyncio.get_running_loop().call_soon(self._write)
        self._replied.append((method, code, call, seconds))

    def _write(self) -> None:
        while self._replied:
            _log(*self._replied.popleft())


def _log(method: str, code: str, call: ReplicaCall, seconds: float) -> None:
    values: dict[str, object] = {
        "request_id": call.request_id,
        "trace_id": call.traceparent[3:35],
        "client": call.client,
        "method": method,
        "code": code,
        "model": call.model,
        "items": call.items,
        "calls": call.calls,  # client calls that the gateway merged under the first one's id
        "seconds": int(seconds * 1e6) / 1e6,
        "queue_seconds": int(call.queue_seconds * 1e6) / 1e6,
        "form_seconds": int(call.form_seconds * 1e6) / 1e6,
        "device_seconds": int(call.run_seconds * 1e6) / 1e6,
        "encode_seconds": int(call.encode_seconds * 1e6) / 1e6,
        "batch_items": call.batch_items,
    }
    logs.event(log, logging.ERROR if code == "INTERNAL" else logging.INFO, "request", values)
