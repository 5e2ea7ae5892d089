"""Live sessions: one bar in, fresh values out.

Owns a session's connection: sending, receiving, and reopening the session after a broken connection or a lost replica.
session.py owns the content of messages.
"""

import asyncio
import math
import queue
import random
import time
import uuid
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Self

import grpc

from market_inference import errors
from market_inference.client import trace
from market_inference.client.channels import Channels, SharedChannel
from market_inference.client.connection import Connection
from market_inference.client.inputs import arguments
from market_inference.client.session import Record, Update
from market_inference.client.types import BarLike, Time
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.contract.metadata import AUTHORIZATION, REQUEST_ID, TRACEPARENT
from market_inference.errors import ClosedError, MarketInferenceError, OverloadedError, UnavailableError

WINDOW = 256
"""Bars in flight; append() waits beyond it."""
BUFFER = 1024
"""Updates without a reader; beyond it the session stops reading from the connection."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0
STEADY_SECONDS = 2.0
"""A session that was open for so long was not lost at once: the attempts to reopen are counted anew."""
RECONNECT_SECONDS = 300.0
"""How long a lost session is reopened, counted from the loss."""
FINISHED = "this session takes no more bars after finish()"


def pause(tried: int, draw: float) -> float:
    """Seconds before the next attempt to open a session again: doubling, jittered; `draw` is uniform in [0, 1)."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(tried, 10)) * (0.5 + 0.5 * draw)


class _Reopening:
    """The attempts to reopen a lost session, and their end after `seconds`.

    Where many sessions move at once, the replicas that are left, or the client's rate, may have no room yet: a refusal
    that names a time to come back ends a first opening only.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = 0.0 if seconds == 0 else arguments.seconds(seconds, "reconnect_seconds")
        self._was_open = False
        self._tried, self._since = 0, time.monotonic()
        self._steady = math.inf

    def opened(self) -> None:
        self._was_open = True
        self._steady = time.monotonic() + STEADY_SECONDS

    def pause_after(self, failure: MarketInferenceError) -> float:
        """Seconds to wait; raises the failure when another attempt is pointless."""
        now = time.monotonic()
        if self._tried == 0 or now >= self._steady:
            self._tried, self._since = 0, now
        self._steady = math.inf
        draw = random.random()  # noqa: S311  # jitter
        seconds = pause(self._tried, draw)
        again = isinstance(failure, UnavailableError)
        if self._was_open and self._tried and isinstance(failure, OverloadedError) and failure.retry_after is not None:
            again, seconds = True, max(seconds, failure.retry_after * (1 + 0.25 * draw))
        self._tried += 1
        if not again or now + seconds > self._since + self._seconds:
            raise failure
        return seconds


def metadata(key: str, request_id: str = "") -> tuple[tuple[str, str], ...]:
    """The request id or a new one, the caller's trace, and the key; the last two where there are any."""
    own = [(REQUEST_ID, request_id or str(uuid.uuid4()))]
    if parent := trace.active():
        own.append((TRACEPARENT, parent))
    if key:
        own.append((AUTHORIZATION, f"Bearer {key}"))
    return tuple(own)


