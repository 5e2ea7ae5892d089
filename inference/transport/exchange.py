"""The Exchange stream: frames of envelopes in, frames of replies out.

Owns framing and the life of a request on the stream: one task each, ended by its answer, its cancel or the stream's
end. What a request means is the servicer's.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from google.rpc import status_pb2

from inference.calls.call import Call
from inference.calls.servicer import Servicer
from inference.sessions.service import SessionService
from inference.sessions.session import Session
from market_inference.contract import deadline
from market_inference.contract.encoding import wireformat
from market_inference.contract.errors import DrainingError, InternalError, ServiceError, SessionLostError, reason_of
from market_inference.contract.generated import exchange_pb2
from runtime.logs import fields

log = logging.getLogger(__name__)

# A frame stays below this many bytes of answers, so that one caller's bulk does not hold up the others' replies.
FRAME_BYTES = 1 << 20
SERVICE = exchange_pb2.DESCRIPTOR.services_by_name["ExchangeService"]
_REPLIES = exchange_pb2.ExchangeResponse.REPLIES_FIELD_NUMBER
_RESPONSE = exchange_pb2.Reply.RESPONSE_FIELD_NUMBER
_PRIORITIES = {exchange_pb2.PRIORITY_BATCH: "batch"}

Observe = Callable[[str, str, Call, float], None]


class Exchange:
    """Serves any number of streams. `observe(method, code or reason, call, seconds)` is told of every answer."""

    def __init__(
        self, servicer: Servicer, sessions: SessionService, load: Callable[[], float], observe: Observe
    ) -> None:
        self._servicer = servicer
        self.sessions = sessions
        self._load = load
        self._observe = observe
        self._streams: set[_Stream] = set()
        self._draining = False

    def handler(self) -> grpc.GenericRpcHandler:
        """For a grpc.aio server. Frames of replies are written here, not by gRPC: see _written()."""
        method: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(
            self._serve, exchange_pb2.ExchangeRequest.FromString, None
        )
        return grpc.method_handlers_generic_handler(SERVICE.full_name, {"Exchange": method})

    async def _serve(self, frames: AsyncIterator[exchange_pb2.ExchangeRequest], context: Any) -> AsyncIterator[bytes]:
        stream = _Stream(self, frames)
        self._streams.add(stream)
        try:
            async for frame in stream.replies():
                yield frame
        finally:
            self._streams.discard(stream)
            stream.close()

    async def drain(self) -> None:
        """Refuse new requests, tell the gateways, and return when nothing is in flight."""
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

    def load(self) -> exchange_pb2.Load:
        return exchange_pb2.Load(queued_seconds=self._load(), draining=self._draining)

    async def answer(self, envelope: exchange_pb2.Envelope, call: Call) -> tuple[exchange_pb2.Reply, bytes | None]:
        """One request's reply, whatever becomes of it, and its response where there is one."""
        method = envelope.WhichOneof("body") or "none"
        reply = exchange_pb2.Reply(id=envelope.id)
        response = None
        began, outcome = deadline.now(), "OK"
        try:
            if self._draining:
                raise DrainingError("the replica is draining", retry_after=0.1)
            serve = getattr(self._servicer, method, None)
            if serve is None:
                raise InternalError
            response = await serve(getattr(envelope, method), call)
            reply.failed.extend(call.failed)
        except ServiceError as error:
            status = error.status(call.request_id)
            outcome = reason_of(status)
            reply.error.CopyFrom(status)
        except Exception as error:  # a bug of ours: the caller learns nothing of it, the log everything
            outcome = "INTERNAL"
            log.exception(
                "request failed",
                extra=fields(request_id=call.request_id, method=method, client=call.client, error=type(error).__name__),
            )
            reply.error.CopyFrom(InternalError().status(call.request_id))
        ended = deadline.now()
        call.encoded(ended)
        _tell_timing(reply.timing, call)
        self._observe(method, outcome, call, ended - began)
        return reply, response


def _tell_timing(timing: exchange_pb2.Timing, call: Call) -> None:
    timing.queue_us = int(call.queue_seconds * 1e6)
    timing.device_us = int(call.device_seconds * 1e6)
    timing.batch_items = call.batch_items
    timing.form_us = int(call.form_seconds * 1e6)
    timing.run_us = int(call.run_seconds * 1e6)
    timing.encode_us = int(call.encode_seconds * 1e6)


def call_of(envelope: exchange_pb2.Envelope) -> Call:
    """A request's circumstances, as its envelope tells them on arrival."""
    refused: dict[tuple[str, int], status_pb2.Status] = {}
    for item in envelope.refused:
        refused[item.list, item.index] = item.status
    return Call(
        request_id=envelope.request_id,
        client=envelope.client,
        priority=_PRIORITIES.get(envelope.priority, "interactive"),
        traceparent=envelope.traceparent,
        deadline=deadline.from_microseconds(envelope.timeout_us, deadline.now()),
        refused=refused,
        calls=envelope.calls or 1,
    )


