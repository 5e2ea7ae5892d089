"""Handlers of the public RPCs: authenticate, start the call, turn its outcome into a gRPC status.

Owns the steps before and after the pipeline: request id, deadline, client and permission, result and record.
The steps in between are pipeline.py's; transports call open(), start(), stream() and watch().
"""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any

from gateway import traces
from gateway.access.auth import Authenticator, Client, authorise
from gateway.access.budget import Limits, Remaining
from gateway.access.caller import Caller, Callers, Metadata
from gateway.access.in_flight import InFlight
from gateway.calls import completion
from gateway.calls.asked import Asked
from gateway.calls.call import Call, Outcome
from gateway.calls.completion import Result
from gateway.calls.pipeline import Pipeline, draining_error
from gateway.calls.records import Records
from gateway.calls.request import Request
from gateway.calls.status import Status
from gateway.config import Config
from gateway.metrics import Metrics
from gateway.replicas.router import Router
from gateway.streams.session_link import Links
from gateway.streams.slices import Slices
from gateway.streams.stalled import Writes
from gateway.streams.stream import Stream
from gateway.streams.watch import Watch, read_open
from market_inference.contract import codes, deadline, metadata
from market_inference.contract.errors import DeadlineExceededError, OverloadedError
from market_inference.contract.generated import inference_pb2
from market_inference.contract.methods import METHODS, Method
from market_inference.contract.validation import explain
from runtime.tracing import Traces

# A client with fewer bytes in flight is not refused because of other clients.
SPARED_BYTES = 1 << 20


