"""The gateway's side of one inference replica: Exchange streams, requests in flight, health.

Owns the connection and the frames. The choice of a replica, and the resends when a replica is lost, are router.py's.
"""

import asyncio
import logging
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway.calls.request import Answer
from gateway.replicas.carrier import Carrier, GrpcStream, LocalStream, StreamLostError
from gateway.replicas.discovery import Endpoint
from gateway.replicas.outbox import Outbox
from gateway.replicas.outlier import Outlier
from gateway.replicas.window import Key, Window
from market_inference.contract import deadline
from market_inference.contract.errors import DeadlineExceededError, InternalError, is_sound
from market_inference.contract.generated import exchange_pb2
from runtime import listen
from runtime.logs import fields
from runtime.tasks import Tasks

log = logging.getLogger(__name__)

CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # This bound, 60 s by default, applies to keepalive pings, too.
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Each Replica has its own connection, even when two have the same address, as after a restart.
    ("grpc.use_local_subchannel_pool", 1),
    # The connection is direct, even when the environment names a proxy.
    ("grpc.enable_http_proxy", 0),
)
# States of a replica; `away`: not connected, or not healthy.
STATES = ("ready", "ejected", "draining", "away")
# A stream is replaced after this time, so that new replicas and connections get their share.
STREAM_AGE_SECONDS = (240.0, 360.0)


class ReplicaLostError(Exception):
    """The stream that carried a request ended before the answer: the request may be sent to another replica."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of the connection to a replica. Times are in seconds; `credentials` are for TLS."""

    streams: int = 1
    health_interval: float = 1.0
    health_timeout: float = 2.0
    most_in_flight: int = 4096
    credentials: grpc.ChannelCredentials | None = None


class Pending:
    """One request in flight on a stream to a replica. `on_answer` gets the reply, or the error in its place, once."""

    __slots__ = ("_envelope_id", "_on_answer", "_stream", "calls", "deadline", "expected_seconds", "key", "sent_at")

    def __init__(
        self,
        stream: "_Stream",
        envelope: exchange_pb2.Envelope,
        expected_seconds: float,
        deadline: float,
        on_answer: Callable[[Answer], None],
    ) -> None:
        self._stream = stream
        self._envelope_id = envelope.id
        self._on_answer = on_answer
        self.key: Key = (envelope.client, envelope.priority)
        self.calls = envelope.calls or 1
        self.deadline = deadline
        self.expected_seconds = expected_seconds
        # On the monotonic clock; infinite while the request waits for earlier ones of its client (window.py).
        self.sent_at = math.inf

    def answer(self, answer: Answer) -> None:
        self._stream.remove(self._envelope_id)
        self._on_answer(answer)

    def withdraw(self, items: Sequence[int] = ()) -> None:
        """Tell the replica that no caller waits for these items, by place; none given: for the whole request."""
        self._stream.cancel(self._envelope_id, items)

    def abandon(self) -> None:
        """Withdraw the request; an answer that still comes is ignored."""
        self.withdraw()
        self._stream.remove(self._envelope_id)

    def expire(self) -> None:
        self.withdraw()
        self.answer(DeadlineExceededError("the deadline passed before the answer was there"))


