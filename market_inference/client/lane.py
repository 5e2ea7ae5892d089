"""The lane of a client: one Stream call for the calls in flight.

Owns the Stream call: ids, the service's credits, cancels, reconnects, and the end of an idle stream. A message on a
stream costs a fraction of a unary call, and the gateway may merge the requests of one message. calls.py owns the
content of requests and answers; the clients own the retries of calls. The lane ends requests without an answer at the
deadline, with a single timer: a timer for each request would take a tenth of the client's CPU time.
"""

import asyncio
import concurrent.futures
import os
import random
import threading
import time
from collections import deque
from contextlib import suppress
from itertools import count
from typing import Any, Final, Protocol

import grpc

from market_inference import errors
from market_inference.client import checks, response
from market_inference.client.connection import Connection, methods
from market_inference.client.watch import failure_of, metadata, pause
from market_inference.contract.encoding import wireformat
from market_inference.contract.generated import answers_pb2
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.contract.methods import METHODS
from market_inference.errors import MarketInferenceError, UnavailableError

IDLE_SECONDS = 10.0
"""An idle stream of a client ends after this time, and gives its place at the gateway back."""
REFUSED_SECONDS = 30.0
"""After the refusal of a Stream call, as by a proxy without streams, calls are unary for this time."""
_MESSAGE_BYTES = 1 << 18
_MESSAGE_ITEMS = 1024
_TOGETHER = 16
_PARTS = 4
"""A message's answers go to the callers in parts: 16 answers, or a quarter of the calls in flight if a quarter is more.
The callers of a part ask again, and the next message leaves, before the next part: client, gateway and inference
service then work at the same time, not one after the other."""
_PAUSES = 2
_PAUSE_SECONDS = 1e-4
_DRAIN_SECONDS = 0.005
_GRACE_SECONDS = 0.25
"""The service ends requests of stream() at the deadline; so much later the lane ends what a silent service leaves."""
_FOREVER = float("inf")
_REQUESTS: Final = pb.StreamRequest.DESCRIPTOR.fields_by_name["requests"].number
_BODIES: Final = {
    name: pb.StreamItem.DESCRIPTOR.fields_by_name[row.field].number for name, row in METHODS.items() if row.streamable
}


class NoStreamError(Exception):
    """There is no stream, and the request was not sent: the client makes a unary call."""


class Waiter(Protocol):
    """A future of asyncio or of concurrent.futures; its result is the response's bytes."""

    def done(self) -> bool: ...
    def set_result(self, result: Any, /) -> None: ...
    def set_exception(self, exception: BaseException, /) -> None: ...


class Asked:
    """One request on the lane; `pieces`: the bytes of its StreamItem as a field of a StreamRequest.

    `kind`: the field of the request, and of its answer.
    """

    __slots__ = ("deadline", "kind", "number", "pieces", "request_id", "tried", "waiter")

    def __init__(self, number: int, kind: str, request_id: str, pieces: tuple[bytes, ...], waiter: Waiter) -> None:
        self.number = number
        self.kind = kind
        # An instant of the monotonic clock, for the end of the request.
        self.deadline = _FOREVER
        self.request_id = request_id
        self.pieces = pieces
        self.waiter = waiter
        self.tried = 0


