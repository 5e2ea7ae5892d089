"""One Stream call: many independent requests, answered in any order.

Owns the multiplexing of requests and answers: credits, cancels, and backpressure from a slow reader to the client's own
sends. Every request is a Call; the steps of a call are calls/pipeline.py's.

Three limits bound the memory of a stream: the credit in requests in flight, the credit in bytes of these requests and
of results not yet sent, and the memory of all calls of the client. The reader stops at a limit, so that HTTP/2 flow
control reaches the client; other streams go on. A message whose requests are not all taken counts beside its requests;
a message beyond that limit has its requests refused, since it is in memory already.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, NamedTuple, TypeVar

from google.protobuf import duration_pb2
from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from gateway.access.in_flight import InFlight
from gateway.calls import completion
from gateway.calls.call import Call, Outcome
from gateway.calls.completion import Ending
from gateway.calls.slow_checks import SLICE_SECONDS, Mistakes, SlowChecks
from gateway.streams.slices import Slices
from gateway.streams.stalled import Writes
from market_inference.contract import deadline, metadata, methods
from market_inference.contract.encoding import twins, wireformat
from market_inference.contract.errors import (
    CallCancelledError,
    InvalidRequestError,
    OverloadedError,
    ServiceError,
    Violation,
)
from market_inference.contract.generated import answers_pb2, inference_pb2, requests_pb2
from market_inference.contract.metadata import PRIORITIES
from market_inference.contract.validation import bounds
from market_inference.contract.validation.check import SMALL_BYTES

Value = TypeVar("Value")
CREDITS = inference_pb2.StreamCredits(in_flight=1024, bytes=32 << 20)
# A message takes no more results once it holds this many bytes, so that a large result delays few others.
MESSAGE_BYTES = 256 << 10
MOST_REQUESTS = methods.field_rules(
    inference_pb2.StreamRequest.DESCRIPTOR.fields_by_name["requests"]
).repeated.max_items
# A longer message is read in a slice: 64 KiB of empty requests take the parser milliseconds.
_SHORT_BYTES = 4 << 10
# Characters of a request's own id and trace.
MOST_NAME_CHARACTERS = methods.field_rules(
    inference_pb2.StreamItem.DESCRIPTOR.fields_by_name["request_id"]
).string.max_len
# The ranges of google.protobuf.Duration.
_MOST_DURATION_SECONDS = 315_576_000_000
_NANOS = 1_000_000_000
_ANSWERS = inference_pb2.StreamResponse.ANSWERS_FIELD_NUMBER
_RESULTS = {name: field.number for name, field in inference_pb2.StreamResult.DESCRIPTOR.fields_by_name.items()}


class _Result(NamedTuple):
    """The bytes of a StreamResult, in pieces for a single copy into the message.

    `size_bytes` is the result's share of the credit in bytes. Errors have none: they are small, and the credit in
    requests limits their number.
    """

    pieces: tuple[bytes, ...]
    size_bytes: int = 0
    call: Call | None = None

    def release(self) -> None:
        if self.call is not None:
            self.call.release()


class Stream:
    """One client's stream. `call` is the stream itself: id, client, deadline, priority, trace.

    `start` begins to serve one request as a call, `record` notes its end, and calls that start within `together()` may
    share a request to a replica. `memory` counts the bytes of all streams: while they are crowded, the stream waits.
    `messages` counts the bytes of messages that are being taken.
    """

    def __init__(
        self,
        call: Call,
        start: Callable[[Call], None],
        record: Callable[[Call, Ending, bool], None],
        together: Callable[[], AbstractContextManager[None]],
        memory: InFlight,
        messages: InFlight,
        *,
        writes: Writes,
        slices: Slices,
        slow_checks: SlowChecks,
        default_timeout: float,
        max_timeout: float,
        credits: inference_pb2.StreamCredits = CREDITS,  # noqa: A002 -- the contract's name
    ) -> None:
        self._call = call
        self._start = start
        self._record = record
        self._together = together
        self._memory = memory
        self._messages = messages
        self._writes = writes
        self._slices = slices
        self._slow_checks = slow_checks
        self._default_timeout = default_timeout
        self._max_timeout = max_timeout
        self._credits = credits
        # The requests in flight, by id.
        self._calls: dict[int, Call] = {}
        self._results: list[_Result] = []
        self._in_flight = 0
        self._bytes = 0
        self._ended = False
        self._draining: ServiceError | None = None
        self._ready = asyncio.Event()
        self._credit = asyncio.Event()

    async def run(self, context: Any) -> None:
        """Serve until the client has sent the last request and has the last answer.

        After drain(): raises the refusal once every request taken is answered.
        """
        await context.write(answers_pb2.StreamAnswer(credits=self._credits).SerializeToString())
        reader = asyncio.create_task(self._read(context))
        try:
            await self._write(context)
            if self._draining is not None:
                raise self._draining
            await reader  # raises what the reader raised
        finally:
            reader.cancel()
            self._give_up()

    def _give_up(self) -> None:
        """Cancel the requests in flight and drop the results that have not been written."""
        for call in tuple(self._calls.values()):
            call.cancel()
        results, self._results = self._results, []
        for result in results:
            result.release()

    def drain(self, refusal: ServiceError) -> None:
        """Take no more requests; the stream ends with `refusal` after the last answer."""
        self._ended, self._draining = True, refusal
        self._credit.set()
        self._ready.set()

    async def _read(self, context: Any) -> None:
        try:
            while not self._ended and await self._take_next(context):
                pass
        finally:
            self._ended = True
            self._ready.set()

    async def _take_next(self, context: Any) -> bool:
        """Take the requests of a message; False after the last one. No message is kept while the next is awaited."""
        # Wait before the message is read: answers to unreadable messages take memory, too.
        await self._wait_for_credit()
        raw = await context.read()
        if not isinstance(raw, bytes):  # grpc.aio.EOF
            return False
        client, size = self._call.client.name, len(raw)
        try:
            self._messages.enter(client, size)
        except OverloadedError as error:
            self._refuse_message(raw, error)
            return True
        try:
            try:
                message = await self._requests_of(raw)
            except (InvalidRequestError, DecodeError) as error:
                self._refuse_unread(error)
                return True
            del raw
            await self._take(message, size)
        finally:
            self._messages.leave(client, size)
        return True

    def _refuse_message(self, raw: bytes, error: ServiceError) -> None:
        """Refuse the requests of a message that is not taken, but for its cancels. The message waits for no turn."""
        try:
            message = read(raw)
            if message is None:
                message = read_slowly(raw)
        except (InvalidRequestError, DecodeError) as mistake:
            self._refuse_unread(mistake)
            return
        status = error.status(self._call.request_id)
        for request in message.requests:
            if request.HasField("cancel"):
                self._cancel(request.id)
            else:
                self._in_flight += 1
                self._queue(_error(request.id, status))

    def _refuse_unread(self, error: InvalidRequestError | DecodeError) -> None:
        if isinstance(error, DecodeError):
            error = InvalidRequestError([Violation("", "the bytes are not a StreamRequest message", "decode")])
        self._refuse(0, error)

    async def _take(self, message: requests_pb2.StreamColumns, size_bytes: int) -> None:
        """Take the requests of a message of so many bytes."""
        share, mistakes = size_bytes // len(message.requests), Mistakes()
        client, requests = self._call.client.name, deque(message.requests)
        while requests:
            await self._wait_for_credit()
            if self._draining is not None:
                return
            if mistakes.suspected:
                # The refusals of a thousand mistakes take as long as their checks.
                await self._slow_checks.turn(
                    client, lambda: self._take_some(requests, share, mistakes, deadline.now() + SLICE_SECONDS)
                )
                continue
            # The calls of other clients take their turn between the requests of a large message.
            await self._in_slice(partial(self._take_some, requests, share, mistakes))

    async def _in_slice(self, work: Callable[[float], Value]) -> Value:
        """The value of work(ends) in a slice that ends at the instant `ends`."""
        ends = await self._slices.begin(self._call.client.name)
        began = deadline.now()
        try:
            return work(ends)
        finally:
            self._slices.end(began)

    async def _requests_of(self, raw: bytes) -> requests_pb2.StreamColumns:
        """The requests of a message, one at least. Raises InvalidRequestError or DecodeError."""
        message = read(raw) if len(raw) <= _SHORT_BYTES else await self._in_slice(lambda _: read(raw))
        if message is None:
            message = await self._slow_checks.turn(self._call.client.name, partial(read_slowly, raw))
        if not message.requests:
            raise _mistake("requests", "at least 1 value (got 0)", "repeated.min_items")
        return message

    def _take_some(
        self, requests: deque[requests_pb2.StreamItemColumns], share: int, mistakes: Mistakes, ends: float
    ) -> None:
        """Take requests until the instant `ends`, one at least while there is credit."""
        with self._together():
            while requests and not self._exhausted():
                self._take_one(requests.popleft(), share, mistakes)
                if deadline.now() >= ends:
                    break

    async def _wait_for_credit(self) -> None:
        while self._exhausted() and self._draining is None:
            self._credit.clear()
            if self._memory.crowded(self._call.client.name):
                await self._memory.wait(self._call.client.name, self._credit)
            else:
                await self._credit.wait()

    def _exhausted(self) -> bool:
        return (
            self._in_flight >= self._credits.in_flight
            or self._bytes >= self._credits.bytes
            or self._memory.crowded(self._call.client.name)
        )

    def _take_one(self, request: requests_pb2.StreamItemColumns, size_bytes: int, mistakes: Mistakes) -> None:
        """Take a request; `size_bytes` is the request's share of the message."""
        kind = request.WhichOneof("request")
        if kind == "cancel":
            self._cancel(request.id)
            return
        try:
            call = self._call_of(request, kind)
        except InvalidRequestError as wrong:
            self._refuse(request.id, wrong)
            return
        number = request.id
        self._in_flight += 1
        self._bytes += size_bytes
        call.on_finish = partial(self._finish, number, size_bytes)
        call.mistakes = mistakes
        self._calls[number] = call
        self._start(call)

    def _cancel(self, number: int) -> None:
        if call := self._calls.get(number):
            call.cancel()

    def _call_of(self, request: requests_pb2.StreamItemColumns, kind: str | None) -> Call:
        """The call of a request. Raises InvalidRequestError for a mistake in another field than the request."""
        began, number, stream = deadline.now(), request.id, self._call
        # Each field is read once: protobuf makes a new object at each reading.
        own_id, priority, traceparent = request.request_id, request.priority, request.traceparent
        if kind is None:
            raise _mistake("request", f"one of {', '.join(methods.BY_STREAM_FIELD)}", "oneof")
        if number == 0:
            raise _mistake("id", "must be above 0", "uint64.gt")
        if number in self._calls:
            raise _mistake("id", "is in flight on this stream already", "unique")
        if priority and priority not in PRIORITIES:
            raise _mistake("priority", f"one of {', '.join(PRIORITIES)}", "string.in")
        if len(own_id) > MOST_NAME_CHARACTERS or len(traceparent) > MOST_NAME_CHARACTERS:
            name, value = ("request_id", own_id) if len(own_id) > MOST_NAME_CHARACTERS else ("traceparent", traceparent)
            raise _mistake(name, f"at most {MOST_NAME_CHARACTERS} characters (got {len(value)})", "string.max_len")
        timeout = self._default_timeout
        if request.HasField("timeout"):
            timeout = _seconds(request.timeout)
            if not 0 < timeout < math.inf:
                raise _mistake("timeout", "must be a duration above 0 s", "duration.gt")
        call = Call(
            methods.BY_STREAM_FIELD[kind],
            metadata.request_id(own_id) if own_id else f"{stream.request_id}/{number}",
            began,
            min(began + min(timeout, self._max_timeout), stream.deadline),
            priority or stream.priority,
            traceparent or stream.traceparent,
        )
        call.raw, call.client, call.logged = getattr(request, kind), stream.client, bool(own_id)
        return call

    def _finish(self, number: int, size_bytes: int, call: Call, outcome: Outcome) -> None:
        """Queue the result of a request, and note the end, with a log line when it failed or has an id of its own."""
        del self._calls[number]
        self._bytes -= size_bytes
        if isinstance(outcome, bytes):
            result, ending = _result_of(number, call, outcome), completion.OK
        else:
            if isinstance(outcome, asyncio.CancelledError):
                outcome = CallCancelledError("the request was withdrawn")
            status = completion.status_of(outcome, call)
            result, ending = _error(number, status), completion.of_status(status)
        self._bytes += result.size_bytes
        # The result before the record: the writer then wakes before the log line and the metrics are written.
        self._queue(result)
        self._record(call, ending, call.logged or ending.code != "OK")

    def _refuse(self, number: int, error: ServiceError) -> None:
        self._in_flight += 1
        self._queue(_error(number, error.status(self._call.request_id)))

    def _queue(self, result: _Result) -> None:
        self._results.append(result)
        self._ready.set()

    async def _write(self, context: Any) -> None:
        while self._results or self._calls or not self._ended:
            await self._ready.wait()
            self._ready.clear()
            while self._results:
                count, size = self._message()
                results = self._results[:count]
                del self._results[:count]
                message = b"".join([piece for result in results for piece in result.pieces])
                try:
                    await self._writes.write(context, message, self._stall)
                finally:
                    for result in results:
                        result.release()
                self._in_flight -= count
                self._bytes -= size
                self._credit.set()

    def _stall(self) -> None:
        self._ended = True
        self._give_up()
        self._credit.set()

    def _message(self) -> tuple[int, int]:
        """The number of results in the next message, and their share of the credit in bytes."""
        count = size = 0
        for result in self._results:
            if count and size >= MESSAGE_BYTES:
                break
            count, size = count + 1, size + result.size_bytes
        return count, size


