"""The Exchange stream: frames of request envelopes in, frames of replies out.

Owns framing and the life of a request on the stream: one task per request, ended by a reply, a cancel or the end
of the stream. The servicer (calls/servicer.py) owns the meaning of a request.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Any

import grpc
from google.rpc import status_pb2

from inference.calls.call import ReplicaCall
from inference.calls.servicer import Servicer
from inference.sessions.service import SessionService
from inference.sessions.session import Session
from market_inference.contract import deadline
from market_inference.contract.encoding import wireformat
from market_inference.contract.errors import DrainingError, InternalError, ServiceError, SessionLostError, reason_of
from market_inference.contract.generated import exchange_pb2
from runtime.frame_queue import LARGE_BYTES, FrameQueue
from runtime.logs import fields

log = logging.getLogger(__name__)

SERVICE = exchange_pb2.DESCRIPTOR.services_by_name["ExchangeService"]
_ENVELOPES = exchange_pb2.ExchangeRequest.ENVELOPES_FIELD_NUMBER
_REPLIES = exchange_pb2.ExchangeResponse.REPLIES_FIELD_NUMBER
_RESPONSE = exchange_pb2.Reply.RESPONSE_FIELD_NUMBER
_PRIORITIES = {exchange_pb2.PRIORITY_BATCH: "batch"}

Observe = Callable[[str, str, ReplicaCall, float], None]


class Exchange:
    """Serves any number of Exchange streams.

    `load()` gives the queued seconds of work; `observe(method, code or reason, call, seconds)` is called per reply.
    """

    def __init__(
        self, servicer: Servicer, sessions: SessionService, load: Callable[[], float], observe: Observe
    ) -> None:
        self._servicer = servicer
        self.sessions = sessions
        self._load = load
        self._observe = observe
        self._streams: set[ExchangeStream] = set()
        self._draining = False

    def handler(self) -> grpc.GenericRpcHandler:
        """The handler for a grpc.aio server. Reply frames are serialised here (see _serialized), not by gRPC."""
        method: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(self._serve, None, None)
        return grpc.method_handlers_generic_handler(SERVICE.full_name, {"Exchange": method})

    async def _serve(self, frames: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        stream = self.open()
        reader = asyncio.create_task(_read(frames, stream))
        try:
            async for pieces in stream.replies():
                yield b"".join(pieces)
        finally:
            reader.cancel()
            stream.close()

    def open(self) -> "ExchangeStream":
        """A new stream of a gateway; the carrier of the stream calls its close()."""
        stream = ExchangeStream(self, self._streams.discard)
        self._streams.add(stream)
        return stream

    async def drain(self) -> None:
        """Refuse new requests, tell every gateway, and return once no request is in flight."""
        self._draining = True
        self.sessions.drain()
        for stream in self._streams:
            stream.wake()
        await asyncio.gather(*(stream.idle() for stream in tuple(self._streams)))

    @property
    def draining(self) -> bool:
        return self._draining

    @property
    def in_flight(self) -> int:
        return sum(stream.in_flight for stream in self._streams)

    @property
    def unsent_bytes(self) -> int:
        """Bytes of responses that wait to be written."""
        return sum(stream.unsent_bytes for stream in self._streams)

    def load(self) -> exchange_pb2.Load:
        return exchange_pb2.Load(queued_seconds=self._load(), draining=self._draining)

    async def answer(
        self, envelope: exchange_pb2.Envelope, call: ReplicaCall, method: str, body: memoryview | None
    ) -> tuple[exchange_pb2.Reply, bytes | None]:
        """The reply to one request, and the response's bytes unless the reply carries an error.

        `method`: the envelope's field of the request. `body`: the request, unless it is in that field.
        """
        reply = exchange_pb2.Reply(id=envelope.id)
        response = None
        began, code = deadline.now(), "OK"
        try:
            if self._draining:
                raise DrainingError("the replica is draining", retry_after=0.1)
            serve = getattr(self._servicer, method, None)
            if serve is None:
                raise InternalError
            response = await serve(getattr(envelope, method) if body is None else body, call)
            reply.failed.extend(call.failed)
        except ServiceError as error:
            reply.error.CopyFrom(error.status(call.request_id))
            code = reason_of(reply.error)
        except Exception as error:  # a bug: the log gets the trace, the caller INTERNAL without details
            log.exception(
                "request failed",
                extra=fields(request_id=call.request_id, method=method, client=call.client, error=type(error).__name__),
            )
            reply.error.CopyFrom(InternalError().status(call.request_id))
            code = "INTERNAL"
        ended = deadline.now()
        call.encoded(ended)
        _write_timing(reply.timing, call)
        self._observe(method, code, call, ended - began)
        return reply, response


def _write_timing(timing: exchange_pb2.Timing, call: ReplicaCall) -> None:
    timing.queue_us = int(call.queue_seconds * 1e6)
    timing.device_us = int(call.device_seconds * 1e6)
    timing.batch_items = call.batch_items
    timing.form_us = int(call.form_seconds * 1e6)
    timing.run_us = int(call.run_seconds * 1e6)
    timing.encode_us = int(call.encode_seconds * 1e6)


def call_of(envelope: exchange_pb2.Envelope) -> ReplicaCall:
    """The call of an envelope that has just arrived."""
    refused: dict[tuple[str, int], status_pb2.Status] = {}
    for item in envelope.refused:
        refused[item.list, item.index] = item.status
    return ReplicaCall(
        request_id=envelope.request_id,
        client=envelope.client,
        priority=_PRIORITIES.get(envelope.priority, "interactive"),
        traceparent=envelope.traceparent,
        deadline=deadline.from_microseconds(envelope.timeout_us, deadline.now()),
        refused=refused,
        calls=envelope.calls or 1,
    )


def _envelopes(frame: bytes | bytearray) -> Sequence[tuple[exchange_pb2.Envelope, str, memoryview | None]]:
    """Each envelope of a frame, the name of its request's field, and the request where it stays in the frame."""
    if len(frame) >= LARGE_BYTES:
        view = memoryview(frame)
        with suppress(ValueError, LookupError):
            return [_in_place(view, *place) for place in wireformat.places(view, 0, len(view))]
    envelopes = exchange_pb2.ExchangeRequest.FromString(frame).envelopes  # type: ignore[arg-type]  # takes bytearray, too
    return [(envelope, envelope.WhichOneof("body") or "none", None) for envelope in envelopes]


