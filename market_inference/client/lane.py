"""The lane of a client: one Stream call for the calls that are in flight together.

Owns the Stream call: ids, the service's credits, cancels, reconnects, and the end of an idle stream. A message on a
stream costs a fraction of a unary call, and requests of one message may be merged by the gateway. calls.py owns the
content of requests and answers; the clients own deadlines and retries.
"""

import asyncio
import concurrent.futures
import os
import random
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from itertools import count
from typing import Any, Protocol

import grpc

from market_inference import errors
from market_inference.client.connection import Connection
from market_inference.client.watch import failure_of, metadata, pause
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.contract.generated.inference_pb2_grpc import MarketInferenceServiceStub
from market_inference.contract.methods import METHODS
from market_inference.errors import MarketInferenceError, UnavailableError

IDLE_SECONDS = 10.0
"""An idle stream of a client ends after this time, and gives its place at the gateway back."""
REFUSED_SECONDS = 30.0
"""After the refusal of a Stream call, as by a proxy without streams, calls are unary for this time."""
_MESSAGE_BYTES = 1 << 20
_MESSAGE_ITEMS = 1024
_FOREVER = float("inf")


class NoStreamError(Exception):
    """There is no stream, and the request was not sent: a unary call will serve, or tell why not."""


class Waiter(Protocol):
    """A future of asyncio or of concurrent.futures; its result is the response message."""

    def done(self) -> bool: ...
    def set_result(self, result: Any, /) -> None: ...
    def set_exception(self, exception: BaseException, /) -> None: ...


class Asked:
    """One request on the lane."""

    __slots__ = ("item", "tried", "waiter")

    def __init__(self, item: pb.StreamItem, waiter: Waiter) -> None:
        self.item = item
        self.waiter = waiter
        self.tried = 0


