"""Many calls on one stream.

Owns the stream: ids, the service's credits, cancels, and sending again after a broken connection. calls.py owns the
content of requests and answers.
"""

import asyncio
import concurrent.futures
import random
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from market_inference import errors
from market_inference.client import calls
from market_inference.client.answers import Analysis, Answers, Indicators, Sentiment
from market_inference.client.connection import Connection
from market_inference.client.forecast import Forecast
from market_inference.client.indicator import IndicatorSpecs
from market_inference.client.inputs import arguments
from market_inference.client.retries import Retries
from market_inference.client.types import BarsLike, Levels, ManyTexts, SeriesLike
from market_inference.client.watch import failure_of, metadata, pause
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.contract.generated.inference_pb2_grpc import MarketInferenceServiceStub
from market_inference.contract.methods import METHODS
from market_inference.errors import ClosedError, MarketInferenceError, UnavailableError

T = TypeVar("T")

_MESSAGE_BYTES = 1 << 20
_MESSAGE_ITEMS = 1024


class _Asked:
    """A request in flight or waiting for credit."""

    __slots__ = ("future", "item", "read", "tried")

    def __init__(self, item: pb.StreamItem, read: Callable[[Any], Any], future: "asyncio.Future[Any]") -> None:
        self.item = item
        self.read = read
        self.future = future
        self.tried = 0


class AsyncStream:
    """Made by AsyncClient.stream(). Each method returns a future at once.

        async with client.stream() as stream:
            futures = [stream.predict(closes, horizon=5) for closes in series]
            async for future in stream.as_completed(futures):
                forecast = future.result()

    Cancelling a future cancels its call. A call that fails alone raises its own error. After a broken connection the
    stream sends the calls without an answer again, as often as `retries` allows: every call is pure.
    """

    def __init__(self, stub: Any, connection: Connection, retries: Retries) -> None:
        self._stub = stub
        self._connection = connection
        self._retries = retries
        self._ids = count(1)
        self._waiting: deque[_Asked] = deque()
        self._cancels: deque[int] = deque()
        self._in_flight: dict[int, _Asked] = {}
        self._credits = 0
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cancel the calls without an answer."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None
        for asked in (*self._in_flight.values(), *self._waiting):
            asked.future.cancel()

    def predict(
        self,
        series: SeriesLike,
        horizon: int,
        *,
        quantiles: Levels = None,
        interval: Levels = None,
        model: str = "",
        timeout: float | None = None,
    ) -> "asyncio.Future[Forecast | Answers[Forecast]]":
        """As AsyncClient.predict."""
        return self.ask(calls.predict(series, horizon, quantiles, model, interval), timeout)

    def sentiment(
        self, texts: str | ManyTexts, *, model: str = "", timeout: float | None = None
    ) -> "asyncio.Future[Sentiment | Answers[Sentiment]]":
        """As AsyncClient.sentiment."""
        return self.ask(calls.sentiment(texts, model), timeout)

    def indicators(
        self, bars: BarsLike, indicators: IndicatorSpecs, *, last: int = 0, timeout: float | None = None
    ) -> "asyncio.Future[Indicators | Answers[Indicators]]":
        """As AsyncClient.indicators."""
        return self.ask(calls.indicators(bars, indicators, last), timeout)

    def analyze(self, parts: calls.Parts, *, timeout: float | None = None) -> "asyncio.Future[Analysis]":
        """As AsyncClient.analyze."""
        return self.ask(calls.analyze(parts), timeout)

    @staticmethod
    async def as_completed(futures: Iterable["asyncio.Future[T]"]) -> AsyncIterator["asyncio.Future[T]"]:
        """The futures themselves, each as soon as it is done, with a result, an error or cancelled."""
        done: asyncio.Queue[asyncio.Future[T]] = asyncio.Queue()
        todo = list(futures)
        for future in todo:
            future.add_done_callback(done.put_nowait)
        for _ in todo:
            yield await done.get()

    def ask(self, call: calls.Call[T], timeout: float | None) -> "asyncio.Future[T]":
        """Send a call; the other methods make the call. Raises ArgumentError, ClosedError."""
        if self._task is None:
            raise ClosedError("enter the stream first: async with client.stream() as stream")
        seconds = None if timeout is None else arguments.seconds(timeout, "timeout")
        if len(call.requests) == 1:
            return self._send(call.method, call.requests[0], lambda answer: call.read([answer]), seconds)
        asked = [self._send(call.method, request, lambda answer: answer, seconds) for request in call.requests]
        return asyncio.ensure_future(_joined(call, asked))

    def _send(self, method: str, request: Any, read: Callable[[Any], T], timeout: float | None) -> "asyncio.Future[T]":
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        fields: Mapping[str, Any] = {METHODS[method].field: request}
        item = pb.StreamItem(id=next(self._ids), **fields)
        if timeout is not None and timeout != float("inf"):
            item.timeout.FromNanoseconds(int(timeout * 1e9))
        asked = _Asked(item, read, future)
        self._waiting.append(asked)
        future.add_done_callback(lambda future: self._cancelled(asked) if future.cancelled() else None)
        self._wake.set()
        return future

    def _cancelled(self, asked: _Asked) -> None:
        if asked.item.id in self._in_flight:
            self._cancels.append(asked.item.id)
            self._wake.set()

    async def _run(self) -> None:
        tried = 0
        while True:
            call = self._stub.Stream(metadata=metadata(self._connection.key))
            writer = asyncio.create_task(self._write(call))
            try:
                while (response := await call.read()) is not grpc.aio.EOF:
                    tried = 0
                    self._take(response)
                failure: MarketInferenceError = UnavailableError("the connection ended", code="UNAVAILABLE")
            except grpc.aio.AioRpcError as lost:
                failure = self._connection.explain(failure_of(lost))
            finally:
                self._credits = 0
                writer.cancel()
                call.cancel()
            self._lose(failure)
            await asyncio.sleep(pause(tried, random.random()))  # noqa: S311  # jitter
            tried += 1

    def _lose(self, failure: MarketInferenceError) -> None:
        """Requests in flight wait again, or fail after too many tries or where sending again is pointless."""
        again = isinstance(failure, UnavailableError)
        lost = [*self._in_flight.values(), *(() if again else self._waiting)]
        self._in_flight.clear()
        self._cancels.clear()
        if not again:
            self._waiting.clear()
        for asked in reversed(lost):
            asked.tried += 1
            if asked.future.done():
                continue
            if again and asked.tried <= self._retries.attempts:
                self._waiting.appendleft(asked)
            else:
                asked.future.set_exception(failure)

    def _take(self, response: pb.StreamResponse) -> None:
        if response.HasField("credits"):
            self._credits = response.credits.in_flight
        for answer in response.answers:
            asked = self._in_flight.pop(answer.id, None)
            if asked is None or asked.future.done():
                continue
            kind = answer.WhichOneof("result")
            if kind == "error":
                asked.future.set_exception(self._connection.explain(errors.from_status(answer.error)))
                continue
            try:
                asked.future.set_result(asked.read(getattr(answer, str(kind))))
            except MarketInferenceError as error:  # the one item of the call has failed
                asked.future.set_exception(error)
        self._wake.set()

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
            if asked.future.done():
                continue
            self._in_flight[asked.item.id] = asked
            items.append(asked.item)
            size_bytes += asked.item.ByteSize()
        return pb.StreamRequest(requests=items) if items else None