class AsyncWatch:
    """A live session, made by AsyncClient.watch().

        async with client.watch("AAPL", bars, indicators=["RSI", "MACD"]) as session:
            await session.append({"close": 101.5, ...})
            async for update in session:
                update["RSI"]

    append() returns when the bar is on its way; iteration gives the updates in the order of the bars. Different tasks
    may append and iterate. A session without a reader stops after some hundred bars.
    """

    def __init__(
        self,
        channels: Channels,
        connection: Connection,
        record: Record,
        reconnect_seconds: float,
        latest: bool,
        *,
        request_id: str = "",
        window: int = WINDOW,
        buffer: int = BUFFER,
    ) -> None:
        self._channels = channels
        self._request_id = request_id
        self._window = window
        self._buffer = buffer
        self._connection = connection
        self._record = record
        self._reopening = _Reopening(reconnect_seconds)
        self._latest = latest
        self._updates: deque[Update] = deque()
        self._sent = 0
        self._ending = False
        self._failure: MarketInferenceError | None = None
        self._changed = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self._is_open = False
        self.reconnects = 0

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        async with self._changed:
            await self._changed.wait_for(lambda: self._is_open or self._failure)
        if self._failure:
            raise self._failure
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End the session without waiting for the answers to bars in flight."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._failure = self._failure or ClosedError("this session is closed")
            await self._notify()

    @property
    def sequence(self) -> int:
        """The number of the newest answered bar."""
        return self._record.sequence

    async def append(self, bar: BarLike, *, time: Time | None = None, as_of: Time | None = None) -> int:
        """Send the next bar; returns its number.

        `bar`: the close, a mapping with the columns of the session's history, a row of a frame, or an exchange's row
        [time, open, high, low, close, volume]. `time`: when the bar opened, by default the time in `bar`: a datetime, a
        pandas Timestamp, ISO 8601 text, or a number since the epoch. `as_of`: your present; the service refuses later
        bars. Raises ArgumentError for a bar that cannot be sent, and the error that ended the session.
        """
        async with self._room():
            return self._record.append(bar, time, as_of).sequence

    async def correct(self, bar: BarLike, *, as_of: Time | None = None) -> int:
        """Send the newest bar again with other values, while the bar is open; returns its number."""
        async with self._room():
            return self._record.correct(bar, as_of).sequence

    async def finish(self) -> None:
        """No more bars: iteration ends after the last update. A later append() raises ClosedError."""
        self._ending = True
        await self._notify()

    def __aiter__(self) -> AsyncIterator[Update]:
        return self

    async def __anext__(self) -> Update:
        self._require_entered()
        async with self._changed:
            await self._changed.wait_for(lambda: self._updates or self._failure or self._done)
            if self._updates:
                update = self._updates.popleft()
                self._changed.notify_all()
                return update
        if self._failure:
            raise self._failure
        raise StopAsyncIteration

    @property
    def _done(self) -> bool:
        return self._ending and not self._record.pending

    def _require_entered(self) -> None:
        if self._task is None:
            raise ClosedError("enter the session first: async with client.watch(...) as session")

    @asynccontextmanager
    async def _room(self) -> AsyncGenerator[None, None]:
        """Room for a bar, which the block takes without an await: a cancelled append() has sent no bar."""
        self._require_entered()
        if self._ending:
            raise ClosedError(FINISHED)
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._record.pending) < self._window or self._failure)
            if self._failure:
                raise self._failure
            yield
            self._changed.notify_all()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _run(self) -> None:
        """Keep the session open until its end. A bug in here ends the session with InternalError, and is raised."""
        try:
            await self._keep_open()
        except Exception as bug:
            self._failure = errors.InternalError(
                f"a session of the client failed: {type(bug).__name__}", code="INTERNAL"
            )
            raise
        finally:
            await self._notify()

    async def _keep_open(self) -> None:
        while not self._done:
            try:
                with self._channels.stub() as stub:
                    await self._carry(stub)
            except grpc.aio.AioRpcError as lost:
                failure = failure_of(lost)
            except errors.MarketInferenceError as ended:
                failure = ended
            else:
                continue
            try:
                seconds = self._reopening.pause_after(failure)
            except MarketInferenceError as final:
                self._failure = self._connection.explain(final)
                return
            await asyncio.sleep(seconds)
            self.reconnects += 1

    async def _carry(self, stub: Any) -> None:
        """One connection: open the session, send the bars without an answer, continue until the connection ends."""
        call = stub.Watch(metadata=metadata(self._connection.key, self._request_id))
        self._sent = 0
        writer = asyncio.create_task(self._write(call))
        try:
            while True:
                response = await call.read()
                if response is grpc.aio.EOF:
                    break
                await self._take(response)
        finally:
            writer.cancel()
            call.cancel()
        if not self._done:
            raise UnavailableError("the connection ended", code="UNAVAILABLE")

    async def _write(self, call: Any) -> None:
        await call.write(self._record.open())
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._unsent or self._done)
            if self._done:
                await call.done_writing()
                return
            while self._unsent:
                message = self._record.pending[self._sent]
                self._sent += 1
                await call.write(pb.WatchRequest(bar=message))

    @property
    def _unsent(self) -> bool:
        return self._is_open and self._sent < len(self._record.pending)

    async def _take(self, response: pb.WatchResponse) -> None:
        before = len(self._record.pending)
        update = self._record.read(response)
        self._sent -= before - len(self._record.pending)
        async with self._changed:
            if update is None:
                self._is_open = True
                self._reopening.opened()
            else:
                while self._latest and self._updates and update.replaces(self._updates[-1]):
                    self._updates.pop()
                self._updates.append(update)
            self._changed.notify_all()
            await self._changed.wait_for(lambda: len(self._updates) < self._buffer)