class Replica:
    """The replica at one endpoint. Runs on the event loop; calls `changed` when `ready` may have changed."""

    def __init__(self, endpoint: Endpoint, changed: Callable[[], None], settings: Settings) -> None:
        self.endpoint = endpoint
        self.address = endpoint.address
        self.outstanding_seconds = 0.0
        self.in_flight = 0
        self.healthy = False
        self.draining = False
        self.outlier = Outlier()
        self._changed = changed
        self._settings = settings
        self._channel = _channel(endpoint, settings.credentials)
        self._health = health_pb2_grpc.HealthStub(self._channel)
        # The streams that take new requests, and all streams.
        self._open: list[_Stream] = []
        self._streams: set[_Stream] = set()
        self._keeping = Tasks()
        self._carrying = Tasks()
        self._check_now = asyncio.Event()
        # Called when the replica is given up: ends what other streams to the replica carry.
        self.on_give_up: set[Callable[[], None]] = set()
        self._return: asyncio.TimerHandle | None = None
        self._queued_seconds = 0.0
        # The instant of the last frame from the replica, on the monotonic clock.
        self._heard = 0.0

    @property
    def ready(self) -> bool:
        """Takes new work."""
        return self.healthy and not self.draining and bool(self._open)

    @property
    def state(self) -> str:
        """One of STATES, for the metrics."""
        if self.draining:
            return "draining"
        if not self.ready:
            return "away"
        return "ejected" if self.outlier.ejected else "ready"

    @property
    def full(self) -> bool:
        """Has as many requests in flight as a replica may have."""
        return self.in_flight >= self._settings.most_in_flight

    def busy(self, at: float) -> float:
        """Expected seconds of work ahead: the queue's last report less the time since, plus the requests in flight."""
        return max(0.0, self._queued_seconds - (at - self._heard)) + self.outstanding_seconds

    def start(self) -> None:
        """Connect, stay connected and check the health, until close()."""
        for _ in range(self._settings.streams):
            self._keeping.spawn(self._keep_stream())
        self._keeping.spawn(self._watch_health())

    def send(
        self,
        envelope: exchange_pb2.Envelope,
        expected_seconds: float,
        until: float,
        on_answer: Callable[[Answer], None],
        field: str = "",
        body: bytes = b"",
    ) -> Pending:
        """Send a request that is to be answered before `until`; `expected_seconds` is its time on the device.

        `body` is the serialised request for the envelope's field `field`. `on_answer` gets the reply, ReplicaLostError
        or DeadlineExceededError. Raises ReplicaLostError when no stream is open.
        """
        stream = min(self._open, key=lambda stream: len(stream.pending), default=None)
        if stream is None:
            raise ReplicaLostError(self.address)
        pending = Pending(stream, envelope, expected_seconds, until, on_answer)
        self.outstanding_seconds += expected_seconds
        self.in_flight += pending.calls
        stream.send(envelope, pending, field, body)
        return pending

    def answered(self, pending: Pending) -> None:
        """A request is no longer in flight."""
        self.in_flight -= pending.calls
        self.outstanding_seconds = max(0.0, self.outstanding_seconds - pending.expected_seconds)

    def exchange(self) -> Carrier:
        """A new Exchange stream to this replica."""
        path = listen.exchange_path(self.address)
        return LocalStream(path) if path else GrpcStream(self._channel)

    def succeeded(self) -> None:
        """Note a good answer."""
        if self.outlier.failures:
            was_ejected = self.outlier.ejected
            self.outlier.succeeded()
            if was_ejected:
                self._returned()

    def failed(self) -> None:
        """Note a failure of the replica; several failures in a row eject the replica for a while."""
        seconds = self.outlier.failed()
        if seconds:
            log.warning("replica ejected", extra=fields(replica=self.address, seconds=seconds))
            self._return = asyncio.get_running_loop().call_later(seconds, self._try_again)
            self._changed()

    def _try_again(self) -> None:
        self.outlier.returned()
        self._returned()

    def _returned(self) -> None:
        if self._return is not None:
            self._return.cancel()
            self._return = None
        log.info("replica returned", extra=fields(replica=self.address))
        self._changed()

    async def _keep_stream(self) -> None:
        while True:
            stream = _Stream(self)
            self._carrying.spawn(self._carry(stream))
            await stream.successor_due.wait()
            if stream.state is not _State.AGED:
                await asyncio.sleep(random.uniform(0.05, 0.2))  # noqa: S311 -- jitter

    async def _carry(self, stream: "_Stream") -> None:
        self._streams.add(stream)
        try:
            await stream.run(self.exchange())
        except StreamLostError as error:
            if stream.state is not _State.CONNECTING:
                log.warning("replica stream lost", extra=fields(replica=self.address, code=error.code))
                self.failed()
        finally:
            self._streams.discard(stream)
            self.closed(stream)
            stream.lose()

    def opened(self, stream: "_Stream") -> None:
        """Note the first answer on a stream; the next health check decides whether the replica takes work."""
        self._open.append(stream)
        old = next((other for other in self._open if other.state is _State.AGED), None)
        if old is not None:
            old.retire()
        self._check_now.set()

    def closed(self, stream: "_Stream") -> None:
        """Note that a stream takes no more requests."""
        if stream in self._open:
            self._open.remove(stream)
        if not self._open:
            self.healthy = self.draining = False
        stream.successor_due.set()
        self._changed()

    def update_load(self, load: exchange_pb2.Load) -> None:
        """Note the load in a frame, also as a sign of life."""
        self._heard = deadline.now()
        self._queued_seconds = load.queued_seconds
        if load.draining != self.draining:
            self.draining = load.draining
            self._changed()

    async def _watch_health(self) -> None:
        """Check the health at intervals. Only a replica that answers in time gets requests."""
        while True:
            await self._check_now.wait()
            self._check_now.clear()
            if self._open:
                await self._check_health()
                delay = self._settings.health_interval * random.uniform(0.9, 1.1)  # noqa: S311 -- jitter
                asyncio.get_running_loop().call_later(delay, self._check_now.set)

    async def _check_health(self) -> None:
        """A late health check is no failure while the replica sends other answers: the replica is busy, not hung."""
        began = deadline.now()
        try:
            answer = await self._health.Check(health_pb2.HealthCheckRequest(), timeout=self._settings.health_timeout)
            self._set_health(answer.status == health_pb2.HealthCheckResponse.SERVING)
        except grpc.aio.AioRpcError as error:
            late = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            if late and self._heard > began:
                return
            self._set_health(False)
            if late:
                self._give_up()

    def checked(self, reply: exchange_pb2.Reply, outcome: str) -> exchange_pb2.Reply:
        """The reply; with INTERNAL, where it is neither the outcome nor an error that can be passed on."""
        found = reply.WhichOneof("outcome")
        if found != outcome and not (found == "error" and is_sound(reply.error)):
            log.error("reply is none", extra=fields(replica=self.address, outcome=found, code=reply.error.code))
            reply.error.CopyFrom(InternalError().status(""))
        return reply

    def _set_health(self, healthy: bool) -> None:
        if healthy != self.healthy:
            log.info("replica health", extra=fields(replica=self.address, healthy=healthy))
            self.healthy = healthy
            self._changed()

    def _give_up(self) -> None:
        """The replica hangs: end its streams, so that the requests in flight are sent to other replicas."""
        log.warning("replica does not answer", extra=fields(replica=self.address, in_flight=self.in_flight))
        for stream in tuple(self._streams):
            stream.end()
        for end in tuple(self.on_give_up):
            end()

    def expire(self, at: float) -> None:
        """Fail requests without an answer at their deadline."""
        for stream in self._streams:
            stream.expire(at)

    async def leave(self) -> None:
        """Take no new requests, wait for the requests in flight, and disconnect."""
        await self._keeping.cancel()
        for stream in tuple(self._open):
            stream.retire()
        if self._carrying:
            await asyncio.wait(self._carrying)
        await self.close()

    async def close(self) -> None:
        if self._return is not None:
            self._return.cancel()
        await self._keeping.cancel()
        await self._carrying.cancel()
        await self._channel.close()


