"""Many calls on one stream.

Owns the stream: ids, the service's credits, cancels, and sending again what was in flight when a connection broke. What
a call sends and how its answer reads is calls.py's.
"""

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from itertools import count
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from market_inference import errors
from market_inference.client import calls
from market_inference.client.answers import Analysis, Answers, Indicators, Sentiment
from market_inference.client.forecast import Forecast
from market_inference.client.indicator import IndicatorSpec
from market_inference.client.retries import Retries
from market_inference.client.watch import failure_of, metadata, pause
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.contract.methods import METHODS
from market_inference.errors import MarketInferenceError, UnavailableError

T = TypeVar("T")

_MESSAGE_BYTES = 1 << 20
_MESSAGE_ITEMS = 1024


class _Asked:
    """A call in flight or waiting for credit."""

    __slots__ = ("call", "future", "item", "tried")

    def __init__(self, call: calls.Call[Any], item: pb.StreamItem, future: "asyncio.Future[Any]") -> None:
        self.call = call
        self.item = item
        self.future = future
        self.tried = 0


class AsyncStream:
    """Made by AsyncClient.stream(). Each method returns a future at once, as calls of their own do when awaited.

        async with client.stream() as stream:
            futures = [stream.predict(closes, horizon=5) for closes in series]
            async for future in stream.as_completed(futures):
                forecast = future.result()

    Cancelling a future withdraws its call. A call that fails alone raises its own error; when the connection breaks,
    what has no answer yet is sent again, as often as `retries` allows: every call is pure.
    """

    def __init__(self, stub: Any, key: str, retries: Retries) -> None:
        self._stub = stub
        self._key = key
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
        """Withdraw what has no answer yet."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        for asked in (*self._in_flight.values(), *self._waiting):
            asked.future.cancel()

    def predict(
        self, series: Any, horizon: int, *, quantiles: Sequence[float] | None = None, model: str = "",
        timeout: float | None = None,
    ) -> "asyncio.Future[Forecast | Answers[Forecast]]":  # fmt: skip
        """As AsyncClient.predict."""
        return self._ask(calls.predict(series, horizon, quantiles, model), timeout)

    def sentiment(
        self, texts: str | Iterable[str], *, model: str = "", timeout: float | None = None
    ) -> "asyncio.Future[Sentiment | Answers[Sentiment]]":
        """As AsyncClient.sentiment."""
        return self._ask(calls.sentiment(texts, model), timeout)

    def indicators(
        self, bars: Any, indicators: IndicatorSpec | Iterable[IndicatorSpec], *, last: int = 0,
        timeout: float | None = None,
    ) -> "asyncio.Future[Indicators | Answers[Indicators]]":  # fmt: skip
        """As AsyncClient.indicators."""
        return self._ask(calls.indicators(bars, indicators, last), timeout)

    def analyze(self, parts: calls.Parts, *, timeout: float | None = None) -> "asyncio.Future[Analysis]":
        """As AsyncClient.analyze."""
        return self._ask(calls.analyze(parts), timeout)

    @staticmethod
    async def as_completed(futures: Iterable["asyncio.Future[T]"]) -> AsyncIterator["asyncio.Future[T]"]:
        """The futures themselves, each once it is done, whatever became of it."""
        done: asyncio.Queue[asyncio.Future[T]] = asyncio.Queue()
        todo = list(futures)
        for future in todo:
            future.add_done_callback(done.put_nowait)
        for _ in todo:
            yield await done.get()

    def _ask(self, call: calls.Call[T], timeout: float | None) -> "asyncio.Future[T]":
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        fields: Mapping[str, Any] = {METHODS[call.method].field: call.request}
        item = pb.StreamItem(id=next(self._ids), **fields)
        if timeout is not None:
            item.timeout.FromNanoseconds(int(timeout * 1e9))
        asked = _Asked(call, item, future)
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
            call = self._stub.Stream(metadata=metadata(self._key))
            writer = asyncio.create_task(self._write(call))
            try:
                while (response := await call.read()) is not grpc.aio.EOF:
                    tried = 0
                    self._take(response)
                failure: MarketInferenceError = UnavailableError("the connection ended", code="UNAVAILABLE")
            except grpc.aio.AioRpcError as lost:
                failure = failure_of(lost)
            finally:
                self._credits = 0
                writer.cancel()
                call.cancel()
            self._lose(failure)
            await asyncio.sleep(pause(tried, random.random()))  # noqa: S311  # jitter
            tried += 1

    def _lose(self, failure: MarketInferenceError) -> None:
        """What was in flight waits again, or fails when it was sent often enough, or sending again is pointless."""
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
                asked.future.set_exception(errors.from_status(answer.error))
                continue
            try:
                asked.future.set_result(asked.call.read(getattr(answer, str(kind))))
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
        """Cancels, and as many calls as there are credits for, in one message."""
        items: list[pb.StreamItem] = []
        while self._cancels and len(items) < _MESSAGE_ITEMS:
            items.append(pb.StreamItem(id=self._cancels.popleft(), cancel=pb.StreamCancel()))
        size = 0
        while self._waiting and len(self._in_flight) < self._credits:
            if size >= _MESSAGE_BYTES or len(items) >= _MESSAGE_ITEMS:
                break
            asked = self._waiting.popleft()
            if asked.future.done():
                continue
            self._in_flight[asked.item.id] = asked
            items.append(asked.item)
            size += asked.item.ByteSize()
        return pb.StreamRequest(requests=items) if items else None
