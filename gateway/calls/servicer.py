"""The contract's calls: whose each is, and how it ends.

Owns what every call gets: an id, a deadline, a caller who may make it, and an end that callers understand. The steps in
between are serving.py's, what is kept of a call records.py's.
"""

import asyncio
import functools
import logging
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from google.rpc import status_pb2

from gateway import traces
from gateway.access import audit, cost
from gateway.access.auth import Authenticator, Client, authorise
from gateway.access.budget import Limits
from gateway.access.caller import Caller, Callers, Sent
from gateway.access.in_flight import InFlight
from gateway.calls.pipeline import Backend, Outcome, Serving, Settle
from gateway.calls.records import Records
from gateway.calls.request import Request
from gateway.calls.status import Status
from gateway.metrics import Metrics
from gateway.replicas.router import Router
from gateway.streams.session_link import Links
from gateway.streams.stream import Stream
from gateway.streams.watch import Watch, read_open
from market_inference.contract import codes, deadline, metadata
from market_inference.contract.errors import (
    CallCancelledError,
    DeadlineExceededError,
    DrainingError,
    InternalError,
    ServiceError,
    code_name,
    reason_of,
)
from market_inference.contract.methods import Method
from market_inference.contract.validation import explain
from runtime.logs import fields
from runtime.tracing import Traces

log = logging.getLogger("gateway.request")

Trailers = tuple[tuple[str, str | bytes], ...]


class Ended(NamedTuple):
    """How a call ended: its answer's bytes, or the status of its failure; and the trailers that go with either."""

    body: bytes
    trailers: Trailers
    status: status_pb2.Status | None = None


class Servicer:
    """Serves the public contract by asking replicas."""

    def __init__(
        self,
        authenticator: Authenticator,
        in_flight: InFlight,
        streams: InFlight,
        sessions: InFlight,
        limits: Limits,
        router: Router,
        metrics: Metrics,
        *,
        default_timeout: float,
        max_timeout: float,
        session_idle_seconds: float,
        version: str,
        traces: Traces | None = None,
    ) -> None:
        self._callers = Callers(authenticator)
        self._stream_slots = streams
        self._session_slots = sessions
        self._links = Links()
        self._router = router
        self._backend = Backend(in_flight, limits, router, Status(router, version))
        self._records = Records(metrics)
        self._default_timeout = default_timeout
        self._max_timeout = max_timeout
        self._session_idle_seconds = session_idle_seconds
        self._traces = traces
        self._streams: set[Stream | Watch] = set()

    def unary(
        self,
        method: Method,
        sent: Sent,
        left: float | None,
        peer: Callable[[], str],
        raw: bytes,
        end: Callable[[Ended | None], None],
    ) -> Serving | None:
        """Begin one call; None when it has ended already. `left` are the seconds that the caller waits.

        `end` is told once how it ended, None when that was a cancel: nobody listens any more.
        """
        caller = self._callers.of(sent)
        request = self._request(method, caller, left)

        def settle(outcome: Outcome) -> None:
            self._ended(request, outcome, peer, end)

        try:
            client = _admit(request, caller)
        except Exception as error:  # noqa: BLE001 -- a bug is an end, too: see _explained
            settle(error)
            return None
        return self._backend.serve(request, client, raw, settle)

    def _ended(
        self, request: Request, outcome: Outcome, peer: Callable[[], str], end: Callable[[Ended | None], None]
    ) -> None:
        code, reason = "OK", ""
        try:
            if isinstance(outcome, bytes):
                end(Ended(outcome, _identity(request)))
            elif isinstance(outcome, asyncio.CancelledError):
                code = reason = CallCancelledError.reason
                end(None)
            else:
                status, trailers = _failure(outcome, request, peer)
                code, reason = code_name(status.code), reason_of(status)
                end(Ended(b"", trailers, status))
        finally:
            self._records.over(request, code, reason)

    @asynccontextmanager
    async def _call(self, request: Request, context: Any) -> AsyncIterator[None]:
        """What surrounds a stream: errors end it with status and details, and it is counted and logged."""
        code, reason = "OK", ""
        try:
            yield
        except asyncio.CancelledError:
            code = reason = CallCancelledError.reason
            raise
        except Exception as error:  # noqa: BLE001 -- a bug is an end, too: see _explained
            status, trailers = _failure(error, request, context.peer)
            code, reason = code_name(status.code), reason_of(status)
            await codes.end(context, status, trailers)
        finally:
            if code == "OK":
                context.set_trailing_metadata(_identity(request))
            self._records.over(request, code, reason)

    def serve(self, request: Request, client: Client, raw: bytes, settle: Settle) -> Serving | None:
        """Begin to serve a request that came over a stream, whose caller is known; None when it is settled already.

        `settle` is told the outcome once: the response's bytes, a ServiceError, or CancelledError.
        """

        def explained(outcome: Outcome) -> None:
            if not isinstance(outcome, bytes | asyncio.CancelledError):
                outcome = _explained(outcome, request, str)
            settle(outcome)

        try:
            authorise(client, request.method)
            if self._traces is not None:
                traces.begin(self._traces, request, "internal")
            _check_time(request)
        except Exception as error:  # noqa: BLE001 -- a bug is an outcome, too
            explained(error)
            return None
        return self._backend.serve(request, client, raw, explained)

    async def stream(self, method: Method, context: Any) -> None:
        """A Stream call: its requests one by one, and a log line when it ends."""
        caller = self._callers.of(tuple(context.invocation_metadata() or ()))
        left = context.time_remaining()
        call = self._request(method, caller, left)
        # The stream may live as long as its caller wants; max_timeout bounds each of its requests.
        call.deadline = deadline.NEVER if left is None else call.began + left
        async with self._call(call, context):
            await self._stream(call, caller, context)

    async def _stream(self, call: Request, caller: Caller, context: Any) -> None:
        if self.draining:
            raise DrainingError("the gateway is draining", retry_after=0.1)
        client = _admit(call, caller)
        stream = Stream(self, call, client, default_timeout=self._default_timeout, max_timeout=self._max_timeout)
        with self._stream_slots.slot(client.name):
            self._streams.add(stream)
            try:
                await stream.run(context)
            finally:
                self._streams.discard(stream)

    async def watch(self, method: Method, context: Any) -> None:
        """A Watch call: a session on the replica that is picked now, and a log line when it ends."""
        caller = self._callers.of(tuple(context.invocation_metadata() or ()))
        call = self._request(method, caller, context.time_remaining())
        async with self._call(call, context):
            await self._watch(call, caller, context)

    async def _watch(self, call: Request, caller: Caller, context: Any) -> None:
        if self.draining:
            raise DrainingError("the gateway is draining", retry_after=0.1)
        client = _admit(call, caller)
        with self._session_slots.slot(client.name):
            raw = await _opening(context, self._default_timeout)
            call.cost = len(raw)
            message = read_open(raw)
            explain.check(message)
            if (allowance := self._backend.limits.allowance(client)) is not None:
                await self._backend.charge(call, client, allowance, cost.units(message))
            link = self._links.to(await self._router.pick(call))
            envelope = self._router.envelope(call)
            envelope.timeout_us = 0
            envelope.watch_open.CopyFrom(message)
            watch = Watch(
                link,
                envelope,
                idle_seconds=self._session_idle_seconds,
                pay=functools.partial(self._pay, client, cost.of_bar(message)),
            )
            self._streams.add(watch)
            try:
                await watch.run(context)
            finally:
                self._streams.discard(watch)

    async def _pay(self, client: Client, units: int, bars: int) -> None:
        """Take what so many bars of a session cost. Raises RateLimitedError or QuotaExceededError."""
        limits = self._backend.limits
        if (allowance := limits.allowance(client)) is not None:
            await limits.spend(client.name, allowance, units * bars)

    @property
    def in_flight(self) -> int:
        """Requests being served, those of streams included."""
        return self._backend.in_flight.total

    @property
    def draining(self) -> bool:
        return self._backend.draining

    def drain(self) -> None:
        """Take no new work; streams end with their last answer."""
        self._backend.draining = True
        for stream in self._streams:
            stream.drain()

    def done(self, request: Request, code: str, reason: str) -> None:
        """One request of a stream is over; it has a log line when it failed."""
        self._records.over(request, code, reason, line=code != "OK")

    def _request(self, method: Method, caller: Caller, left: float | None) -> Request:
        began = deadline.now()
        until = began + min(self._default_timeout if left is None else left, self._max_timeout)
        # By position, since keywords would cost as much as the rest.
        request = Request(
            method, metadata.request_id(caller.request_id), began, until, caller.priority, caller.traceparent
        )
        if self._traces is not None:
            traces.begin(self._traces, request, "server")
        return request


