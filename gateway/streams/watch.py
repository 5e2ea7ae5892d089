"""One Watch call: a live session on the replica that holds the session's state.

Owns the way of bars and answers between the caller and the link to the replica: the limit of bars not yet answered, by
which a slow reader slows its own sends (backpressure), conflation, and the idle time-out. The session's state and the
meaning of a bar are the inference service's.

What waits counts with its bytes, per client and in all: the opening until its answer, a bar until its answer has left,
answers and refusals until they have left. A message after the opening is small by a limit of its own, and fields that
the contract does not know end here. While the client has half of its bytes in flight, its sessions are read bar by bar:
the next one after the answer to the last one.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from gateway.access.in_flight import InFlight
from gateway.streams.session_link import Link
from gateway.streams.stalled import Writes
from market_inference.contract import deadline, methods, units
from market_inference.contract.errors import (
    InternalError,
    InvalidRequestError,
    OverloadedError,
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
"""Limit of bars of one session that have been sent to the replica and are not answered yet."""
BAR_BYTES = 512
"""What a bar counts for: its message in the queues of gateway and replica, with the objects around the message."""
BARS_CHARGED_AT_ONCE = 64
UNITS_CHARGED_AT_ONCE = 4096
"""Bounds of a charge in advance, in bars like the next one and in units: a budget that several gateways share is not
asked at every bar."""

Charge = Callable[[int], Awaitable[None]]
"""Charges units to the client's budget. Raises RateLimitedError or QuotaExceededError."""


class _Answer(NamedTuple):
    response: bytes
    # May a newer update replace it, and does it have a forecast, which only a newer forecast may replace?
    replaceable: bool
    forecast: bool
    # False for the first answer: the session is open.
    bar: bool

    def replaces(self, older: "_Answer") -> bool:
        """For a reader of the newest updates."""
        return self.replaceable and older.replaceable and (self.forecast or not older.forecast)


