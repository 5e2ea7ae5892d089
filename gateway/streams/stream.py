"""One Stream call: many independent requests, answered in any order.

Owns the multiplexing: credits, cancels, and backpressure from a slow reader to the client's own sends. What a request
costs, means and may do is the same as for a call of its own, and is the servicer's.

Memory is bounded by two credits: requests in flight, and bytes of requests in flight and of answers not yet sent. The
reader stops while either is used up, so that HTTP/2 flow control reaches the client; nobody else waits for this stream.
"""

import asyncio
from functools import partial
from typing import Any, NamedTuple, Protocol

from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from gateway.access.auth import Client
from gateway.calls.intake import SMALL_BYTES
from gateway.calls.pipeline import Settle
from gateway.calls.request import Request
from market_inference.contract import deadline, methods
from market_inference.contract.encoding import twins, wireformat
from market_inference.contract.errors import (
    CallCancelledError,
    DrainingError,
    InvalidRequestError,
    ServiceError,
    Violation,
    code_name,
    reason_of,
)
from market_inference.contract.generated import answers_pb2, inference_pb2, requests_pb2
from market_inference.contract.methods import METHODS, Method
from market_inference.contract.validation import bounds

CREDITS = inference_pb2.StreamCredits(in_flight=1024, bytes=32 << 20)
# An answer message takes no more once it holds this many bytes, so that one bulky answer does not hold up the others.
MESSAGE_BYTES = 256 << 10
MOST_REQUESTS = methods.field_rules(
    inference_pb2.StreamRequest.DESCRIPTOR.fields_by_name["requests"]
).repeated.max_items
_ANSWERS = inference_pb2.StreamResponse.ANSWERS_FIELD_NUMBER
_RESULTS = {name: field.number for name, field in inference_pb2.StreamResult.DESCRIPTOR.fields_by_name.items()}
KINDS = {
    "predict": METHODS["Predict"],
    "sentiment": METHODS["AnalyzeSentiment"],
    "indicators": METHODS["ComputeIndicators"],
    "analyze": METHODS["Analyze"],
}


class _Written(NamedTuple):
    """An answer as it lies in a message, in pieces, the bulky one last: it is copied once, into the message.

    `size` is what it takes of the credit in bytes. Errors take none: they are small, and few by the credit in requests.
    """

    pieces: tuple[bytes, ...]
    size: int = 0


class Served(Protocol):
    """A request on its way."""

    def cancel(self) -> None: ...


class Service(Protocol):
    """What a stream needs of the gateway."""

    def serve(self, request: Request, client: Client, raw: bytes, settle: Settle) -> Served | None:
        """Begin to serve one request in its bytes; None when it is settled already. `settle` is told its outcome once:
        the response's bytes, a ServiceError, or CancelledError.
        """
        ...

    def done(self, request: Request, code: str, reason: str) -> None:
        """One request is over."""
        ...