def _in_place(view: memoryview, outer: int, start: int, end: int) -> tuple[exchange_pb2.Envelope, str, memoryview]:
    """The envelope in a frame's field `outer` that begins with a large request.

    Raises ValueError or LookupError for another field or envelope.
    """
    if outer != _ENVELOPES:
        raise ValueError("a field that is no envelope")
    number, first, last = next(wireformat.places(view, start, end), (0, start, start))
    if last - first < LARGE_BYTES:
        raise ValueError("no large request")
    field = exchange_pb2.Envelope.DESCRIPTOR.fields_by_number[number]
    if field.containing_oneof is None:
        raise ValueError("a large field that is no request")
    envelope = exchange_pb2.Envelope.FromString(bytes(view[last:end]))
    return envelope, field.name, view[first:last]


async def _read(frames: AsyncIterator[bytes], stream: "ExchangeStream") -> None:
    try:
        async for frame in frames:
            stream.receive(frame)
    finally:
        stream.end_requests()


class ExchangeStream:
    """One gateway's stream: its requests in flight, its sessions, and its replies that wait to be written.

    `on_close` is called with the stream at its end.
    """

    def __init__(self, exchange: Exchange, on_close: "Callable[[ExchangeStream], None]") -> None:
        self._exchange = exchange
        self._on_close = on_close
        # By envelope id: every request in flight; of these, the merged ones; the live sessions.
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._merged: dict[int, ReplicaCall] = {}
        self._sessions: dict[int, Session] = {}
        self._ready = FrameQueue()
        self.unsent_bytes = 0
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._ended = False

    @property
    def in_flight(self) -> int:
        return len(self._tasks)

    def wake(self) -> None:
        self._wake.set()

    async def idle(self) -> None:
        await self._idle.wait()

    def receive(self, frame: bytes | bytearray) -> None:
        for envelope, method, body in _envelopes(frame):
            self._start(envelope, method, body)

    def end_requests(self) -> None:
        """The gateway has ended the stream: replies() ends after the replies that are ready."""
        self._ended = True
        self.wake()

    def _start(self, envelope: exchange_pb2.Envelope, method: str, body: memoryview | None) -> None:
        if envelope.HasField("cancel"):
            self._cancel(envelope)
            return
        if envelope.HasField("watch_bar"):
            self._add_bar(envelope)
            return
        if envelope.HasField("watch_open") and not self._exchange.draining:
            self._sessions[envelope.id] = self._exchange.sessions.open(envelope, self._send)
            return
        self._idle.clear()
        call = call_of(envelope)
        if call.calls > 1:
            self._merged[envelope.id] = call
        task = self._tasks[envelope.id] = asyncio.create_task(self._answer(envelope, call, method, body))
        # A callback, because a task that is cancelled before its first step never runs its own code.
        task.add_done_callback(lambda _: self._end(envelope.id))

    def _cancel(self, envelope: exchange_pb2.Envelope) -> None:
        if envelope.cancel.items:
            if call := self._merged.get(envelope.id):
                call.withdrawn.update(envelope.cancel.items)
        elif task := self._tasks.get(envelope.id):
            task.cancel()
        elif session := self._sessions.pop(envelope.id, None):
            self._exchange.sessions.close(session)

    def _add_bar(self, envelope: exchange_pb2.Envelope) -> None:
        session = self._sessions.get(envelope.id)
        if session is not None:
            self._exchange.sessions.bar(session, envelope.watch_bar)
            return
        error = SessionLostError("this replica has no such session", retry_after=0.0)
        self._send(exchange_pb2.Reply(id=envelope.id, error=error.status(envelope.request_id)))

    async def _answer(
        self, envelope: exchange_pb2.Envelope, call: ReplicaCall, method: str, body: memoryview | None
    ) -> None:
        self._send(*await self._exchange.answer(envelope, call, method, body))

    def _send(self, reply: exchange_pb2.Reply, response: bytes | None = None) -> None:
        """Put a reply into the next frame. An error under a session's id ends the session."""
        if reply.HasField("error"):
            self._sessions.pop(reply.id, None)
        pieces = _serialized(reply, response)
        # A session's replies keep their order: they have no response.
        self._ready.add(pieces, reply.id if response is not None and len(response) >= LARGE_BYTES else None)
        self.unsent_bytes += sum(map(len, pieces))
        self.wake()

    def _end(self, envelope_id: int) -> None:
        del self._tasks[envelope_id]
        self._merged.pop(envelope_id, None)
        if not self._tasks and not self._ready:
            self._idle.set()

    async def replies(self) -> AsyncIterator[list[bytes]]:
        """Frames of replies, in pieces, until the gateway ends the stream. The first frame holds the load alone."""
        yield [self._load()]
        told_draining = False
        while not self._ended or self._ready:
            await self._wake.wait()
            self._wake.clear()
            if self._exchange.draining and not told_draining:
                told_draining = True
                yield [self._load()]
            while self._ready:
                yield self._frame()
            if not self._tasks:
                self._idle.set()

    def _load(self) -> bytes:
        return exchange_pb2.ExchangeResponse(load=self._exchange.load()).SerializeToString()

    def _frame(self) -> list[bytes]:
        """The pieces of the next frame, with the load."""
        pieces = self._ready.take()
        self.unsent_bytes -= sum(map(len, pieces))
        return [*pieces, self._load()]

    def close(self) -> None:
        """End the requests and the sessions of a stream that has ended."""
        self._on_close(self)
        for task in self._tasks.values():
            task.cancel()
        for session in self._sessions.values():
            self._exchange.sessions.close(session)


def _serialized(reply: exchange_pb2.Reply, response: bytes | None) -> tuple[bytes, ...]:
    """A reply's bytes as a field of a frame, in pieces. The response is the last piece: joining copies it once."""
    outcome = () if response is None else wireformat.pieces(_RESPONSE, response)
    return wireformat.pieces(_REPLIES, reply.SerializeToString(), *outcome)