class Watch:
    """One caller's session. `envelope` opens the session at the replica, under the envelope's id.

    `memory` counts the bytes of all sessions and streams. `on_opened` is called at the first answer.
    """

    def __init__(
        self,
        link: Link,
        envelope: exchange_pb2.Envelope,
        memory: InFlight,
        *,
        idle_seconds: float,
        writes: Writes,
        charge: Charge,
        on_opened: Callable[[], None],
        window: int = WINDOW,
    ) -> None:
        self._link = link
        self._client = envelope.client
        self._memory = memory
        self._writes = writes
        self._id = envelope.id
        self._request_id = envelope.request_id
        self._idle_seconds = idle_seconds
        self._window = window
        self._latest = envelope.watch_open.delivery == inference_pb2.WATCH_DELIVERY_LATEST
        self._charge_units = charge
        self._units = units.BarUnits(envelope.watch_open)
        # Units charged in advance.
        self._charged = 0
        self._on_opened = on_opened
        self._unanswered = 0
        # Bytes of bars without an answer.
        self._held_bytes = 0
        self._answers: deque[_Answer] = deque()
        self._error: ServiceError | None = None
        self._finished = False
        self._last_bar = deadline.now()
        self._idle_timer: asyncio.TimerHandle | None = None
        self._opened = asyncio.Event()
        # Bars sent to the replica, and answered by the replica.
        self._sent = 0
        self._met = 0
        # Refusals by this gateway, each with the number of bars sent before: answers keep the order of the messages.
        self._refusals: deque[tuple[int, _Answer]] = deque()
        self._ready = asyncio.Event()
        self._place_free = asyncio.Event()
        link.open(envelope, self.take_reply, self.lose)

    async def run(self, context: Any) -> None:
        """Serve until the caller has the answer to the last bar. Raises ServiceError for any other end."""
        reader = asyncio.create_task(self._read(context))
        self._check_idle_later(self._idle_seconds)
        try:
            await self._write(context)
        finally:
            reader.cancel()
            if self._idle_timer is not None:
                self._idle_timer.cancel()
            self._give_up()

    def _give_up(self) -> None:
        """End the session at the replica, and drop what has not been written."""
        self._link.close(self._id)
        while self._answers:
            self._release(self._answers.popleft())
        while self._refusals:
            self._release(self._refusals.popleft()[1])
        self._memory.leave(self._client, self._held_bytes)
        self._held_bytes = 0

    def _release(self, answer: _Answer) -> None:
        self._memory.leave(self._client, len(answer.response))

    def take_reply(self, reply: exchange_pb2.Reply) -> None:
        """Queue a reply of the replica for the caller."""
        if reply.HasField("error"):
            self._end(RemoteError(reply.error))
            return
        watch, opened = reply.watch, self._opened.is_set()
        answer = _Answer(watch.response, watch.replaceable, watch.forecast, opened)
        if opened:
            self._met += 1
        elif not self._open(answer.response):
            return
        while self._latest and self._answers and answer.replaces(self._answers[-1]):
            self._release(self._answers.pop())
            self._answered()
        try:
            self._hold(answer)
        except OverloadedError as error:
            self._end(error)
        else:
            self._queue(answer)
            self._queue_refusals()

    def _open(self, response: bytes) -> bool:
        """Note the answer to the opening; False for bytes that are none, which end the session."""
        try:
            opened = inference_pb2.WatchResponse.FromString(response).opened
        except DecodeError:
            log.exception("reply is none", extra=fields(request_id=self._request_id))
            self._end(InternalError())
            return False
        self._units.opened(opened)
        self._opened.set()
        self._on_opened()
        return True

    def _queue_refusals(self) -> None:
        """Queue the refusals whose turn has come."""
        while self._refusals and self._refusals[0][0] <= self._met:
            self._queue(self._refusals.popleft()[1])

    def _hold(self, answer: _Answer) -> None:
        """Raises OverloadedError."""
        self._memory.enter(self._client, len(answer.response))

    def _queue(self, answer: _Answer) -> None:
        self._answers.append(answer)
        self._ready.set()

    def lose(self) -> None:
        """The link to the replica has ended."""
        self._end(SessionLostError("the replica that held the session is gone", retry_after=0.0))

    def drain(self, refusal: ServiceError) -> None:
        """End with `refusal`: the caller opens the session again, at another gateway."""
        self._end(refusal)

    def _end(self, error: ServiceError) -> None:
        self._error = self._error or error
        self._ready.set()

    def _answered(self) -> None:
        self._unanswered -= 1
        self._place_free.set()
        self._held_bytes -= BAR_BYTES
        self._memory.leave(self._client, BAR_BYTES)

    async def _read(self, context: Any) -> None:
        try:
            await self._opened.wait()  # the answer says what a bar costs
            while await self._read_one(context):
                pass
        except ServiceError as error:
            self._end(error)
        except Exception:  # a bug must not look like the end of the caller's bars
            log.exception("bug", extra=fields(request_id=self._request_id, method="Watch"))
            self._end(InternalError())
        finally:
            self._finished = True
            self._ready.set()

    async def _read_one(self, context: Any) -> bool:
        """Read a message and send its bar; False after the last one. No message is kept while the next is awaited."""
        while self._unanswered >= (1 if self._memory.crowded(self._client) else self._window):
            self._place_free.clear()
            if self._memory.crowded(self._client):
                await self._memory.wait(self._client, self._place_free)
            else:
                await self._place_free.wait()
        raw = await context.read()
        if not isinstance(raw, bytes):  # grpc.aio.EOF
            return False
        self._last_bar = deadline.now()
        bar = _bar(raw)
        del raw
        await self._memory.enter_in_turn(self._client, BAR_BYTES)
        self._held_bytes += BAR_BYTES
        self._unanswered += 1
        await self._charge(self._units.of(bar.sequence) if isinstance(bar, inference_pb2.WatchBar) else 1)
        self._take(bar)
        return True

    async def _charge(self, cost: int) -> None:
        """Charge a bar's units. Bars above the client's rate wait and are not refused. Raises QuotaExceededError."""
        ahead = max(cost, min(BARS_CHARGED_AT_ONCE * cost, UNITS_CHARGED_AT_ONCE))
        while self._charged < cost:
            try:
                await self._charge_units(ahead)
                self._charged += ahead
            except RateLimitedError as error:
                await asyncio.sleep(error.retry_after or 0.1)
        self._charged -= cost

    def _take(self, bar: inference_pb2.WatchBar | InvalidRequestError) -> None:
        """Send a bar to the replica. A message without a bar is refused at once."""
        if isinstance(bar, InvalidRequestError):
            self._refuse(bar)
        else:
            self._sent += 1
            self._link.send(exchange_pb2.Envelope(id=self._id, watch_bar=bar))

    def _refuse(self, error: InvalidRequestError) -> None:
        response = inference_pb2.WatchResponse(error=error.status(self._request_id))
        answer = _Answer(response.SerializeToString(), replaceable=False, forecast=False, bar=True)
        self._hold(answer)
        self._refusals.append((self._sent, answer))
        self._queue_refusals()

    async def _write(self, context: Any) -> None:
        while not (self._finished and not self._answers and not self._unanswered):
            await self._ready.wait()
            self._ready.clear()
            while self._answers:
                answer = self._answers.popleft()
                try:
                    await self._writes.write(context, answer.response, self._give_up)
                finally:
                    self._release(answer)
                if answer.bar:
                    self._answered()
            if self._error is not None:
                raise self._error

    def _check_idle_later(self, seconds: float) -> None:
        self._idle_timer = asyncio.get_running_loop().call_later(seconds, self._check_idle)

    def _check_idle(self) -> None:
        left = self._last_bar + self._idle_seconds - deadline.now()
        if left > 0:
            self._check_idle_later(left)
        else:
            self._end(SessionIdleError(f"no bar came for {self._idle_seconds:g} s"))


def _parse(raw: bytes) -> inference_pb2.WatchRequest:
    """Raises InvalidRequestError."""
    try:
        return inference_pb2.WatchRequest.FromString(raw)
    except DecodeError as error:
        raise InvalidRequestError([Violation("", "the bytes are not a WatchRequest message", "decode")]) from error


def _bar(raw: bytes) -> inference_pb2.WatchBar | InvalidRequestError:
    """The bar of a message after the opening, without fields unknown to the contract; or the message's mistake."""
    if len(raw) > _METHOD.max_further_request_bytes:
        return RequestTooLargeError(_METHOD.max_further_request_bytes, len(raw), "bar")
    try:
        message = _parse(raw)
    except InvalidRequestError as error:
        return error
    bar = message.bar
    if not bar.HasField("bar"):
        return InvalidRequestError([Violation("bar", "must be set: the session is open", "required")])
    bar.DiscardUnknownFields()
    return bar


def read_open(raw: object) -> inference_pb2.WatchOpen:
    """The opening in the first message of a Watch call, without fields that the contract does not know.

    The message's size is checked, and its lists are counted, before the message is parsed. Raises InvalidRequestError.
    """
    raw = raw if isinstance(raw, bytes) else b""
    if len(raw) > _METHOD.max_request_bytes:
        raise RequestTooLargeError(_METHOD.max_request_bytes, len(raw))
    bounds.check(raw, inference_pb2.WatchRequest.DESCRIPTOR)
    message = _parse(raw)
    if not message.HasField("open"):
        raise InvalidRequestError([Violation("open", "must be set in the first message", "required")])
    message.open.DiscardUnknownFields()
    return message.open
