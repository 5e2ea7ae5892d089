"""Many calls on one stream, as futures.

Owns the futures. lane.py owns the Stream call, calls.py the content of requests and answers.
"""

import asyncio
import concurrent.futures
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, Generic, Self, TypeVar

from market_inference.client import calls
from market_inference.client.answers import Analysis, Answers, Indicators, Sentiment
from market_inference.client.bulk import ForecastAnswers, IndicatorAnswers
from market_inference.client.connection import Connection
from market_inference.client.forecast import Forecast
from market_inference.client.indicator import IndicatorSpecs
from market_inference.client.inputs import arguments
from market_inference.client.keywords import suggesting
from market_inference.client.lane import Lane, ThreadedLane
from market_inference.client.retries import Retries
from market_inference.client.types import BarsLike, Beside, Groups, Levels, ManyTexts, SeriesLike, Times
from market_inference.errors import ClosedError, MarketInferenceError

T = TypeVar("T")


class AsyncStream:
    """Made by AsyncClient.stream(). Each method returns a future at once.

        async with client.stream() as stream:
            futures = [stream.predict(closes, horizon=5) for closes in series]
            async for future in stream.as_completed(futures):
                forecast = future.result()

    Cancelling a future cancels its call. A call that fails alone raises its own error. After a broken connection the
    stream sends the calls without an answer again, as often as `retries` allows: every call is pure. A call without a
    `timeout` of its own has the client's, from its sending on.
    """

    def __init__(self, method: Any, connection: Connection, retries: Retries, timeout: float) -> None:
        self._lane = Lane(method, connection, resends=retries.attempts, timeout=timeout)
        self._entered = False

    async def __aenter__(self) -> Self:
        self._entered = True
        return self

    async def __aexit__(self, *_: object) -> None:
        """Cancel the calls without an answer."""
        self._entered = False
        await self._lane.close()

    @suggesting
    def predict(
        self,
        series: SeriesLike,
        horizon: int,
        *,
        quantiles: Levels = None,
        interval: Levels = None,
        model: str = "",
        period: int = 0,
        times: bool | Times | None = None,
        covariates: Beside | None = None,
        known_ahead: Iterable[str] = (),
        groups: Groups = None,
        timeout: float | None = None,
    ) -> "asyncio.Future[Forecast | ForecastAnswers]":
        """As AsyncClient.predict."""
        call = calls.predict(
            series, horizon, quantiles, model, interval, period, covariates, known_ahead, groups, times
        )
        return self.ask(call, timeout)

    @suggesting
    def sentiment(
        self,
        texts: str | ManyTexts,
        *,
        about: str | Iterable[str] | None = None,
        model: str = "",
        timeout: float | None = None,
    ) -> "asyncio.Future[Sentiment | Answers[Sentiment]]":
        """As AsyncClient.sentiment."""
        return self.ask(calls.sentiment(texts, model, about), timeout)

    @suggesting
    def indicators(
        self, bars: BarsLike, indicators: IndicatorSpecs, *, last: int = 0, timeout: float | None = None
    ) -> "asyncio.Future[Indicators | IndicatorAnswers]":
        """As AsyncClient.indicators."""
        return self.ask(calls.indicators(bars, indicators, last), timeout)

    @suggesting
    def analyze(self, parts: calls.AnalyzeParts, *, timeout: float | None = None) -> "asyncio.Future[Analysis]":
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
        if not self._entered:
            raise ClosedError("enter the stream first: async with client.stream() as stream")
        seconds = None if timeout is None else arguments.seconds(timeout, "timeout")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        asked = [
            self._lane.ask(call.method, request, part, timeout=seconds)
            for request, part in zip(call.requests, parts(call, future), strict=True)
        ]
        future.add_done_callback(lambda future: [*map(self._lane.withdraw, asked)] if future.cancelled() else None)
        return future


class _Reading(Generic[T]):
    """The answers to a call's requests, which are read into the future of the call when all are there."""

    def __init__(self, call: calls.Call[T], future: Any) -> None:
        self._call = call
        self.future = future
        self._found: list[Any] = [None] * len(call.requests)
        self._left = len(call.requests)

    def set(self, at: int, answer: Any) -> None:
        explained = isinstance(answer, MarketInferenceError)
        self._found[at] = self._call.explain(answer, at) if explained else answer
        self._left -= 1
        if self._left or self.future.done():
            return
        try:
            # As in the clients: the first request's error is the call's, a later one stands for its items.
            if isinstance(self._found[0], BaseException):
                raise self._found[0]
            result = self._call.read(self._found)
        except Exception as error:  # noqa: BLE001 -- the caller's, as from a unary call; other calls go on
            self.future.set_exception(error)
        else:
            self.future.set_result(result)