class Lane:
    """A lane in a running event loop, used by this loop's thread only.

    `resends`: how often a request is sent again after a broken connection; with 0 its waiter gets the error.
    `idle_seconds`: see IDLE_SECONDS. A stream that is refused at once gives NoStreamError where `or_unary`.
    """

    def __init__(
        self,
        stub: MarketInferenceServiceStub,
        connection: Connection,
        *,
        resends: int = 0,
        idle_seconds: float = _FOREVER,
        or_unary: bool = False,
    ) -> None:
        self._stub: Any = stub
        self._connection = connection
        self._resends = resends
        self._idle_seconds = idle_seconds
        self._or_unary = or_unary
        self._ids = count(1)
        self._waiting: deque[Asked] = deque()
        self._cancels: deque[int] = deque()
        self._in_flight: dict[int, Asked] = {}
        # Requests that the service takes at a time; 0 before the stream is open.
        self._credits = 0
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._refused_until = 0.0

    @property
    def refused(self) -> bool:
        """Whether the service refused a stream a short time ago."""
        return time.monotonic() < self._refused_until

    def ask(
        self,
        method: str,
        request: Any,
        waiter: Waiter,
        *,
        timeout: float | None = None,
        request_id: str = "",
        priority: str = "",
        traceparent: str = "",
    ) -> Asked:
        """Send a request of a streamable method; its answer, or its error, goes to `waiter`."""
        fields: Mapping[str, Any] = {METHODS[method].field: request}
        item = pb.StreamItem(
            id=next(self._ids), request_id=request_id, priority=priority, traceparent=traceparent, **fields
        )
        if timeout is not None and timeout != _FOREVER:
            item.timeout.FromNanoseconds(int(timeout * 1e9))
        asked = Asked(item, waiter)
        self._waiting.append(asked)
        self._wake.set()
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return asked

    def withdraw(self, asked: Asked) -> None:
        """The caller waits no more: cancel the request at the service."""
        if asked.item.id in self._in_flight:
            self._cancels.append(asked.item.id)
            self._wake.set()

    async def close(self) -> None:
        """End the stream; requests without an answer fail with CancelledError."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        if self._idle is not None:
            self._idle.cancel()
        self._fail([*self._in_flight.values(), *self._waiting], _closed())

    async def _run(self) -> None:
        """Keep a stream open until the lane is idle."""
        tried = 0
        while True:
            failure = await self._stream()
            if failure is None and not self._waiting:
                self._task = None
                return
            if self._credits:
                tried = 0
            opened, self._credits = bool(self._credits), 0
            if failure is not None:
                self._lose(failure, opened)
            if not self._waiting:
                self._task = None
                return
            await asyncio.sleep(pause(tried, random.random()))  # noqa: S311  # jitter
            tried += 1

    async def _stream(self) -> MarketInferenceError | None:
        """One Stream call from its opening to its end: the failure, None when the lane ended an idle stream."""
        call = self._stub.Stream(metadata=metadata(self._connection.key))
        writer = asyncio.create_task(self._write(call))
        try:
            while (response := await call.read()) is not grpc.aio.EOF:
                self._take(response)
            # A stream that the lane ended itself ends with status OK.
            if await call.code() is grpc.StatusCode.OK and not self._in_flight:
                return None
            return UnavailableError("the connection ended", code="UNAVAILABLE")
        except grpc.aio.AioRpcError as lost:
            return self._connection.explain(failure_of(lost))
        finally:
            writer.cancel()
            call.cancel()

    def _lose(self, failure: MarketInferenceError, opened: bool) -> None:
        """Requests in flight wait again, or fail after too many tries or where sending again is pointless."""
        if not opened and self._or_unary:
            if not isinstance(failure, UnavailableError):
                self._refused_until = time.monotonic() + REFUSED_SECONDS
            self._fail([*self._in_flight.values(), *self._waiting], NoStreamError())
            return
        again = isinstance(failure, UnavailableError)
        if not again:
            self._fail([*self._in_flight.values(), *self._waiting], failure)
            return
        lost = list(self._in_flight.values())
        # A request that waits for a stream is tried by each opening.
        waiting = lost if opened else [*lost, *self._waiting]
        self._in_flight.clear()
        self._cancels.clear()
        if not opened:
            self._waiting.clear()
        for asked in reversed(waiting):
            asked.tried += 1
            if asked.tried <= self._resends:
                self._waiting.appendleft(asked)
            else:
                _settle(asked.waiter, failure)

    def _fail(self, lost: list[Asked], failure: Exception) -> None:
        self._in_flight.clear()
        self._cancels.clear()
        self._waiting.clear()
        for asked in lost:
            _settle(asked.waiter, failure)

    def _take(self, response: pb.StreamResponse) -> None:
        if response.HasField("credits"):
            self._credits = response.credits.in_flight
        for answer in response.answers:
            asked = self._in_flight.pop(answer.id, None)
            if asked is None:
                continue
            kind = answer.WhichOneof("result")
            if kind == "error":
                error = errors.from_status(answer.error, asked.item.request_id)
                _settle(asked.waiter, self._connection.explain(error))
            else:
                _settle(asked.waiter, getattr(answer, str(kind)))
        self._wake.set()
        if not self._in_flight and not self._waiting and self._idle_seconds != _FOREVER and self._idle is None:
            self._idle = asyncio.get_running_loop().call_later(self._idle_seconds, self._end_when_idle)

    def _end_when_idle(self) -> None:
        self._idle = None
        if not self._in_flight and not self._waiting and self._task is not None:
            self._task.cancel()
            self._task = None
            self._credits = 0

    async def _write(self, call: Any) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while message := self._message():
                await call.write(message)

    def _message(self) -> pb.StreamRequest | None:
        """One message with the cancels and as many requests as there are credits for."""
        items: list[pb.StreamItem] = []
        while self._cancels and len(items) < _MESSAGE_ITEMS:
            items.append(pb.StreamItem(id=self._cancels.popleft(), cancel=pb.StreamCancel()))
        size_bytes = 0
        while self._waiting and len(self._in_flight) < self._credits:
            if size_bytes >= _MESSAGE_BYTES or len(items) >= _MESSAGE_ITEMS:
                break
            asked = self._waiting.popleft()
            if asked.waiter.done():
                continue
            self._in_flight[asked.item.id] = asked
            items.append(asked.item)
            size_bytes += asked.item.ByteSize()
        return pb.StreamRequest(requests=items) if items else None


def _settle(waiter: Waiter, outcome: Any) -> None:
    """Hand the response, or the error, to a waiter that still waits."""
    if waiter.done():
        return
    with suppress(concurrent.futures.InvalidStateError):  # another thread cancelled the future just now
        if isinstance(outcome, Exception):
            waiter.set_exception(outcome)
        else:
            waiter.set_result(outcome)


def _closed() -> MarketInferenceError:
    return errors.CancelledError("the client was closed before the answer was there", code="CANCELLED")


class ThreadedLane:
    """A lane for threads: an event loop, and a connection, in a thread of its own, which starts with the first call."""

    def __init__(self, connection: Connection, **settings: Any) -> None:
        self._connection = connection
        self._settings = settings
        self._lock = threading.Lock()
        self._asked: deque[tuple[Any, ...]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lane: Lane | None = None
        self._end: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._process = os.getpid()

    @property
    def usable(self) -> bool:
        """False in a child of the process that started the thread, and a short time after a refused stream."""
        return os.getpid() == self._process and (self._lane is None or not self._lane.refused)

    def start(self) -> None:
        """Start the thread, unless it runs already. Raises what the connection raises."""
        with self._lock:
            if self._thread is not None:
                return
            started: concurrent.futures.Future[None] = concurrent.futures.Future()
            self._thread = threading.Thread(
                target=lambda: asyncio.run(self._serve(started)), name="market-inference-lane", daemon=True
            )
            self._thread.start()
            started.result()

    def ask(
        self, method: str, request: Any, waiter: Waiter, future: "concurrent.futures.Future[Any]", **options: Any
    ) -> None:
        """As Lane.ask; the request is withdrawn when `future` is cancelled. Raises ClosedError."""
        self.start()
        with self._lock:
            if self._loop is None:
                raise errors.ClosedError("this client is closed: make a new one")
            self._asked.append((method, request, waiter, future, options))
            if len(self._asked) == 1:
                # Requests of several threads that come before the loop's next turn share a message.
                self._loop.call_soon_threadsafe(self._take)

    def _take(self) -> None:
        with self._lock:
            taken, self._asked = self._asked, deque()
        for method, request, waiter, future, options in taken:
            if self._lane is not None:
                asked = self._lane.ask(method, request, waiter, **options)
                future.add_done_callback(lambda done, asked=asked: self._withdraw(asked) if done.cancelled() else None)

    def _withdraw(self, asked: Asked) -> None:
        loop, lane = self._loop, self._lane
        if loop is not None and lane is not None:
            loop.call_soon_threadsafe(lane.withdraw, asked)

    def close(self) -> None:
        """End the stream and the thread; requests without an answer fail with CancelledError."""
        with self._lock:
            loop, self._loop = self._loop, None
            pending, self._asked = self._asked, deque()
        for _, _, waiter, _, _ in pending:
            _settle(waiter, _closed())
        if loop is not None and self._end is not None and os.getpid() == self._process:
            loop.call_soon_threadsafe(self._end.set)
            if self._thread is not None:
                self._thread.join()

    async def _serve(self, started: "concurrent.futures.Future[None]") -> None:
        """The lane, in its thread, from start() to close()."""
        try:
            self._end = asyncio.Event()
            async with self._connection.aio_channel() as channel:
                self._lane = Lane(MarketInferenceServiceStub(channel), self._connection, **self._settings)
                self._loop = asyncio.get_running_loop()
                started.set_result(None)
                await self._end.wait()
                await self._lane.close()
        except BaseException as error:
            if not started.done():
                started.set_exception(error)
            raise