class _Stream:
    """One gateway's stream: its requests in flight and its replies that wait to be written."""

    def __init__(self, exchange: Exchange, frames: AsyncIterator[exchange_pb2.ExchangeRequest]) -> None:
        self._exchange = exchange
        self._tasks: dict[int, asyncio.Task[None]] = {}
        # Of the requests in flight, those that stand for several calls.
        self._joint: dict[int, Call] = {}
        self._sessions: dict[int, Session] = {}
        # Replies as they lie in a frame, in pieces.
        self._ready: list[tuple[bytes, ...]] = []
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._ended = False
        self._reader = asyncio.create_task(self._read(frames))

    @property
    def in_flight(self) -> int:
        return len(self._tasks)

    def wake(self) -> None:
        self._wake.set()

    async def idle(self) -> None:
        await self._idle.wait()

    async def _read(self, frames: AsyncIterator[exchange_pb2.ExchangeRequest]) -> None:
        try:
            async for frame in frames:
                for envelope in frame.envelopes:
                    self._take(envelope)
        finally:
            self._ended = True
            self.wake()

    def _take(self, envelope: exchange_pb2.Envelope) -> None:
        if envelope.HasField("cancel"):
            if envelope.cancel.items:
                if call := self._joint.get(envelope.id):
                    call.gone.update(envelope.cancel.items)
            elif task := self._tasks.get(envelope.id):
                task.cancel()
            elif session := self._sessions.pop(envelope.id, None):
                self._exchange.sessions.close(session)
            return
        if envelope.HasField("watch_bar"):
            self._take_bar(envelope)
            return
        if envelope.HasField("watch_open") and not self._exchange.draining:
            self._sessions[envelope.id] = self._exchange.sessions.open(envelope, self._send)
            return
        self._idle.clear()
        call = call_of(envelope)
        if call.calls > 1:
            self._joint[envelope.id] = call
        task = self._tasks[envelope.id] = asyncio.create_task(self._serve(envelope, call))
        # A callback, since a task that is cancelled before its first step runs none of its own code.
        task.add_done_callback(lambda _: self._over(envelope.id))

    def _take_bar(self, envelope: exchange_pb2.Envelope) -> None:
        session = self._sessions.get(envelope.id)
        if session is not None:
            self._exchange.sessions.bar(session, envelope.watch_bar)
            return
        error = SessionLostError("there is no such session here", retry_after=0.0)
        self._send(exchange_pb2.Reply(id=envelope.id, error=error.status(envelope.request_id)))

    async def _serve(self, envelope: exchange_pb2.Envelope, call: Call) -> None:
        self._send(*await self._exchange.answer(envelope, call))

    def _send(self, reply: exchange_pb2.Reply, response: bytes | None = None) -> None:
        """Answer in the next frame; a session's error is its end."""
        if reply.HasField("error"):
            self._sessions.pop(reply.id, None)
        self._ready.append(_written(reply, response))
        self.wake()

    def _over(self, envelope_id: int) -> None:
        del self._tasks[envelope_id]
        self._joint.pop(envelope_id, None)
        if not self._tasks and not self._ready:
            self._idle.set()

    async def replies(self) -> AsyncIterator[bytes]:
        """Frames of replies until the gateway ends the stream; the first one tells the load."""
        yield self._load()
        told_draining = False
        while not self._ended or self._ready:
            await self._wake.wait()
            self._wake.clear()
            if self._exchange.draining and not told_draining:
                told_draining = True
                yield self._load()
            while self._ready:
                yield self._frame()
            if not self._tasks:
                self._idle.set()

    def _load(self) -> bytes:
        return exchange_pb2.ExchangeResponse(load=self._exchange.load()).SerializeToString()

    def _frame(self) -> bytes:
        """Replies that are ready, and the load. Serialised messages that are joined are one message."""
        pieces: list[bytes] = []
        count = size = 0
        while count < len(self._ready) and (not count or size < FRAME_BYTES):
            pieces += self._ready[count]
            size += len(pieces[-1])
            count += 1
        del self._ready[:count]
        return b"".join((*pieces, self._load()))

    def close(self) -> None:
        """The stream is gone: nobody waits for its requests."""
        self._reader.cancel()
        for task in self._tasks.values():
            task.cancel()
        for session in self._sessions.values():
            self._exchange.sessions.close(session)


def _written(reply: exchange_pb2.Reply, response: bytes | None) -> tuple[bytes, ...]:
    """A reply as it lies in a frame, in pieces, the bulky one last: it is copied once, into the frame."""
    outcome = () if response is None else wireformat.pieces(_RESPONSE, response)
    return wireformat.pieces(_REPLIES, reply.SerializeToString(), *outcome)