class _Part(Generic[T]):
    """The waiter for one request of a call."""

    __slots__ = ("_at", "_reading")

    def __init__(self, reading: _Reading[T], at: int) -> None:
        self._reading = reading
        self._at = at

    def done(self) -> bool:
        return bool(self._reading.future.done())

    def set_result(self, result: Any, /) -> None:
        self._reading.set(self._at, result)

    def set_exception(self, exception: BaseException, /) -> None:
        self._reading.set(self._at, exception)


def parts(call: calls.Call[T], future: Any) -> list[_Part[T]]:
    """A waiter for each request of a call; `future`, of asyncio or of concurrent.futures, gets what the user gets."""
    reading = _Reading(call, future)
    return [_Part(reading, at) for at in range(len(call.requests))]


class Stream:
    """Made by Client.stream(), for programs without asyncio; safe to share between threads.

        with client.stream() as stream:
            futures = [stream.predict(closes, horizon=5) for closes in series]
            for future in stream.as_completed(futures):
                forecast = future.result()

    The methods are those of AsyncStream and return a concurrent.futures.Future at once. A thread of the stream's own
    runs an event loop with its own connection.
    """

    def __init__(self, connection: Connection, retries: Retries, timeout: float) -> None:
        self._lane = ThreadedLane(connection, resends=retries.attempts, timeout=timeout)
        self._entered = False

    def __enter__(self) -> Self:
        self._lane.start()
        self._entered = True
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Cancel the calls without an answer and end the stream."""
        self._entered = False
        self._lane.close()

    @suggesting
    def predict(
        self,
        series: SeriesLike,
        horizon: int,
        *,
        quantiles: Levels = None,
        interval: Levels = None,
        model: str = "",
        period: int = 0,
        times: bool | Times | None = None,
        covariates: Beside | None = None,
        known_ahead: Iterable[str] = (),
        groups: Groups = None,
        timeout: float | None = None,
    ) -> "concurrent.futures.Future[Forecast | ForecastAnswers]":
        """As Client.predict."""
        return self._ask(
            calls.predict(series, horizon, quantiles, model, interval, period, covariates, known_ahead, groups, times),
            timeout,
        )

    @suggesting
    def sentiment(
        self,
        texts: str | ManyTexts,
        *,
        about: str | Iterable[str] | None = None,
        model: str = "",
        timeout: float | None = None,
    ) -> "concurrent.futures.Future[Sentiment | Answers[Sentiment]]":
        """As Client.sentiment."""
        return self._ask(calls.sentiment(texts, model, about), timeout)

    @suggesting
    def indicators(
        self, bars: BarsLike, indicators: IndicatorSpecs, *, last: int = 0, timeout: float | None = None
    ) -> "concurrent.futures.Future[Indicators | IndicatorAnswers]":
        """As Client.indicators."""
        return self._ask(calls.indicators(bars, indicators, last), timeout)

    @suggesting
    def analyze(
        self, parts: calls.AnalyzeParts, *, timeout: float | None = None
    ) -> "concurrent.futures.Future[Analysis]":
        """As Client.analyze."""
        return self._ask(calls.analyze(parts), timeout)

    @staticmethod
    def as_completed(
        futures: Iterable["concurrent.futures.Future[T]"],
    ) -> Iterator["concurrent.futures.Future[T]"]:
        """The futures themselves, each as soon as it is done."""
        return concurrent.futures.as_completed(futures)

    def _ask(self, call: calls.Call[T], timeout: float | None) -> "concurrent.futures.Future[T]":
        seconds = None if timeout is None else arguments.seconds(timeout, "timeout")
        if not self._entered:
            raise ClosedError("enter the stream first: with client.stream() as stream")
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        for request, part in zip(call.requests, parts(call, future), strict=True):
            self._lane.ask(call.method, request, part, future, timeout=seconds)
        return future
