"""One call on its way: its id, its deadline and how often it was tried.

Owns what the synchronous and the asynchronous client share while they send a call; they own the sending and the pause.
"""

import random
import time
import uuid
from typing import TypedDict

import grpc

from market_inference import errors
from market_inference.client import trace
from market_inference.client.connection import Priority
from market_inference.client.retries import Retries
from market_inference.contract.metadata import AUTHORIZATION, PRIORITY, REQUEST_ID, TRACEPARENT


class CallOptions(TypedDict, total=False):
    """What every call takes by keyword.

    `timeout`: seconds for the whole call, retries and pauses included; the client's own when None. `request_id`: yours,
    or a new UUID; it is in the answer, in every error and in the service's log. `priority`: "interactive" (the default)
    or "batch", which waits behind it. `traceparent`: the trace that the call belongs to, as W3C Trace Context
    writes it; by default that of the active OpenTelemetry span, where there is one.
    """

    timeout: float | None
    request_id: str | None
    priority: Priority
    traceparent: str | None


class Attempt:
    """Made when the call starts; `timeout` and `metadata` are what the next try is sent with."""

    def __init__(
        self,
        key: str,
        retries: Retries,
        default_timeout: float,
        *,
        timeout: float | None = None,
        request_id: str | None = None,
        priority: Priority = "interactive",
        traceparent: str | None = None,
    ) -> None:
        self._retries = retries
        self._deadline = time.monotonic() + (default_timeout if timeout is None else timeout)
        self._tried = 0
        self.request_id = request_id or str(uuid.uuid4())
        self.metadata: list[tuple[str, str | bytes]] = [(REQUEST_ID, self.request_id), (PRIORITY, priority)]
        if parent := trace.active() if traceparent is None else traceparent:
            self.metadata.append((TRACEPARENT, parent))
        if key:
            self.metadata.append((AUTHORIZATION, f"Bearer {key}"))

    @property
    def timeout(self) -> float:
        """Seconds left, never negative: gRPC answers zero with DEADLINE_EXCEEDED."""
        return max(0.0, self._deadline - time.monotonic())

    def pause_after(self, failure: grpc.RpcError) -> float:
        """Seconds to wait before the next try; raises the typed error when there shall be none."""
        self._tried += 1
        error = errors.from_rpc(failure, self.request_id)
        pause = self._retries.pause(error, self._tried, self.timeout, random.random())  # noqa: S311  # jitter
        if pause is None:
            raise error from None
        return pause
