"""One inference replica, as the gateway sees it: its Exchange streams, its requests in flight, its health.

Owns the connection and the frames. Which replica serves a request, and what to do when one is lost, is router.py's.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from market.inference.v1 import exchange_pb2, exchange_pb2_grpc
from wire.errors import DeadlineExceededError
from wire.logs import fields

log = logging.getLogger(__name__)

CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Each replica is a connection of its own, even when two have the same address, as after a restart.
    ("grpc.use_local_subchannel_pool", 1),
)
FRAME_BYTES = 1 << 20
# A stream is made anew after this long, so that new replicas and connections get their share.
STREAM_AGE_SECONDS = (240.0, 360.0)


class ReplicaLostError(Exception):
    """The stream that carried a request ended before its answer: the work may be sent elsewhere."""


class _Pending(NamedTuple):
    """A request that a replica works on."""

    reply: asyncio.Future[exchange_pb2.Reply]
    deadline: float


class Replica:
    """A replica at one address. Lives on the event loop; `changed` is called when `ready` may have."""

    def __init__(
        self,
        address: str,
        changed: Callable[[], None],
        *,
        streams: int,
        health_interval: float,
        health_timeout: float,
    ) -> None:
        self.address = address
        self.outstanding = 0.0
        self.queued_seconds = 0.0
        self.healthy = False
        self.draining = False
        self._changed = changed
        self._interval = health_interval
        self._timeout = health_timeout
        self._wanted = streams
        self._channel = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        self._stub = exchange_pb2_grpc.ExchangeServiceStub(self._channel)
        self._health = health_pb2_grpc.HealthStub(self._channel)
        # Streams that take new requests, and all that still carry some.
        self._open: list[_Stream] = []
        self._streams: set[_Stream] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._check_now = asyncio.Event()

    @property
    def connected(self) -> bool:
        return bool(self._open)

    @property
    def ready(self) -> bool:
        """Takes new work."""
        return self.healthy and not self.draining and bool(self._open)

    @property
    def in_flight(self) -> int:
        return sum(len(stream.pending) for stream in self._streams)

    def start(self) -> None:
        """Connect, stay connected and watch the health, until close()."""
        for _ in range(self._wanted):
            self._spawn(self._keep_stream())
        self._spawn(self._watch_health())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def ask(self, envelope: exchange_pb2.Envelope, cost: float, until: float) -> exchange_pb2.Reply:
        """Send a request and await its reply. Raises ReplicaLostError or DeadlineExceededError.

        A caller that is cancelled meanwhile withdraws the request from the replica.
        """
        stream = min(self._open, key=lambda stream: len(stream.pending), default=None)
        if stream is None:
            raise ReplicaLostError(self.address)
        self.outstanding += cost
        try:
            return await stream.send(envelope, until)
        except (asyncio.CancelledError, DeadlineExceededError):
            stream.withdraw(envelope.id)
            raise
        finally:
            stream.settle(envelope.id)
            self.outstanding = max(0.0, self.outstanding - cost)

    async def _keep_stream(self) -> None:
        while True:
            stream = _Stream(self)
            carrying = self._spawn(self._carry(stream))
            await asyncio.wait({carrying, asyncio.ensure_future(stream.over.wait())}, return_when="FIRST_COMPLETED")
            if not stream.retired:
                await asyncio.sleep(random.uniform(0.05, 0.2))  # noqa: S311 -- jitter

    async def _carry(self, stream: "_Stream") -> None:
        self._streams.add(stream)
        try:
            await stream.run(self._stub.Exchange())
        except grpc.aio.AioRpcError as error:
            log.warning("replica stream lost", extra=fields(replica=self.address, code=error.code().name))
        finally:
            self._streams.discard(stream)
            self.closed(stream)
            stream.lose()

    def opened(self, stream: "_Stream") -> None:
        """The replica has answered on a stream; its health decides whether it takes work."""
        self._open.append(stream)
        self._check_now.set()

    def closed(self, stream: "_Stream") -> None:
        """A stream takes no more requests."""
        if stream in self._open:
            self._open.remove(stream)
        if not self._open:
            self.healthy = self.draining = False
        stream.over.set()
        self._changed()

    def told(self, load: exchange_pb2.Load) -> None:
        self.queued_seconds = load.queued_seconds
        if load.draining != self.draining:
            self.draining = load.draining
            self._changed()

    async def _watch_health(self) -> None:
        """A replica that does not answer its health check in time is left, and comes back when it does."""
        while True:
            await self._check_now.wait()
            self._check_now.clear()
            if self._open:
                await self._check_health()
                delay = self._interval * random.uniform(0.9, 1.1)  # noqa: S311 -- jitter
                asyncio.get_running_loop().call_later(delay, self._check_now.set)

    async def _check_health(self) -> None:
        try:
            answer = await self._health.Check(health_pb2.HealthCheckRequest(), timeout=self._timeout)
            self._set_health(answer.status == health_pb2.HealthCheckResponse.SERVING)
        except grpc.aio.AioRpcError as error:
            self._set_health(False)
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                self._leave()

    def _set_health(self, healthy: bool) -> None:
        if healthy != self.healthy:
            log.info("replica health", extra=fields(replica=self.address, healthy=healthy))
            self.healthy = healthy
            self._changed()

    def _leave(self) -> None:
        """It hangs: give up what is in flight here, so that it can be sent elsewhere."""
        log.warning("replica does not answer", extra=fields(replica=self.address, in_flight=self.in_flight))
        for stream in tuple(self._streams):
            stream.end()

    def expire(self, at: float) -> None:
        """Fail requests whose deadline has passed without a word from the replica."""
        for stream in self._streams:
            stream.expire(at)

    async def close(self) -> None:
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._channel.close()


class _Stream:
    """One Exchange stream: envelopes that are ready in the same loop turn leave in one frame."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._outbox: list[exchange_pb2.Envelope] = []
        self._wake = asyncio.Event()
        self._call: Any = None
        self.pending: dict[int, _Pending] = {}
        self.retired = False
        # Set once the stream takes no more requests.
        self.over = asyncio.Event()

    def send(self, envelope: exchange_pb2.Envelope, until: float) -> asyncio.Future[exchange_pb2.Reply]:
        reply: asyncio.Future[exchange_pb2.Reply] = asyncio.get_running_loop().create_future()
        self.pending[envelope.id] = _Pending(reply, until)
        self._outbox.append(envelope)
        self._wake.set()
        return reply

    def withdraw(self, envelope_id: int) -> None:
        """The caller has gone: the replica need not answer."""
        if envelope_id in self.pending:
            self._outbox.append(exchange_pb2.Envelope(id=envelope_id, cancel=exchange_pb2.ExchangeCancel()))
            self._wake.set()

    def settle(self, envelope_id: int) -> None:
        self.pending.pop(envelope_id, None)
        if self.retired and not self.pending:
            self._wake.set()

    async def run(self, call: Any) -> None:
        """Carry frames until the stream ends; past its age, until its last request is answered."""
        self._call = call
        age = random.uniform(*STREAM_AGE_SECONDS)  # noqa: S311 -- jitter
        retire = asyncio.get_running_loop().call_later(age, self._retire)
        writer = asyncio.create_task(self._write(call))
        try:
            await self._read(call)
        finally:
            retire.cancel()
            writer.cancel()
            call.cancel()

    def _retire(self) -> None:
        self.retired = True
        self._replica.closed(self)
        self._wake.set()

    async def _read(self, call: Any) -> None:
        opened = False
        async for frame in call:
            if frame.HasField("load"):
                self._replica.told(frame.load)
            if not opened:
                opened = True
                self._replica.opened(self)
            for reply in frame.replies:
                pending = self.pending.get(reply.id)
                if pending is not None and not pending.reply.done():
                    pending.reply.set_result(reply)

    async def _write(self, call: Any) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._outbox:
                await call.write(self._frame())
            if self.retired and not self.pending:
                await call.done_writing()
                return

    def _frame(self) -> exchange_pb2.ExchangeRequest:
        count = size = 0
        while count < len(self._outbox) and (not count or size < FRAME_BYTES):
            size += self._outbox[count].ByteSize()
            count += 1
        frame = exchange_pb2.ExchangeRequest(envelopes=self._outbox[:count])
        del self._outbox[:count]
        return frame

    def expire(self, at: float) -> None:
        for pending in self.pending.values():
            if pending.deadline <= at and not pending.reply.done():
                pending.reply.set_exception(DeadlineExceededError("the deadline passed before the answer was there"))

    def end(self) -> None:
        if self._call is not None:
            self._call.cancel()

    def lose(self) -> None:
        """Tell everyone who waits that the stream is gone."""
        for pending in self.pending.values():
            if not pending.reply.done():
                pending.reply.set_exception(ReplicaLostError(self._replica.address))