def _mistake(field: str, what: str, rule: str) -> InvalidRequestError:
    return InvalidRequestError([Violation(field, what, rule)])


def _result_of(number: int, call: Call, response: bytes) -> _Result:
    head = answers_pb2.StreamResultAnswer(id=number).SerializeToString()
    content = wireformat.pieces(_RESULTS[call.method.field], response)
    return _Result(wireformat.pieces(_ANSWERS, head, *content), len(response), call)


def _error(number: int, status: status_pb2.Status) -> _Result:
    content = answers_pb2.StreamResultAnswer(id=number, error=status).SerializeToString()
    return _Result(wireformat.pieces(_ANSWERS, content))


def read(raw: bytes) -> requests_pb2.StreamColumns | None:
    """The requests of a message, in separate bytes; None for a message that only read_slowly() can read.

    Raises InvalidRequestError.
    """
    descriptor = inference_pb2.StreamRequest.DESCRIPTOR
    if len(raw) > SMALL_BYTES:
        # The lists inside a request are counted when the request is checked.
        bounds.check(raw, descriptor, inside=False)
    message = twins.parse(inference_pb2.StreamRequest, raw)
    if not isinstance(message, requests_pb2.StreamColumns):
        return None
    if len(message.requests) > MOST_REQUESTS:
        bounds.check(raw, descriptor, inside=False)
    return message if twins.holds(message, raw, unknown=True) else None


def read_slowly(raw: bytes) -> requests_pb2.StreamColumns:
    """As read(), for a message with a request in several pieces, or with a length in more bytes than it needs.

    A walk over all fields, in milliseconds. Raises InvalidRequestError or DecodeError.
    """
    bounds.check(raw, inference_pb2.StreamRequest.DESCRIPTOR)
    return requests_pb2.StreamColumns.FromString(twins.rewrite(inference_pb2.StreamRequest.FromString(raw)))


def _seconds(duration: duration_pb2.Duration) -> float:
    """The seconds of a duration; NaN for fields outside the ranges of google.protobuf.Duration."""
    seconds, nanos = duration.seconds, duration.nanos
    if abs(seconds) > _MOST_DURATION_SECONDS or abs(nanos) >= _NANOS or seconds * nanos < 0:
        return math.nan
    return float(seconds + nanos / _NANOS)
