"""The asynchronous client, for programs built on asyncio.

Owns the channel of calls, the channels of sessions, and the waiting. calls.py owns the content of requests and answers.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, cast, overload

import grpc

from market_inference.client import calls
from market_inference.client.attempt import Attempt, CallOptions, PredictOptions
from market_inference.client.channels import Channels
from market_inference.client.connection import DEFAULT_TARGET, TLS, Connection, methods
from market_inference.client.inputs import arguments
from market_inference.client.keywords import known, suggesting
from market_inference.client.lane import IDLE_SECONDS, Asked, Lane, NoStreamError
from market_inference.client.retries import Retries
from market_inference.client.session import Delivery, ForecastEvery, Record
from market_inference.client.stream import AsyncStream
from market_inference.client.watch import RECONNECT_SECONDS, AsyncWatch
from market_inference.contract.methods import METHODS
from market_inference.errors import ClosedError, MarketInferenceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from market_inference.client.answers import Analysis, Answers, Indicators, Sentiment
    from market_inference.client.bulk import ForecastAnswers, IndicatorAnswers
    from market_inference.client.forecast import Forecast
    from market_inference.client.indicator import IndicatorSpecs
    from market_inference.client.status import ModelInfo, ServiceStatus
    from market_inference.client.types import (
        BarsLike,
        Beside,
        Column,
        Groups,
        Levels,
        ManyBars,
        ManySeries,
        ManyTexts,
        OneBars,
        OneColumn,
        SeriesLike,
        Times,
    )

T = TypeVar("T")


class AsyncClient:
    """The methods of Client, to await; one client belongs to one event loop, the loop of its first call.

    Cancelling the task that awaits a call cancels the call.

        async with AsyncClient() as client:
            forecast, mood = await asyncio.gather(client.predict(closes, horizon=10), client.sentiment(headline))
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        api_key: str | None = None,
        tls: TLS | bool | None = None,
        timeout: float = 30.0,
        retries: Retries = Retries(),  # noqa: B008  # frozen
    ) -> None:
        self._connection = Connection(target, api_key, tls)
        self._timeout = arguments.seconds(timeout, "timeout")
        self._retries = retries
        self._channel: grpc.aio.Channel | None = None
        self._methods: dict[str, Any] = {}
        self._sessions = Channels(self._connection.aio_channel)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._lane: Lane | None = None
        self._in_flight = 0

    @property
    def target(self) -> str:
        """The gateway's "host:port"."""
        return self._connection.target

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the channel; calls in flight end with CancelledError, later calls with ClosedError."""
        self._closed = True
        if self._lane is not None:
            await self._lane.close()
        for channel in (self._channel, *self._sessions.close()):
            if channel is not None:
                await channel.close()

    @overload
    async def predict(self, series: OneColumn, horizon: int, **options: Unpack[PredictOptions]) -> Forecast: ...

    @overload
    async def predict(
        self, series: ManySeries, horizon: int, *, groups: Groups = None, **options: Unpack[PredictOptions]
    ) -> ForecastAnswers: ...

    @overload
    async def predict(self, series: Column, horizon: int, **options: Unpack[PredictOptions]) -> Forecast: ...

    async def predict(
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
        **options: Unpack[CallOptions],
    ) -> Forecast | ForecastAnswers:
        """As Client.predict."""
        return await self._run(
            self.predict,
            calls.predict(series, horizon, quantiles, model, interval, period, covariates, known_ahead, groups, times),
            options,
        )

    @overload
    async def sentiment(  # type: ignore[overload-overlap]  # a str is an Iterable[str]
        self, texts: str, *, about: str | None = None, model: str = "", **options: Unpack[CallOptions]
    ) -> Sentiment: ...

    @overload
    async def sentiment(
        self,
        texts: str | ManyTexts,
        *,
        about: str | Iterable[str] | None = None,
        model: str = "",
        **options: Unpack[CallOptions],
    ) -> Answers[Sentiment]: ...

    async def sentiment(
        self,
        texts: str | ManyTexts,
        *,
        about: str | Iterable[str] | None = None,
        model: str = "",
        **options: Unpack[CallOptions],
    ) -> Sentiment | Answers[Sentiment]:
        """As Client.sentiment."""
        return await self._run(self.sentiment, calls.sentiment(texts, model, about), options)

    @overload
    async def indicators(
        self, bars: OneBars, indicators: IndicatorSpecs, *, last: int = 0, **options: Unpack[CallOptions]
    ) -> Indicators: ...

    @overload
    async def indicators(
        self, bars: ManyBars, indicators: IndicatorSpecs, *, last: int = 0, **options: Unpack[CallOptions]
    ) -> IndicatorAnswers: ...

    @overload
    async def indicators(
        self, bars: Mapping[str, Column], indicators: IndicatorSpecs, *, last: int = 0, **options: Unpack[CallOptions]
    ) -> Any: ...

    @overload
    async def indicators(
        self, bars: Column, indicators: IndicatorSpecs, *, last: int = 0, **options: Unpack[CallOptions]
    ) -> Indicators: ...

    async def indicators(
        self, bars: BarsLike, indicators: IndicatorSpecs, *, last: int = 0, **options: Unpack[CallOptions]
    ) -> Indicators | IndicatorAnswers:
        """As Client.indicators."""
        return await self._run(self.indicators, calls.indicators(bars, indicators, last), options)

    async def analyze(
        self,
        series: SeriesLike | None = None,
        horizon: int = 10,
        *,
        quantiles: Levels = None,
        texts: str | ManyTexts | None = None,
        bars: BarsLike | None = None,
        indicators: IndicatorSpecs = (),
        last: int = 0,
        forecast_model: str = "",
        sentiment_model: str = "",
        **options: Unpack[CallOptions],
    ) -> Analysis:
        """As Client.analyze."""
        parts = calls.AnalyzeParts(
            series, horizon, quantiles, texts, bars, indicators, last, forecast_model, sentiment_model
        )
        return await self._run(self.analyze, calls.analyze(parts), options)

    async def status(self, **options: Unpack[CallOptions]) -> ServiceStatus:
        """As Client.status."""
        return await self._run(self.status, calls.get_status(), options)

    async def models(self, **options: Unpack[CallOptions]) -> list[ModelInfo]:
        """As Client.models."""
        return await self._run(self.models, calls.list_models(), options)

    @suggesting
    def watch(
        self,
        symbol: str,
        bars: BarsLike,
        *,
        times: Times | None = None,
        indicators: IndicatorSpecs = (),
        forecast: ForecastEvery | None = None,
        delivery: Delivery = "lossless",
        keep: int = 500,
        reconnect_seconds: float = RECONNECT_SECONDS,
    ) -> AsyncWatch:
        """As Client.watch, to be entered with `async with`."""
        record = Record(symbol, bars, times, indicators, forecast, delivery, keep)
        self._open()
        return AsyncWatch(self._sessions, self._connection, record, reconnect_seconds, delivery == "latest")

    def stream(self) -> AsyncStream:
        """Many calls on one stream, for bulk: several times the calls per second; see AsyncStream."""
        self._open()
        return AsyncStream(self._methods["Stream"], self._connection, self._retries, self._timeout)

    def _open(self) -> grpc.aio.Channel:
        """The channel of the running event loop. Raises ClosedError."""
        if self._closed:
            raise ClosedError("this client is closed: make a new one")
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise ClosedError("an AsyncClient works inside a running event loop: call it from a coroutine") from None
        if self._channel is None:
            self._loop = loop
            self._channel = self._connection.aio_channel()
            self._methods = methods(self._channel)
        if loop is not self._loop:
            raise ClosedError("this client belongs to another event loop: make one inside each asyncio.run()")
        return self._channel

    async def _run(self, method: Callable[..., Any], call: calls.Call[T], options: CallOptions) -> T:
        self._open()
        attempt = Attempt(self._connection, self._retries, self._timeout, **known(method, options))
        answers: list[Any] = []
        # Requests of a call with several are in flight together; by place in the call.
        ahead: dict[int, Asked] = {}
        try:
            for at, request in enumerate(call.requests):
                try:
                    if len(call.requests) > 1 and self._shares(call.method):
                        for place, early in call.ahead(at, ahead):
                            ahead[place] = self._ask(call.method, early, attempt)
                    answers.append(await self._send(call.method, request, attempt, ahead.pop(at, None)))
                except MarketInferenceError as error:
                    error = call.explain(error, len(answers))
                    if all(isinstance(answer, MarketInferenceError) for answer in answers):
                        raise error from None
                    answers.append(error)
        finally:
            for asked in ahead.values():
                self._leave(asked)
        return call.read(answers)

    async def _send(self, method: str, request: bytes, attempt: Attempt, sent: Asked | None = None) -> bytes:
        """The answer to a request; `sent` where it is on the lane already."""
        while True:
            self._in_flight += 1
            try:
                # A lone call is unary: the lane is for calls in company.
                if sent is None and self._in_flight > 1 and self._shares(method):
                    sent = self._ask(method, request, attempt)
                if sent is None:
                    answer = await self._alone(method, request, attempt)
                else:
                    answer = await self._wait(sent, method, request, attempt)
            except (grpc.RpcError, MarketInferenceError) as failure:
                pause = attempt.pause_after(failure)
            except grpc.aio.UsageError:
                self._open()
                raise
            else:
                attempt.answered()
                return answer
            finally:
                self._in_flight -= 1
            sent = None
            await asyncio.sleep(pause)

    async def _alone(self, method: str, request: bytes, attempt: Attempt) -> bytes:
        send = self._methods[method]
        answer: bytes = await send(request, timeout=attempt.timeout, metadata=attempt.metadata)
        return answer

    def _shares(self, method: str) -> bool:
        """Whether a request of a method may go on the lane of this client."""
        return not (self._lane is not None and self._lane.refused) and METHODS[method].streamable

    def _ask(self, method: str, request: bytes, attempt: Attempt) -> Asked:
        """Send a request on the lane."""
        if self._lane is None:
            self._lane = Lane(self._methods["Stream"], self._connection, idle_seconds=IDLE_SECONDS, or_unary=True)
        return self._lane.ask(method, request, asyncio.get_running_loop().create_future(), **attempt.options)

    async def _wait(self, asked: Asked, method: str, request: bytes, attempt: Attempt) -> bytes:
        """The answer to a request on the lane."""
        future = cast("asyncio.Future[bytes]", asked.waiter)
        try:
            return await future
        except NoStreamError:
            return await self._alone(method, request, attempt)
        finally:
            if future.cancelled():
                self._leave(asked)

    def _leave(self, asked: Asked) -> None:
        """No caller waits for a request on the lane any longer."""
        cast("asyncio.Future[bytes]", asked.waiter).cancel()
        if self._lane is not None:
            self._lane.withdraw(asked)