class Servicer:
    """Serves the public contract by asking replicas."""

    def __init__(
        self,
        config: Config,
        authenticator: Authenticator,
        limits: Limits,
        router: Router,
        metrics: Metrics,
        *,
        version: str,
        traces: Traces | None = None,
    ) -> None:
        in_flight = InFlight(most=config.max_in_flight, most_per_client=config.max_in_flight_per_client)
        memory = InFlight(
            most=config.max_bytes_in_flight,
            most_per_client=config.max_bytes_in_flight_per_client,
            what="bytes of requests and answers",
            # A session can be opened beside other calls, too.
            spared=SPARED_BYTES + METHODS["Watch"].max_request_bytes,
        )
        self._messages = InFlight(
            most=config.max_bytes_in_flight // 2,
            most_per_client=config.max_bytes_in_flight_per_client // 2,
            what="bytes of messages of streams",
            spared=SPARED_BYTES,
        )
        self._stream_places = InFlight(
            most=config.max_in_flight, most_per_client=config.max_streams_per_client, what="streams"
        )
        self._session_places = InFlight(
            most=config.max_sessions, most_per_client=config.max_sessions_per_client, what="sessions"
        )
        open_streams = {"Stream": lambda: self._stream_places.total, "Watch": lambda: self._session_places.total}
        metrics.watch(lambda: self.in_flight, config.max_in_flight, open_streams)
        self._config = config
        self._callers = Callers(authenticator)
        self._links = Links()
        self._router = router
        self._pipeline = Pipeline(in_flight, memory, limits, router, Status(router, version))
        self._records = Records(metrics)
        self._writes = Writes(config.reader_seconds)
        self._slices = Slices(company=lambda: in_flight.clients > 1)
        self._traces = traces
        self._streams: set[Stream | Watch] = set()

    def together(self) -> AbstractContextManager[None]:
        """Calls that start within the block arrived together and may be merged."""
        return self._pipeline.together()

    def caller(self, received: Metadata) -> Caller:
        """The caller of a call's metadata."""
        return self._callers.of(received)

    def open(
        self,
        method: Method,
        caller: Caller,
        timeout: float | None,
        peer: Callable[[], str],
        respond: Callable[[Result | None], None],
    ) -> Call:
        """Open a unary call of a caller, or refuse it; a refused call has finished on return.

        `timeout` is in seconds, None for the default. `respond` gets the result once, None when the call was cancelled.
        The transport calls `release()` of the call once the answer has left.
        """
        call = self._call(method, caller, timeout)
        call.on_finish = functools.partial(self._finish_unary, peer, respond)
        try:
            _identify(call, caller)
        except Exception as error:  # noqa: BLE001 -- reported and logged by completion.py
            call.finish(error)
        return call

    def start(self, call: Call, raw: bytes) -> None:
        """Start an open call, with its request; the call may have finished on return."""
        if not call.finished:
            call.raw = raw
            self._pipeline.start(call)

    def _finish_unary(
        self, peer: Callable[[], str], respond: Callable[[Result | None], None], call: Call, outcome: Outcome
    ) -> None:
        result, ending = completion.result(call, outcome, peer)
        try:
            respond(result)
        finally:
            self._records.add(call, ending)

    def _start_streamed(self, call: Call) -> None:
        """Start a request of a Stream call, as the client of that call."""
        try:
            authorise(call.client, call.method)
            if self._traces is not None:
                traces.begin(self._traces, call, "internal")
            _check_time(call)
        except Exception as error:  # noqa: BLE001 -- reported and logged by completion.py
            call.finish(error)
        else:
            self._pipeline.start(call)

    async def stream(self, method: Method, caller: Caller, context: Any) -> None:
        """Serve a Stream call."""
        timeout = context.time_remaining()
        call = self._call(method, caller, timeout)
        # The stream may last as long as its caller wants; max_timeout limits each request of the stream.
        call.deadline = deadline.NEVER if timeout is None else call.began + timeout
        async with self._ending(call, context):
            self._pipeline.refuse_when_draining()
            client = _identify(call, caller)
            stream = Stream(
                call,
                self._start_streamed,
                self._records.add,
                self.together,
                self._pipeline.memory,
                self._messages,
                writes=self._writes,
                slices=self._slices,
                slow_checks=self._pipeline.slow_checks,
                default_timeout=self._config.default_timeout,
                max_timeout=self._config.max_timeout,
            )
            with self._stream_places.slot(client.name), self._open(stream):
                await stream.run(context)

    async def watch(self, method: Method, caller: Caller, context: Any) -> None:
        """Serve a Watch call: a session on the replica that is picked at the opening."""
        call = self._call(method, caller, context.time_remaining())
        async with self._ending(call, context):
            self._pipeline.refuse_when_draining()
            client = _identify(call, caller)
            with self._session_places.slot(client.name):
                try:
                    watch = await self._open_session(call, context)
                    with self._open(watch):
                        await watch.run(context)
                finally:
                    call.release()

    async def _open_session(self, call: Call, context: Any) -> Watch:
        opened = await self._read_open(call, context)
        cost_units = call.method.units(inference_pb2.WatchRequest(open=opened))
        call.asked = Asked(opened.forecast.model, 1, cost_units)
        await self._spend(call, cost_units)
        request = Request([call])
        replica = await self._router.pick(call.deadline)
        # drain() ends the sessions that are open, and knows none that is still being opened.
        self._pipeline.refuse_when_draining()
        request.replica, request.calls = replica.address, []
        request.envelope.watch_open.CopyFrom(opened)
        link = self._links.to(replica)
        return Watch(
            link,
            request.envelope,
            self._pipeline.memory,
            idle_seconds=self._config.session_idle_seconds,
            writes=self._writes,
            charge=functools.partial(self._charge_bars, call.client),
            on_opened=call.opened,
        )

    async def _read_open(self, call: Call, context: Any) -> inference_pb2.WatchOpen:
        """The opening, whose bytes are held until call.release(). Raises ServiceError.

        The bytes of the largest opening are held while the opening comes, so that a client's openings come one after
        the other once they fill half of the client's bytes, or other clients fill the gateway's.
        """
        client, memory = call.client.name, self._pipeline.memory
        try:
            async with asyncio.timeout(self._config.default_timeout):
                await memory.room(client)
                await memory.enter_in_turn(client, call.method.max_request_bytes)
        except TimeoutError as error:
            what = f"the client's other calls left no room for an opening within {self._config.default_timeout:g} s"
            raise OverloadedError(what, retry_after=1.0) from error
        call.memory, call.held_bytes = memory, call.method.max_request_bytes
        raw = await _first_message(context, self._config.default_timeout)
        call.size_bytes = len(raw)
        opened = await self._pipeline.slow_checks.turn(client, functools.partial(_opening, raw))
        memory.leave(client, call.held_bytes - call.size_bytes)
        call.held_bytes = call.size_bytes
        return opened

    async def _spend(self, call: Call, cost_units: int) -> None:
        """Raises RateLimitedError or QuotaExceededError."""
        limits = self._pipeline.limits
        if (allowance := limits.allowance(call.client)) is not None:
            call.allowance = allowance
            spent = call.charge(limits, allowance, max(1, cost_units))
            call.remaining = spent if isinstance(spent, Remaining) else await spent

    async def _charge_bars(self, client: Client, cost_units: int) -> None:
        """Charge bars of a session. Raises RateLimitedError or QuotaExceededError."""
        limits = self._pipeline.limits
        if (allowance := limits.allowance(client)) is not None:
            spent = limits.spend(client.name, allowance, cost_units)
            if not isinstance(spent, Remaining):
                await spent

    @asynccontextmanager
    async def _ending(self, call: Call, context: Any) -> AsyncIterator[None]:
        """End a Stream or Watch call: an error becomes the call's status and trailers, and the call is recorded."""
        ending = completion.OK
        try:
            yield
        except asyncio.CancelledError:
            ending = completion.CANCELLED
            raise
        except Exception as error:  # noqa: BLE001 -- reported and logged by completion.py
            call.give_back(error)
            status = completion.status_of(error, call, context.peer)
            ending = completion.of_status(status)
            await codes.end(context, status, completion.failure_trailers(call, status))
        finally:
            if ending.code == "OK":
                context.set_trailing_metadata(completion.trailers(call))
            self._records.add(call, ending)

    @contextmanager
    def _open(self, stream: Stream | Watch) -> Iterator[None]:
        """Keep a stream among those that drain() ends, for the time of a block."""
        self._streams.add(stream)
        try:
            yield
        finally:
            self._streams.discard(stream)

    @property
    def in_flight(self) -> int:
        """Requests in flight, those of streams included."""
        return self._pipeline.in_flight.total

    @property
    def memory(self) -> int:
        """Bytes of requests in flight, of answers that have not left, and of messages that streams are taking."""
        return self._pipeline.memory.total + self._messages.total

    def drain(self) -> None:
        """Take no new work; streams end with their last answer."""
        self._pipeline.draining = True
        for stream in self._streams:
            stream.drain(draining_error())

    def _call(self, method: Method, caller: Caller, timeout: float | None) -> Call:
        began = deadline.now()
        until = began + min(self._config.default_timeout if timeout is None else timeout, self._config.max_timeout)
        # Positional arguments: keywords would cost as much as everything else here.
        call = Call(method, metadata.request_id(caller.request_id), began, until, caller.priority, caller.traceparent)
        if self._traces is not None:
            traces.begin(self._traces, call, "server")
        return call


def _opening(raw: bytes) -> inference_pb2.WatchOpen:
    """Raises InvalidRequestError."""
    opened = read_open(raw)
    explain.check(opened)
    return opened


async def _first_message(context: Any, seconds: float) -> bytes:
    """The first message of a call. Raises DeadlineExceededError when no message comes in time."""
    try:
        async with asyncio.timeout(seconds):
            raw = await context.read()
    except TimeoutError as error:
        raise DeadlineExceededError(f"no message came within {seconds:g} s of opening the call") from error
    return raw if isinstance(raw, bytes) else b""


def _identify(call: Call, caller: Caller) -> Client:
    """Authenticate and authorise the call. Raises ServiceError."""
    call.credential = caller.credential
    client = call.client = caller.admitted()
    authorise(client, call.method)
    _check_time(call)
    return client


def _check_time(call: Call) -> None:
    if call.deadline <= call.began:
        raise DeadlineExceededError("the deadline had passed when the request arrived")
