"""The asynchronous client, for programs built on asyncio.

Owns one grpc.aio channel to a gateway and the waiting. calls.py owns the content of requests and answers.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, overload

import grpc

from market_inference.client import calls
from market_inference.client.attempt import Attempt, CallOptions
from market_inference.client.connection import DEFAULT_TARGET, TLS, Connection
from market_inference.client.inputs import arguments
from market_inference.client.lane import IDLE_SECONDS, Lane, NoStreamError
from market_inference.client.retries import Retries
from market_inference.client.session import Delivery, ForecastEvery, Record
from market_inference.client.stream import AsyncStream
from market_inference.client.watch import RECONNECT_SECONDS, AsyncWatch
from market_inference.contract.generated.inference_pb2_grpc import MarketInferenceServiceStub
from market_inference.contract.methods import METHODS
from market_inference.errors import ClosedError, MarketInferenceError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from market_inference.client.answers import Analysis, Answers, Indicators, Sentiment
    from market_inference.client.forecast import Forecast
    from market_inference.client.indicator import IndicatorSpecs
    from market_inference.client.status import ModelInfo, ServiceStatus
    from market_inference.client.types import (
        BarsLike,
        Column,
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
        self._made: MarketInferenceServiceStub | None = None
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

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the channel; calls in flight end with CancelledError, later calls with ClosedError."""
        self._closed = True
        if self._lane is not None:
            await self._lane.close()
        if self._channel is not None:
            await self._channel.close()

    @overload
    async def predict(
        self,
        series: OneColumn,
        horizon: int,
        *,
        quantiles: Levels = None,
        interval: Levels = None,
        model: str = "",
        **options: Unpack[CallOptions],
    ) -> Forecast: ...

    @overload
    async def predict(
        self,
        series: ManySeries,
        horizon: int,
        *,
        quantiles: Levels = None,
        interval: Levels = None,
        model: str = "",
        **options: Unpack[CallOptions],
    ) -> Answers[Forecast]: ...

    @overload
    async def predict(
        self,
        series: Column,
        horizon: int,
        *,
        quantiles: Levels = None,
        interval: Levels = None,
        model: str = "",
        **options: Unpack[CallOptions],
    ) -> Forecast: ...

    async def predict(
        self,
        series: SeriesLike,
        horizon: int,
        *,
        quantiles: Levels = None,
        interval: Levels = None,
        model: str = "",
        **options: Unpack[CallOptions],
    ) -> Forecast | Answers[Forecast]:
        """As Client.predict."""
        return await self._run(calls.predict(series, horizon, quantiles, model, interval), options)

    @overload
    async def sentiment(self, texts: str, *, model: str = "", **options: Unpack[CallOptions]) -> Sentiment: ...  # type: ignore[overload-overlap]  # a str is an Iterable[str]

    @overload
    async def sentiment(
        self, texts: ManyTexts, *, model: str = "", **options: Unpack[CallOptions]
    ) -> Answers[Sentiment]: ...

    async def sentiment(
        self, texts: str | ManyTexts, *, model: str = "", **options: Unpack[CallOptions]
    ) -> Sentiment | Answers[Sentiment]:
        """As Client.sentiment."""
        return await self._run(calls.sentiment(texts, model), options)

    @overload
    async def indicators(
        self, bars: OneBars, indicators: IndicatorSpecs, *, last: int = 0, **options: Unpack[CallOptions]
    ) -> Indicators: ...

    @overload
    async def indicators(
        self, bars: ManyBars, indicators: IndicatorSpecs, *, last: int = 0, **options: Unpack[CallOptions]
    ) -> Answers[Indicators]: ...

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
    ) -> Indicators | Answers[Indicators]:
        """As Client.indicators."""
        return await self._run(calls.indicators(bars, indicators, last), options)

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
        parts = calls.Parts(series, horizon, quantiles, texts, bars, indicators, last, forecast_model, sentiment_model)
        return await self._run(calls.analyze(parts), options)

    async def status(self, **options: Unpack[CallOptions]) -> ServiceStatus:
        """As Client.status."""
        return await self._run(calls.get_status(), options)

    async def models(self, **options: Unpack[CallOptions]) -> list[ModelInfo]:
        """As Client.models."""
        return await self._run(calls.list_models(), options)

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
        return AsyncWatch(self._stub(), self._connection, record, reconnect_seconds, delivery == "latest")

    def stream(self) -> AsyncStream:
        """Many calls on one stream, for bulk: several times the calls per second; see AsyncStream."""
        return AsyncStream(self._stub(), self._connection, self._retries)

    def _stub(self) -> MarketInferenceServiceStub:
        """The stub of this event loop's channel. Raises ClosedError."""
        if self._closed:
            raise ClosedError("this client is closed: make a new one")
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise ClosedError("an AsyncClient works inside a running event loop: call it from a coroutine") from None
        if self._made is None:
            self._loop = loop
            self._channel = self._connection.aio_channel()
            self._made = MarketInferenceServiceStub(self._channel)
        if loop is not self._loop:
            raise ClosedError("this client belongs to another event loop: make one inside each asyncio.run()")
        return self._made

    async def _run(self, call: calls.Call[T], options: CallOptions) -> T:
        stub = self._stub()
        attempt = Attempt(self._connection, self._retries, self._timeout, **options)
        answers: list[Any] = []
        for request in call.requests:
            try:
                answers.append(await self._send(stub, call.method, request, attempt))
            except MarketInferenceError as error:
                error = call.explain(error, len(answers))
                if all(isinstance(answer, MarketInferenceError) for answer in answers):
                    raise error from None
                answers.append(error)
        return call.read(answers)

    async def _send(self, stub: MarketInferenceServiceStub, method: str, request: Any, attempt: Attempt) -> Any:
        while True:
            self._in_flight += 1
            try:
                # A lone call is unary: the lane is for calls in company.
                answer = await (self._share if self._in_flight > 1 else self._alone)(stub, method, request, attempt)
            except (grpc.RpcError, MarketInferenceError) as failure:
                pause = attempt.pause_after(failure)
            except grpc.aio.UsageError:
                self._stub()
                raise
            else:
                attempt.answered()
                return answer
            finally:
                self._in_flight -= 1
            await asyncio.sleep(pause)

    @staticmethod
    async def _alone(stub: MarketInferenceServiceStub, method: str, request: Any, attempt: Attempt) -> Any:
        return await getattr(stub, method)(request, timeout=attempt.timeout, metadata=attempt.metadata)

    async def _share(self, stub: MarketInferenceServiceStub, method: str, request: Any, attempt: Attempt) -> Any:
        """Send a call on the lane of this client."""
        if self._lane is None:
            self._lane = Lane(stub, self._connection, idle_seconds=IDLE_SECONDS, or_unary=True)
        if self._lane.refused or not METHODS[method].streamable:
            return await self._alone(stub, method, request, attempt)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        asked = self._lane.ask(method, request, future, **attempt.options)
        try:
            async with asyncio.timeout(attempt.timeout):
                return await future
        except NoStreamError:
            return await self._alone(stub, method, request, attempt)
        except TimeoutError:
            raise attempt.too_late from None
        finally:
            if future.cancelled():
                self._lane.withdraw(asked)