class Watch:
    """A live session for programs without asyncio, made by Client.watch(); used by one thread.

    with client.watch("AAPL", bars, indicators=["RSI"]) as session:
        session.append(101.5)
        update = next(session)
    """

    def __init__(self, channels: Channels, connection: Connection, record: Record, reconnect_seconds: float) -> None:
        self._channels = channels
        self._channel: SharedChannel | None = None
        self._stub: Any = None
        self._connection = connection
        self._record = record
        self._reopening = _Reopening(reconnect_seconds)
        self._updates: deque[Update] = deque()
        self._outbox: queue.SimpleQueue[pb.WatchRequest | None] = queue.SimpleQueue()
        self._call: Any = None
        self._closed = self._ending = False
        self.reconnects = 0

    def __enter__(self) -> Self:
        if self._channel is None:
            self._channel = self._channels.take()
        self._stub = self._channel.stub
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the session without waiting for the answers to bars in flight."""
        self._closed = True
        self._outbox.put(None)
        if self._call is not None:
            self._call.cancel()
        channel, self._channel = self._channel, None
        if channel is not None:
            self._channels.leave(channel)

    @property
    def sequence(self) -> int:
        """The number of the newest answered bar."""
        return self._record.sequence

    def append(self, bar: BarLike, *, time: Time | None = None, as_of: Time | None = None) -> int:
        """As AsyncWatch.append."""
        self._make_room()
        return self._send(self._record.append(bar, time, as_of))

    def correct(self, bar: BarLike, *, as_of: Time | None = None) -> int:
        """As AsyncWatch.correct."""
        self._make_room()
        return self._send(self._record.correct(bar, as_of))

    def finish(self) -> None:
        """As AsyncWatch.finish."""
        self._ending = True

    def __iter__(self) -> Iterator[Update]:
        """The updates of the bars sent so far."""
        return self

    def __next__(self) -> Update:
        while not self._updates:
            self._require_open()
            if not self._record.pending:
                raise StopIteration
            self._receive()
        return self._updates.popleft()

    def _send(self, message: pb.WatchBar) -> int:
        self._outbox.put(pb.WatchRequest(bar=message))
        return message.sequence

    def _require_open(self) -> None:
        if self._call is None:
            raise ClosedError("enter the session first: with client.watch(...) as session")
        if self._closed:
            raise ClosedError("this session is closed")

    def _make_room(self) -> None:
        self._require_open()
        if self._ending:
            raise ClosedError(FINISHED)
        while len(self._record.pending) >= WINDOW:
            self._receive()

    def _open(self) -> None:
        """Open the session, in as many attempts as needed, and send the bars without an answer."""
        while True:
            self._outbox.put(None)  # ends the thread that sent for the call before
            self._outbox = queue.SimpleQueue()
            self._outbox.put(self._record.open())
            self._call = self._stub.Watch(iter(self._outbox.get, None), metadata=metadata(self._connection.key))
            try:
                self._record.read(next(self._call))
            except (grpc.RpcError, StopIteration) as lost:
                self._pause(failure_of(lost))
                continue
            except UnavailableError as unable:
                self._call.cancel()
                self._pause(unable)
                continue
            except MarketInferenceError:  # a wrong answer
                self.close()
                raise
            self._reopening.opened()
            for message in self._record.pending:
                self._send(message)
            return

    def _pause(self, failure: MarketInferenceError) -> None:
        try:
            seconds = self._reopening.pause_after(failure)
        except MarketInferenceError as final:
            raise self._connection.explain(final) from None
        time.sleep(seconds)
        self.reconnects += 1

    def _receive(self) -> None:
        try:
            update = self._record.read(next(self._call))
        except (grpc.RpcError, StopIteration) as lost:
            self._pause(failure_of(lost))
            self._open()
            return
        except MarketInferenceError:  # a wrong answer: the bars in flight are unknown
            self.close()
            raise
        if update is not None:
            self._updates.append(update)


def failure_of(lost: grpc.RpcError | StopIteration) -> MarketInferenceError:
    """The typed error that ended a stream; UnavailableError when the connection broke."""
    if isinstance(lost, grpc.RpcError):
        failure = errors.from_rpc(lost)
        # A write to a breaking connection ends the call as INTERNAL, without a reason from the service.
        if not (isinstance(failure, errors.InternalError) and failure.reason == failure.code):
            return failure
    return UnavailableError("the connection ended", code="UNAVAILABLE")