def _channel(endpoint: Endpoint, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    if credentials is None or listen.is_unix(endpoint.address):
        return grpc.aio.insecure_channel(endpoint.address, options=CHANNEL_OPTIONS)
    name = (("grpc.ssl_target_name_override", endpoint.name), ("grpc.default_authority", endpoint.name))
    return grpc.aio.secure_channel(endpoint.address, credentials, options=(*CHANNEL_OPTIONS, *name))


class _State(Enum):
    CONNECTING = auto()
    """The replica has not answered yet."""
    OPEN = auto()
    """Takes requests."""
    AGED = auto()
    """Past its age: takes requests until a successor is open, so that the replica always has a stream."""
    RETIRED = auto()
    """Takes no more requests, and ends with its last answer."""


class _Stream:
    """One Exchange stream for requests."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._outbox = Outbox()
        self._window = Window()
        self._exchange: Carrier | None = None
        self.pending: dict[int, Pending] = {}
        self.state = _State.CONNECTING
        # Set once a successor is to be opened.
        self.successor_due = asyncio.Event()

    def send(self, envelope: exchange_pb2.Envelope, pending: Pending, field: str, body: bytes) -> None:
        def write() -> None:
            pending.sent_at = deadline.now()
            envelope.timeout_us = deadline.microseconds_left(pending.deadline, pending.sent_at)
            self._outbox.add(envelope, field, body)

        self.pending[envelope.id] = pending
        self._window.add(pending, write)

    def cancel(self, envelope_id: int, items: Sequence[int]) -> None:
        pending = self.pending.get(envelope_id)
        if pending is None or (not items and self._outbox.discard(envelope_id)):
            return

        def write() -> None:
            cancel = exchange_pb2.ExchangeCancel(items=items)
            self._outbox.add(exchange_pb2.Envelope(id=envelope_id, cancel=cancel))

        if not self._window.follow(pending, write):
            write()

    def remove(self, envelope_id: int) -> None:
        """A request is answered or abandoned."""
        pending = self.pending.pop(envelope_id, None)
        if pending is not None:
            self._replica.answered(pending)
            self._window.remove(pending)
        if self._complete():
            self._outbox.wake()

    def _complete(self) -> bool:
        return self.state is _State.RETIRED and not self.pending

    async def run(self, exchange: Carrier) -> None:
        """Carry frames until the stream ends; after its age, until the last request is answered.

        Raises StreamLostError.
        """
        self._exchange = exchange
        age = random.uniform(*STREAM_AGE_SECONDS)  # noqa: S311 -- jitter
        aging = asyncio.get_running_loop().call_later(age, self._age)
        writer = asyncio.create_task(self._outbox.write(exchange, self._complete))
        try:
            await exchange.read(self._received)
        finally:
            aging.cancel()
            writer.cancel()
            exchange.cancel()

    def _age(self) -> None:
        if self.state is _State.OPEN:
            self.state = _State.AGED
        self.successor_due.set()

    def retire(self) -> None:
        self.state = _State.RETIRED
        self._replica.closed(self)
        self._outbox.wake()

    def _received(self, frame: exchange_pb2.ExchangeResponse) -> None:
        if frame.HasField("load"):
            self._replica.update_load(frame.load)
        if self.state is _State.CONNECTING:
            self.state = _State.OPEN
            self._replica.opened(self)
        for reply in frame.replies:
            pending = self.pending.get(reply.id)
            if pending is not None:
                pending.answer(self._replica.checked(reply, "response"))

    def expire(self, at: float) -> None:
        for pending in [pending for pending in self.pending.values() if pending.deadline <= at]:
            pending.expire()

    def end(self) -> None:
        if self._exchange is not None:
            self._exchange.cancel()

    def lose(self) -> None:
        """The stream has ended: requests in flight on the stream have no answer."""
        for pending in list(self.pending.values()):
            pending.answer(ReplicaLostError(self._replica.address))
