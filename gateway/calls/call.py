"""One call of a client in the gateway: client, request, deadline, and the one outcome.

Owns the state of a call from arrival to end: a call finishes once, and then gives its place in flight back. The steps
of a call are pipeline.py's; the request to a replica is request.py's.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from google.protobuf.message import Message
from google.rpc import code_pb2

from gateway.access.auth import ANONYMOUS, Client
from gateway.access.budget import Allowance, Limits, Remaining, Spent
from gateway.access.in_flight import InFlight
from gateway.calls.asked import NOTHING, Asked
from gateway.calls.slow_checks import Mistakes
from market_inference.contract.deadline import now
from market_inference.contract.errors import AnswerTooLargeError, OverloadedError, RemoteError, ServiceError, reason_of
from market_inference.contract.generated.exchange_pb2 import Timing
from market_inference.contract.methods import Method
from market_inference.contract.validation.check import Checked
from runtime.tracing import Span

if TYPE_CHECKING:
    from gateway.calls.request import Request

Outcome: TypeAlias = bytes | BaseException
"""The response's bytes, or the reason for none: a ServiceError, CancelledError when the caller has left, or a bug."""

_NO_TIMING = Timing()


@dataclass(slots=True, eq=False)
class Call:
    """A unary call, one request of a Stream call, or a Stream or Watch call as a whole.

    `began` and `deadline` are instants of the monotonic clock. `on_finish` gets the outcome, once.
    """

    method: Method
    request_id: str
    began: float
    deadline: float
    priority: str = "interactive"
    traceparent: str = ""
    raw: bytes = b""
    on_finish: "Callable[[Call, Outcome], None] | None" = None
    client: Client = ANONYMOUS
    # The public part of a refused credential.
    credential: str = ""
    size_bytes: int = 0
    # As the client named it; empty for the default.
    model: str = ""
    # The client's limit, known from the reservation of memory on; None for a client without a limit.
    allowance: Allowance | None = None
    # Units charged; 0 for a client without a limit.
    units: int = 0
    # Whether a good answer gets a log line: requests of a Stream without an id of their own do not.
    logged: bool = True
    # Model, items and units of the request, for the log line; NOTHING where no line is expected.
    asked: Asked = NOTHING
    # Who was charged, until the units are back or the work has begun.
    charged: Limits | None = None
    # Units that remain for the client, when the client has a limit.
    remaining: Remaining | None = None
    span: Span | None = None
    # The count in which the call holds a place.
    in_flight: InFlight | None = None
    # Of a small request, reported when the request breaks no other rule.
    too_large: AnswerTooLargeError | None = None
    # Bytes of the request and of the expected answer, and the count in which they are held until the answer has left.
    memory: InFlight | None = None
    held_bytes: int = 0
    # The items of the request, in separate bytes, and the bytes beside the items; `rest` is None before the split.
    items: Sequence[memoryview] = ()
    rest: bytes | None = None
    # The request read through its twin, until the request is sent or has to take the explaining check.
    message: Message | None = None
    checked: Checked | None = None
    # The mistakes of the Stream message that the call came in; None for a unary call.
    mistakes: Mistakes | None = None
    # A waiting step: charging a shared budget, or GetStatus.
    task: "asyncio.Task[None] | None" = None
    # The request to a replica; kept after the end for the log line and the metrics.
    request: "Request | None" = None

    @property
    def finished(self) -> bool:
        return self.on_finish is None

    def finish(self, outcome: Outcome) -> None:
        """Complete the call with `outcome`. Later outcomes are ignored."""
        on_finish, self.on_finish = self.on_finish, None
        if on_finish is None:
            return
        if self.in_flight is not None:
            self.in_flight.leave(self.client.name)
        # Free the request's memory, and cut the reference cycle with the task, so that no garbage collection is needed.
        self.raw, self.items, self.message, self.checked, self.task = b"", (), None, None, None
        if not isinstance(outcome, bytes):
            self.release()
            self.give_back(outcome)
        on_finish(self, outcome)

    def charge(self, limits: Limits, allowance: Allowance, units: int) -> Spent:
        """Take the call's units from the client's budget. Raises RateLimitedError or QuotaExceededError."""
        self.units = units
        spent = limits.spend(self.client.name, allowance, units)
        self.charged = limits
        return spent

    def opened(self) -> None:
        """The first answer of a session: the opening was read, and the work has begun."""
        self.charged = None
        self.release()

    def give_back(self, error: BaseException) -> None:
        """Give the units back, if the call failed by a fault of the service, and no replica has worked for the call."""
        limits, self.charged = self.charged, None
        if limits is None or self.allowance is None or not _without_work(error, self.attempts):
            return
        units, self.units = self.units, 0
        limits.give_back(self.client.name, self.allowance, units, now() - self.began)
        if self.remaining is not None:
            burst = min(self.allowance.burst, self.remaining.burst + units) if self.allowance.per_second else math.inf
            self.remaining = Remaining(burst, self.remaining.day + units)

    def release(self) -> None:
        """The answer has left the gateway, or there is none: give the bytes back."""
        memory, self.memory = self.memory, None
        if memory is not None:
            memory.leave(self.client.name, self.held_bytes)

    def cancel(self) -> None:
        """The caller has left: stop the work for the call."""
        if self.finished:
            return
        if self.task is not None:
            self.task.cancel()
        if self.request is not None:
            self.request.leave(self)
        self.finish(asyncio.CancelledError())

    @property
    def replica(self) -> str:
        """The address of the last replica."""
        return self.request.replica if self.request is not None else ""

    @property
    def attempts(self) -> int:
        return self.request.attempts if self.request is not None else 0

    @property
    def timing(self) -> Timing:
        """Where a replica's time went, see exchange.proto; zero without an answer."""
        return self.request.timing or _NO_TIMING if self.request is not None else _NO_TIMING

    @property
    def gateway_seconds(self) -> float:
        """Seconds until a replica was first asked."""
        return self.request.first_sent - self.began if self.request is not None and self.request.attempts else 0.0

    @property
    def device_seconds(self) -> float:
        """The call's share of the device's time."""
        return self.timing.device_us * 1e-6 / self.request.shared_by if self.request is not None else 0.0


_OURS = (code_pb2.UNAVAILABLE, code_pb2.INTERNAL, code_pb2.DEADLINE_EXCEEDED)


def _without_work(error: BaseException, attempts: int) -> bool:
    """Whether the service is at fault for an error, and no replica has worked for the call.

    A request may fail INTERNAL on every replica, or cost each its life: after an attempt, INTERNAL and a lost replica
    stay charged.
    """
    if isinstance(error, RemoteError):
        return error.carried.code == code_pb2.UNAVAILABLE or reason_of(error.carried) == OverloadedError.reason
    if isinstance(error, ServiceError):
        return isinstance(error, OverloadedError) or (not attempts and error.code in _OURS)
    return isinstance(error, Exception) and not attempts