class Stream:
    """One caller's stream. `call` describes the stream itself: id, deadline, priority, trace."""

    def __init__(
        self,
        service: Service,
        call: Request,
        client: Client,
        *,
        default_timeout: float,
        max_timeout: float,
        credits: inference_pb2.StreamCredits = CREDITS,  # noqa: A002 -- the contract's name
    ) -> None:
        self._service = service
        self._call = call
        self._client = client
        self._default_timeout = default_timeout
        self._max_timeout = max_timeout
        self._credits = credits
        # Those that are being served, by id.
        self._served: dict[int, Served] = {}
        self._answers: list[_Written] = []
        self._in_flight = 0
        self._bytes = 0
        self._ended = False
        self._draining = False
        self._ready = asyncio.Event()
        self._room = asyncio.Event()

    async def run(self, context: Any) -> None:
        """Serve until the client has sent its last request and has its last answer.

        Raises DrainingError once everything taken is answered, when the gateway is draining.
        """
        await context.write(answers_pb2.StreamAnswer(credits=self._credits).SerializeToString())
        reader = asyncio.create_task(self._read(context))
        try:
            await self._write(context)
            if self._draining:
                raise DrainingError("the gateway is draining", retry_after=0.1)
            await reader  # raises what the reader raised
        finally:
            reader.cancel()
            for served in tuple(self._served.values()):
                served.cancel()

    def drain(self) -> None:
        """Take no more requests; the stream ends with its last answer."""
        self._ended = self._draining = True
        self._room.set()
        self._ready.set()

    async def _read(self, context: Any) -> None:
        try:
            while not self._ended:
                raw = await context.read()
                if not isinstance(raw, bytes):  # grpc.aio.EOF
                    return
                await self._take(raw)
        finally:
            self._ended = True
            self._ready.set()

    async def _take(self, raw: bytes) -> None:
        # Before the message is looked at: answers to unreadable ones would pile up as well.
        await self._wait_for_room()
        try:
            message = read(raw)
        except InvalidRequestError as error:
            self._refuse(0, error)
            return
        except DecodeError:
            violation = Violation("", "the bytes are not a StreamRequest message", "decode")
            self._refuse(0, InvalidRequestError([violation]))
            return
        share = len(raw) // max(1, len(message.requests))
        for item in message.requests:
            await self._wait_for_room()
            if self._draining:
                return
            self._start(item, share)

    async def _wait_for_room(self) -> None:
        while self._exhausted() and not self._draining:
            self._room.clear()
            await self._room.wait()

    def _exhausted(self) -> bool:
        return self._in_flight >= self._credits.in_flight or self._bytes >= self._credits.bytes

    def _start(self, item: requests_pb2.StreamItemColumns, size: int) -> None:
        """Take one request; `size` is its share of its message's bytes."""
        kind = item.WhichOneof("request")
        if kind == "cancel":
            if served := self._served.get(item.id):
                served.cancel()
            return
        if (wrong := self._wrong(item, kind)) is not None:
            self._refuse(item.id, wrong)
            return
        self._in_flight += 1
        self._bytes += size
        request = self._request(item, KINDS[str(kind)])
        settle = partial(self._over, item.id, str(kind), request, size)
        served = self._service.serve(request, self._client, getattr(item, str(kind)), settle)
        if served is not None:
            self._served[item.id] = served

    def _wrong(self, item: requests_pb2.StreamItemColumns, kind: str | None) -> ServiceError | None:
        if kind is None:
            return InvalidRequestError(
                [Violation("request", "one of predict, sentiment, indicators, analyze", "oneof")]
            )
        if item.id == 0:
            return InvalidRequestError([Violation("id", "must be above 0", "uint64.gt")])
        if item.id in self._served:
            return InvalidRequestError([Violation("id", "is in flight on this stream already", "unique")])
        return None

    def _request(self, item: requests_pb2.StreamItemColumns, method: Method) -> Request:
        began = deadline.now()
        asked = item.timeout.ToNanoseconds() * 1e-9 if item.HasField("timeout") else self._default_timeout
        return Request(
            method=method,
            request_id=f"{self._call.request_id}/{item.id}",
            began=began,
            deadline=min(began + min(asked, self._max_timeout), self._call.deadline),
            priority=self._call.priority,
            traceparent=self._call.traceparent,
            client=self._client.name,
        )

    def _over(self, item_id: int, kind: str, request: Request, size: int, outcome: bytes | BaseException) -> None:
        self._served.pop(item_id, None)  # it may be over before it is there
        self._bytes -= size
        code, reason = "OK", ""
        if isinstance(outcome, bytes):
            answer = _result(item_id, kind, outcome)
        else:
            error = outcome if isinstance(outcome, ServiceError) else CallCancelledError("the request was withdrawn")
            status = error.status(request.request_id)
            code, reason = code_name(status.code), reason_of(status)
            answer = _error(item_id, status)
        self._service.done(request, code, reason)
        self._bytes += answer.size
        self._queue(answer)

    def _refuse(self, item_id: int, error: ServiceError) -> None:
        self._in_flight += 1
        self._queue(_error(item_id, error.status(self._call.request_id)))

    def _queue(self, answer: _Written) -> None:
        self._answers.append(answer)
        self._ready.set()

    async def _write(self, context: Any) -> None:
        while self._answers or self._served or not self._ended:
            await self._ready.wait()
            self._ready.clear()
            while self._answers:
                count, size = self._message()
                message = b"".join([piece for answer in self._answers[:count] for piece in answer.pieces])
                del self._answers[:count]
                await context.write(message)
                self._in_flight -= count
                self._bytes -= size
                self._room.set()

    def _message(self) -> tuple[int, int]:
        """How many answers the next message takes, and the bytes that they were counted with."""
        count = size = 0
        for answer in self._answers:
            if count and size >= MESSAGE_BYTES:
                break
            count, size = count + 1, size + answer.size
        return count, size


def _result(item_id: int, kind: str, response: bytes) -> _Written:
    head = answers_pb2.StreamResultAnswer(id=item_id).SerializeToString()
    result = wireformat.field(_RESULTS[kind], response)
    return _Written(wireformat.field(_ANSWERS, head, *result), len(response))


def _error(item_id: int, status: status_pb2.Status) -> _Written:
    answer = answers_pb2.StreamResultAnswer(id=item_id, error=status).SerializeToString()
    return _Written(wireformat.field(_ANSWERS, answer))


def read(raw: bytes) -> requests_pb2.StreamColumns:
    """The requests of one message, each as its own bytes. Raises InvalidRequestError, DecodeError."""
    if len(raw) > SMALL_BYTES:
        # What is inside a request is looked at with the request.
        bounds.check(raw, inference_pb2.StreamRequest.DESCRIPTOR, inside=False)
    message = twins.read(inference_pb2.StreamRequest, raw)
    if not isinstance(message, requests_pb2.StreamColumns):
        bounds.check(raw, inference_pb2.StreamRequest.DESCRIPTOR)
        whole = twins.rewrite(inference_pb2.StreamRequest.FromString(raw))
        message = requests_pb2.StreamColumns.FromString(whole)
    if len(message.requests) > MOST_REQUESTS:
        bounds.check(raw, inference_pb2.StreamRequest.DESCRIPTOR)
    return message