async def _joined(call: calls.Call[T], asked: Sequence["asyncio.Future[Any]"]) -> T:
    """The answer to a call of several requests. Raises the first request's error, as the clients do."""
    found = await asyncio.gather(*asked, return_exceptions=True)
    for answer in found:
        if isinstance(answer, BaseException) and (answer is found[0] or not isinstance(answer, MarketInferenceError)):
            raise answer
    return call.read(found)


class Stream:
    """Made by Client.stream(), for programs without asyncio; safe to share between threads.

        with client.stream() as stream:
            futures = [stream.predict(closes, horizon=5) for closes in series]
            for future in stream.as_completed(futures):
                forecast = future.result()

    The methods are those of AsyncStream and return a concurrent.futures.Future at once. A thread of the stream's own
    runs an event loop with its own connection.
    """

    def __init__(self, connection: Connection, retries: Retries) -> None:
        self._connection = connection
        self._retries = retries
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stream: AsyncStream | None = None
        self._end: asyncio.Event | None = None

    def __enter__(self) -> Self:
        started: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(started)), name="market-inference-stream", daemon=True
        )
        self._thread.start()
        started.result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancel the calls without an answer and end the stream."""
        if self._loop is None or self._end is None or self._thread is None:
            return
        loop, self._loop = self._loop, None
        loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    def predict(
        self,
        series: SeriesLike,
        horizon: int,
        *,
        quantiles: Levels = None,
        interval: Levels = None,
        model: str = "",
        timeout: float | None = None,
    ) -> "concurrent.futures.Future[Forecast | Answers[Forecast]]":
        """As Client.predict."""
        return self._ask(calls.predict(series, horizon, quantiles, model, interval), timeout)

    def sentiment(
        self, texts: str | ManyTexts, *, model: str = "", timeout: float | None = None
    ) -> "concurrent.futures.Future[Sentiment | Answers[Sentiment]]":
        """As Client.sentiment."""
        return self._ask(calls.sentiment(texts, model), timeout)

    def indicators(
        self, bars: BarsLike, indicators: IndicatorSpecs, *, last: int = 0, timeout: float | None = None
    ) -> "concurrent.futures.Future[Indicators | Answers[Indicators]]":
        """As Client.indicators."""
        return self._ask(calls.indicators(bars, indicators, last), timeout)

    def analyze(self, parts: calls.Parts, *, timeout: float | None = None) -> "concurrent.futures.Future[Analysis]":
        """As Client.analyze."""
        return self._ask(calls.analyze(parts), timeout)

    @staticmethod
    def as_completed(
        futures: Iterable["concurrent.futures.Future[T]"],
    ) -> Iterator["concurrent.futures.Future[T]"]:
        """The futures themselves, each as soon as it is done."""
        return concurrent.futures.as_completed(futures)

    def _ask(self, call: calls.Call[T], timeout: float | None) -> "concurrent.futures.Future[T]":
        if timeout is not None:
            arguments.seconds(timeout, "timeout")
        if self._loop is None or self._stream is None:
            raise ClosedError("enter the stream first: with client.stream() as stream")
        return asyncio.run_coroutine_threadsafe(_awaited(self._stream, call, timeout), self._loop)

    async def _serve(self, started: "concurrent.futures.Future[None]") -> None:
        """The stream, in its thread, from entering to close()."""
        try:
            self._end = asyncio.Event()
            async with self._connection.aio_channel() as channel:
                stub = MarketInferenceServiceStub(channel)
                async with AsyncStream(stub, self._connection, self._retries) as self._stream:
                    self._loop = asyncio.get_running_loop()
                    started.set_result(None)
                    await self._end.wait()
        except BaseException as error:
            if not started.done():
                started.set_exception(error)
            raise


async def _awaited(stream: AsyncStream, call: calls.Call[T], timeout: float | None) -> T:
    return await stream.ask(call, timeout)
