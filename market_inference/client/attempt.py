"""One call under way: request id, deadline and tries.

Owns the state that the synchronous and the asynchronous client share while they send a call. The clients own the
sending and the pauses.
"""

import math
import random
import time
from collections.abc import Iterable
from typing import Any, TypedDict

import grpc

from market_inference import errors
from market_inference.client import trace
from market_inference.client.connection import Connection, Priority
from market_inference.client.inputs import arguments
from market_inference.client.retries import Retries
from market_inference.client.types import Beside, Levels, Times
from market_inference.contract import metadata
from market_inference.contract.metadata import AUTHORIZATION, PRIORITIES, PRIORITY, REQUEST_ID, TRACEPARENT
from market_inference.errors import MarketInferenceError


class CallOptions(TypedDict, total=False):
    """Keywords of every call.

    `timeout`: seconds for the whole call, retries and pauses included; None for the client's own. `request_id`: by
    default a new UUID; the id is in the answer, in every error and in the service's log. `priority`: "interactive" (the
    default) or "batch", which waits behind it. `traceparent`: the trace of the call, as W3C Trace Context writes it; by
    default the trace of the active OpenTelemetry span, where there is one.
    """

    timeout: float | None
    request_id: str | None
    priority: Priority
    traceparent: str | None


class PredictOptions(CallOptions, total=False):
    """Keywords of predict(), beside `groups` of many series."""

    quantiles: Levels
    interval: Levels
    model: str
    period: int
    times: bool | Times | None
    covariates: Beside | None
    known_ahead: Iterable[str]


class Attempt:
    """Made when the call starts; `timeout` and `metadata` belong to the next try. Raises ArgumentError."""

    def __init__(
        self,
        connection: Connection,
        retries: Retries,
        default_timeout: float,
        *,
        timeout: float | None = None,
        request_id: str | None = None,
        priority: Priority = "interactive",
        traceparent: str | None = None,
    ) -> None:
        self._connection = connection
        self._retries = retries
        seconds = default_timeout if timeout is None else arguments.seconds(timeout, "timeout")
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._tried = 0
        self._first: MarketInferenceError | None = None
        self.request_id = metadata.request_id() if request_id in (None, "") else arguments.request_id(request_id)
        self.priority = arguments.one_of(priority, "priority", PRIORITIES)
        self.traceparent = trace.active() if traceparent is None else arguments.traceparent(traceparent)

    @property
    def metadata(self) -> list[tuple[str, str | bytes]]:
        """The metadata of a unary call."""
        made: list[tuple[str, str | bytes]] = [(REQUEST_ID, self.request_id), (PRIORITY, self.priority)]
        if self.traceparent:
            made.append((TRACEPARENT, self.traceparent))
        if self._connection.key:
            made.append((AUTHORIZATION, f"Bearer {self._connection.key}"))
        return made

    @property
    def options(self) -> dict[str, Any]:
        """The same for a request of a lane."""
        return {
            "timeout": self.timeout,
            "request_id": self.request_id,
            "priority": self.priority,
            "traceparent": self.traceparent,
        }

    @property
    def too_late(self) -> MarketInferenceError:
        """The error of a call without an answer within its timeout."""
        return errors.too_late(self.request_id)

    @property
    def timeout(self) -> float | None:
        """Seconds left, None without a limit, never negative: gRPC answers zero with DEADLINE_EXCEEDED."""
        return None if self._deadline == math.inf else max(0.0, self._deadline - time.monotonic())

    def answered(self) -> None:
        """The next request of the call starts with all its tries. Raises DeadlineExceededError: the answer is late."""
        if time.monotonic() > self._deadline:
            raise self._with_cause(self.too_late)
        self._tried, self._first = 0, None

    def pause_after(self, failure: grpc.RpcError | MarketInferenceError) -> float:
        """Seconds to wait before the next try; raises the typed error when another try is pointless."""
        self._tried += 1
        error = errors.from_rpc(failure, self.request_id) if isinstance(failure, grpc.RpcError) else failure
        left = math.inf if self.timeout is None else self.timeout
        pause = self._retries.pause(error, self._tried, left, random.random())  # noqa: S311  # jitter
        if pause is None:
            raise self._with_cause(self._connection.explain(error)) from None
        self._first = self._first or error
        return pause

    def _with_cause(self, error: MarketInferenceError) -> MarketInferenceError:
        """The error of the last try, with the error of the first try where the two differ."""
        if error.message == errors.TOO_LATE:
            error.extend(f"timeout={self._seconds:g} s (--timeout on the command line)")
        first = self._first
        if first is not None and first.reason != error.reason:
            error.extend(f"the first try failed with {first.reason}: {first.message}")
        return error