class Lane:
    """A lane in a running event loop, for the loop's thread only.

    `method`: the Stream RPC with serialised messages in and out.
    `resends`: the number of times to send a request again after a broken connection; with 0, the waiter gets the error.
    `idle_seconds`: see IDLE_SECONDS. `or_unary`: the refusal of a stream raises NoStreamError.
    `timeout`: seconds for the opening of a stream, and for a request without a timeout, from the sending on; None where
    each request has a timeout. With `timeout` the lane ends late requests a little after the service.
    `together`: the least answers in a part of a message, see _PARTS.
    """

    def __init__(
        self,
        method: Any,
        connection: Connection,
        *,
        resends: int = 0,
        idle_seconds: float = _FOREVER,
        or_unary: bool = False,
        timeout: float | None = None,
        together: int = _TOGETHER,
    ) -> None:
        self._method = method
        self._connection = connection
        self._resends = resends
        self._idle_seconds = idle_seconds
        self._or_unary = or_unary
        self._timeout = timeout
        self._together = together
        self._grace = 0.0 if timeout is None else _GRACE_SECONDS
        # The timer of the next check of deadlines, with its instant; and the deadline of a stream's opening.
        self._look: asyncio.TimerHandle | None = None
        self._look_due = _FOREVER
        self._open_until = _FOREVER
        self._ids = count(1)
        self._waiting: deque[Asked] = deque()
        self._cancels: deque[int] = deque()
        self._in_flight: dict[int, Asked] = {}
        # The service's limit of requests in flight; 0 before the stream is open.
        self._credits = 0
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._refused_until = 0.0
        self.answered = 0
        """The answers in the newest message."""

    @property
    def refused(self) -> bool:
        """Whether the service refused a stream a short time ago."""
        return time.monotonic() < self._refused_until

    def ask(
        self,
        method: str,
        request: bytes,
        waiter: Waiter,
        *,
        timeout: float | None = None,
        request_id: str = "",
        priority: str = "",
        traceparent: str = "",
    ) -> Asked:
        """Send a request of a streamable method; the bytes of its answer, or its error, go to `waiter`."""
        number = next(self._ids)
        head = pb.StreamItem(id=number, request_id=request_id, priority=priority, traceparent=traceparent)
        if timeout is not None and timeout != _FOREVER:
            # A passed deadline is the shortest timeout: the service refuses 0 as a mistake of the caller.
            head.timeout.seconds, head.timeout.nanos = divmod(max(1, int(timeout * 1e9)), 1_000_000_000)
        body = wireformat.pieces(_BODIES[method], request)
        asked = Asked(
            number,
            METHODS[method].field,
            request_id,
            wireformat.pieces(_REQUESTS, head.SerializeToString(), *body),
            waiter,
        )
        self._waiting.append(asked)
        self._wake.set()
        if timeout is not None:
            self._end_after(asked, timeout)
        if not self._credits:
            self._look_until(self._open_until)
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return asked

    def withdraw(self, asked: Asked) -> None:
        """The caller waits no more: cancel the request at the service."""
        if asked.number in self._in_flight:
            self._cancels.append(asked.number)
            self._wake.set()

    def _end_after(self, asked: Asked, seconds: float) -> None:
        """Give a request its deadline."""
        asked.deadline = time.monotonic() + seconds + self._grace
        self._look_until(asked.deadline)

    def _look_until(self, instant: float) -> None:
        """Look for late requests at an instant. Most requests have the same timeout, and find an earlier look due."""
        if instant < self._look_due:
            if self._look is not None:
                self._look.cancel()
            self._look_due = instant
            self._look = asyncio.get_running_loop().call_later(max(0.0, instant - time.monotonic()), self._end_late)

    def _end_late(self) -> None:
        """End the requests without an answer at their deadlines, and all that wait for a stream that does not open."""
        self._look, self._look_due, now = None, _FOREVER, time.monotonic()
        closed = not self._credits and now >= self._open_until
        late = [asked for asked in self._in_flight.values() if now >= asked.deadline]
        unsent = [asked for asked in self._waiting if closed or now >= asked.deadline]
        for asked in late:
            del self._in_flight[asked.number]
            self._cancels.append(asked.number)
        for asked in (*late, *unsent):
            _settle(asked.waiter, errors.too_late(asked.request_id))
        if unsent:
            self._waiting = deque(asked for asked in self._waiting if not asked.waiter.done())
        if late:
            self._wake.set()
        deadlines = [asked.deadline for asked in (*self._in_flight.values(), *self._waiting)]
        if self._waiting and not self._credits:
            deadlines.append(self._open_until)
        self._look_until(min(deadlines, default=_FOREVER))

    async def close(self) -> None:
        """End the stream; requests without an answer fail with CancelledError."""
        if self._look is not None:
            self._look.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        if self._idle is not None:
            self._idle.cancel()
        self._fail([*self._in_flight.values(), *self._waiting], _closed())

    async def _run(self) -> None:
        """Keep streams open until the lane is idle. No waiter outlives the task, and the next request starts another.

        A bug in here fails the requests with InternalError, and is raised in the task, which reports the traceback.
        """
        try:
            await self._keep_open()
        except Exception as bug:
            failure = errors.InternalError(f"a stream of the client failed: {type(bug).__name__}", code="INTERNAL")
            self._fail([*self._in_flight.values(), *self._waiting], failure)
            raise
        finally:
            # An idle lane that was used again has another task already.
            if self._task is asyncio.current_task():
                self._task = None
                self._credits = 0

    async def _keep_open(self) -> None:
        tried = 0
        while True:
            failure = await self._stream()
            if failure is None and not self._waiting:
                return
            if self._credits:
                tried = 0
            opened, self._credits = bool(self._credits), 0
            if failure is not None:
                self._lose(failure, opened)
            if not self._waiting:
                return
            await asyncio.sleep(pause(tried, random.random()))  # noqa: S311  # jitter
            tried += 1

    async def _stream(self) -> MarketInferenceError | None:
        """One Stream call from its opening to its end: the failure, None when the lane ended an idle stream."""
        if self._timeout is not None:
            self._open_until = time.monotonic() + self._timeout
            self._look_until(self._open_until)
        call = self._method(metadata=metadata(self._connection.key))
        writer = asyncio.create_task(self._write(call))
        try:
            while (raw := await call.read()) is not grpc.aio.EOF:
                await self._take(raw)
            # A stream that the lane ended itself ends with status OK.
            if await call.code() is grpc.StatusCode.OK and not self._in_flight:
                return None
            return UnavailableError("the connection ended", code="UNAVAILABLE")
        except grpc.aio.AioRpcError as lost:
            return self._connection.explain(failure_of(lost))
        except MarketInferenceError as unreadable:
            return unreadable
        finally:
            writer.cancel()
            call.cancel()
            # Until the next opening nothing is late: requests wait in a pause after a broken connection.
            self._open_until = _FOREVER

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

    async def _take(self, raw: bytes) -> None:
        message = response.parse(answers_pb2.StreamAnswer, raw)
        if message.HasField("credits"):
            self._credits = message.credits.in_flight
        self.answered = len(message.answers)
        together = max(self._together, len(self._in_flight) // _PARTS)
        for number, answer in enumerate(message.answers):
            if number and number % together == 0:
                self._wake.set()
                await asyncio.sleep(0)  # the callers ask again
                await asyncio.sleep(0)  # the writer sends
            # The request stays in flight until the waiter has an outcome.
            asked = self._in_flight.get(answer.id)
            if asked is None:
                continue
            _settle(asked.waiter, self._outcome(answer, asked))
            del self._in_flight[answer.id]
        self._wake.set()
        if not self._in_flight and not self._waiting and self._idle_seconds != _FOREVER and self._idle is None:
            self._idle = asyncio.get_running_loop().call_later(self._idle_seconds, self._end_when_idle)

    def _outcome(self, answer: Any, asked: Asked) -> Any:
        """The bytes of an answer's result, or the answer's error."""
        kind = answer.WhichOneof("result")
        if kind == "error":
            return self._connection.explain(errors.from_status(answer.error, asked.request_id))
        if kind != asked.kind:
            return checks.wrong("answers.result", f"{asked.kind} or error", kind, asked.request_id)
        return getattr(answer, kind)

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

    def _message(self) -> bytes:
        """One message with the cancels and as many requests as there are credits for; empty when there are none."""
        pieces: list[bytes] = []
        items = size_bytes = 0
        while self._cancels and items < _MESSAGE_ITEMS:
            cancel = pb.StreamItem(id=self._cancels.popleft(), cancel=pb.StreamCancel())
            pieces += wireformat.pieces(_REQUESTS, cancel.SerializeToString())
            items += 1
        while self._waiting and len(self._in_flight) < self._credits:
            if size_bytes >= _MESSAGE_BYTES or items >= _MESSAGE_ITEMS:
                break
            asked = self._waiting.popleft()
            if asked.waiter.done():
                continue
            self._in_flight[asked.number] = asked
            if self._timeout is not None and asked.deadline == _FOREVER:
                self._end_after(asked, self._timeout)
            pieces += asked.pieces
            items += 1
            size_bytes += len(asked.pieces[-1])
        return b"".join(pieces)


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
        self, method: str, request: bytes, waiter: Waiter, future: "concurrent.futures.Future[Any]", **options: Any
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
        self._wait_for_company()
        with self._lock:
            taken, self._asked = self._asked, deque()
        for method, request, waiter, future, options in taken:
            if self._lane is not None:
                asked = self._lane.ask(method, request, waiter, **options)
                future.add_done_callback(lambda done, asked=asked: self._withdraw(asked) if done.cancelled() else None)

    def _wait_for_company(self) -> None:
        """Leave the interpreter to the threads that the newest message answered: usually they ask again at once.

        Without the pause a request of each thread leaves in a message of its own; with it, eight threads got 1.2 times
        the calls for 0.8 times the client's CPU.
        """
        if self._lane is None:
            return
        expected, self._lane.answered = self._lane.answered, 0
        for _ in range(_PAUSES):
            if len(self._asked) >= expected:
                return
            time.sleep(_PAUSE_SECONDS)

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
                self._lane = Lane(
                    methods(channel)["Stream"], self._connection, together=_MESSAGE_ITEMS, **self._settings
                )
                self._loop = asyncio.get_running_loop()
                started.set_result(None)
                await self._end.wait()
                await self._lane.close()
            # gRPC hands over what ended with the channel; later it would find the loop closed, and say so on stderr.
            await asyncio.sleep(_DRAIN_SECONDS)
        except BaseException as error:
            if not started.done():
                started.set_exception(error)
            raise
