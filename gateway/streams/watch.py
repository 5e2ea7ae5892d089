"""One Watch call: a live session, which stays on the replica that holds its state.

Owns the way of bars and answers between the caller and the link to the replica: the bound on bars not yet answered,
which is also the backpressure from a slow reader, conflation, and the idle time-out. What a bar means is the inference
service's.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from gateway.streams.session_link import Link
from market_inference.contract import deadline, methods
from market_inference.contract.errors import (
    InternalError,
    InvalidRequestError,
    RateLimitedError,
    RemoteError,
    RequestTooLargeError,
    ServiceError,
    SessionIdleError,
    SessionLostError,
    Violation,
)
from market_inference.contract.generated import exchange_pb2, inference_pb2
from market_inference.contract.validation import bounds
from runtime.logs import fields

log = logging.getLogger(__name__)

_METHOD = methods.METHODS["Watch"]
WINDOW = 256
"""Bars of one session that are sent to the replica and not yet answered to the caller."""


BARS_PAID_AT_ONCE = 64
"""So that a budget that several gateways share is not asked at every bar."""

Pay = Callable[[int], Awaitable[None]]
"""Takes so many bars' cost from the caller's budget. Raises RateLimitedError or QuotaExceededError."""


class _Answer(NamedTuple):
    response: bytes
    replaceable: bool
    # It answers a bar; the first answer tells that the session is open.
    bar: bool


class Watch:
    """One caller's session. `envelope` is ready but for its body; its id is the session's."""

    def __init__(
        self, link: Link, envelope: exchange_pb2.Envelope, *, idle_seconds: float, pay: Pay, window: int = WINDOW
    ) -> None:
        self._link = link
        self._id = envelope.id
        self._request_id = envelope.request_id
        self._idle_seconds = idle_seconds
        self._window = window
        self._latest = envelope.watch_open.delivery == inference_pb2.WATCH_DELIVERY_LATEST
        self._pay = pay
        self._paid = 0
        self._unanswered = 0
        self._answers: deque[_Answer] = deque()
        self._over: ServiceError | None = None
        self._finished = False
        self._heard = deadline.now()
        self._look: asyncio.TimerHandle | None = None
        self._opened = False
        self._ready = asyncio.Event()
        self._place_free = asyncio.Event()
        link.open(envelope, self)

    async def run(self, context: Any) -> None:
        """Serve until the caller has sent the last bar and has its answer. Raises ServiceError for any other end."""
        reader = asyncio.create_task(self._read(context))
        self._look_later(self._idle_seconds)
        try:
            await self._write(context)
        finally:
            reader.cancel()
            if self._look is not None:
                self._look.cancel()
            self._link.close(self._id)

    def told(self, reply: exchange_pb2.Reply) -> None:
        """A reply of the replica's."""
        if reply.HasField("error"):
            self._end(RemoteError(reply.error))
            return
        answer = _Answer(reply.watch.response, reply.watch.replaceable, self._opened)
        self._opened = True
        if self._latest and answer.replaceable and self._answers and self._answers[-1].replaceable:
            self._answers.pop()
            self._answered()
        self._answers.append(answer)
        self._ready.set()

    def lost(self) -> None:
        """The link has ended."""
        self._end(SessionLostError("the replica that held the session is gone", retry_after=0.0))

    def drain(self, refusal: ServiceError) -> None:
        """End with `refusal`: the caller opens the session again, at another gateway."""
        self._end(refusal)

    def _end(self, error: ServiceError) -> None:
        self._over = self._over or error
        self._ready.set()

    def _answered(self) -> None:
        self._unanswered -= 1
        self._place_free.set()

    async def _read(self, context: Any) -> None:
        try:
            while True:
                while self._unanswered >= self._window:
                    self._place_free.clear()
                    await self._place_free.wait()
                raw = await context.read()
                if not isinstance(raw, bytes):  # grpc.aio.EOF
                    return
                self._heard = deadline.now()
                await self._afford()
                self._take(raw)
        except ServiceError as error:
            self._end(error)
        except Exception:  # a bug of ours must not look like a caller who has finished
            log.exception("bug", extra=fields(request_id=self._request_id, method="Watch"))
            self._end(InternalError())
        finally:
            self._finished = True
            self._ready.set()

    async def _afford(self) -> None:
        """Pay for one bar. Beyond the caller's rate bars are slowed, not refused. Raises QuotaExceededError."""
        while not self._paid:
            try:
                await self._pay(BARS_PAID_AT_ONCE)
                self._paid = BARS_PAID_AT_ONCE
            except RateLimitedError as error:
                await asyncio.sleep(error.retry_after or 0.1)
        self._paid -= 1

    def _take(self, raw: bytes) -> None:
        """Pass a bar on. What is none is refused at once, ahead of the answers to bars that are on their way."""
        self._unanswered += 1
        try:
            message = _read(raw)
        except InvalidRequestError as error:
            self._refuse(error)
            return
        if message.HasField("bar") and message.bar.HasField("bar"):
            self._link.send(exchange_pb2.Envelope(id=self._id, watch_bar=message.bar))
        else:
            self._refuse(InvalidRequestError([Violation("bar", "must be set: the session is open", "required")]))

    def _refuse(self, error: InvalidRequestError) -> None:
        response = inference_pb2.WatchResponse(error=error.status(self._request_id))
        self._answers.append(_Answer(response.SerializeToString(), False, True))
        self._ready.set()

    async def _write(self, context: Any) -> None:
        while not (self._finished and self._opened and not self._answers and not self._unanswered):
            await self._ready.wait()
            self._ready.clear()
            while self._answers:
                answer = self._answers.popleft()
                await context.write(answer.response)
                if answer.bar:
                    self._answered()
            if self._over is not None:
                raise self._over

    def _look_later(self, seconds: float) -> None:
        self._look = asyncio.get_running_loop().call_later(seconds, self._look_whether_idle)

    def _look_whether_idle(self) -> None:
        left = self._heard + self._idle_seconds - deadline.now()
        if left > 0:
            self._look_later(left)
        else:
            self._end(SessionIdleError(f"no bar came for {self._idle_seconds:g} s"))


def _read(raw: bytes) -> inference_pb2.WatchRequest:
    """A message of a Watch call, whose size is checked before it is made. Raises InvalidRequestError."""
    if len(raw) > _METHOD.max_request_bytes:
        raise RequestTooLargeError(_METHOD.max_request_bytes, len(raw))
    bounds.check(raw, inference_pb2.WatchRequest.DESCRIPTOR)
    try:
        return inference_pb2.WatchRequest.FromString(raw)
    except DecodeError as error:
        raise InvalidRequestError([Violation("", "the bytes are not a WatchRequest message", "decode")]) from error


def read_open(raw: object) -> inference_pb2.WatchOpen:
    """The first message of a Watch call, if there was one. Raises InvalidRequestError."""
    message = _read(raw if isinstance(raw, bytes) else b"")
    if not message.HasField("open"):
        raise InvalidRequestError([Violation("open", "must be set in the first message", "required")])
    return message.open