def _explained(error: BaseException, request: Request, peer: Callable[[], str]) -> ServiceError:
    """What the caller is told. What is no ServiceError is a bug: the caller learns nothing of it, the log all."""
    if not isinstance(error, ServiceError):
        log.error("bug", exc_info=error, extra=fields(request_id=request.request_id, method=request.method.name))
        return InternalError()
    audit.note(request, error, peer)
    # Else it and the frames on its way would hold each other until the collector finds them: at each wrong key.
    error.__traceback__ = None
    return error


def _failure(error: BaseException, request: Request, peer: Callable[[], str]) -> tuple[status_pb2.Status, Trailers]:
    """How an error ends a call."""
    status = _explained(error, request, peer).status(request.request_id)
    return status, (*_identity(request), (metadata.STATUS_DETAILS, status.SerializeToString()))


async def _opening(context: Any, seconds: float) -> bytes:
    """A call's first message. Raises DeadlineExceededError when a caller opens it and says nothing."""
    try:
        async with asyncio.timeout(seconds):
            raw = await context.read()
    except TimeoutError as error:
        raise DeadlineExceededError(f"no message came within {seconds:g} s of opening the call") from error
    return raw if isinstance(raw, bytes) else b""


def _identity(request: Request) -> tuple[tuple[str, str], ...]:
    """The trailers of every call: its id, and what its client has left where there is a limit."""
    left = request.remaining
    if left is None:
        return ((metadata.REQUEST_ID, request.request_id),)
    found = [(metadata.REQUEST_ID, request.request_id)]
    if left.burst != math.inf:
        found.append((metadata.RATE_REMAINING, f"{max(0.0, left.burst):.0f}"))
    if left.day != math.inf:
        found.append((metadata.QUOTA_REMAINING, f"{left.day:.0f}"))
    return tuple(found)


def _admit(request: Request, caller: Caller) -> Client:
    """The caller, who may make this call, in time. Raises ServiceError."""
    request.credential = caller.credential
    client = caller.admitted()
    request.client = client.name
    authorise(client, request.method)
    _check_time(request)
    return client


def _check_time(request: Request) -> None:
    if request.deadline <= request.began:
        raise DeadlineExceededError("the deadline had passed when the request arrived")
