"""The asynchronous client, for programs built on asyncio.

Owns one grpc.aio channel to a gateway and the waiting; what is sent and how answers are read is calls.py's.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Self, TypeVar, Unpack, overload

import grpc

from market_inference.client import calls
from market_inference.client.answers import Analysis, Answers, Indicators, Sentiment
from market_inference.client.attempt import Attempt, CallOptions
from market_inference.client.connection import CHANNEL_OPTIONS, DEFAULT_TARGET, TLS, find_key
from market_inference.client.forecast import Forecast
from market_inference.client.indicator import IndicatorSpec
from market_inference.client.inputs import Bars, Column, Frame
from market_inference.client.retries import Retries
from market_inference.client.session import Delivery, ForecastEvery, Record, Time
from market_inference.client.status import ModelInfo, ServiceStatus
from market_inference.client.stream import AsyncStream
from market_inference.client.watch import RECONNECT_SECONDS, AsyncWatch
from market_inference.contract.generated.inference_pb2_grpc import MarketInferenceServiceStub

T = TypeVar("T")


class AsyncClient:
    """As Client, call by call, for asyncio: made inside a running event loop, and used in that loop alone.

    Cancelling the task that awaits a call withdraws the call.

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
        self.target = target
        self._key = find_key(target, api_key)
        self._timeout = timeout
        self._retries = retries
        secure = TLS() if tls is True else tls or None
        if secure is None:
            self._channel = grpc.aio.insecure_channel(target, CHANNEL_OPTIONS)
        else:
            self._channel = grpc.aio.secure_channel(target, secure.credentials(), [*CHANNEL_OPTIONS, *secure.options()])
        self._stub = MarketInferenceServiceStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the channel; calls in flight end with CancelledError."""
        await self._channel.close()

    @overload
    async def predict(
        self,
        series: Column,
        horizon: int,
        *,
        quantiles: Sequence[float] | None = None,
        model: str = "",
        **options: Unpack[CallOptions],
    ) -> Forecast: ...

    @overload
    async def predict(
        self,
        series: Mapping[str, Column] | Sequence[Column] | Frame,
        horizon: int,
        *,
        quantiles: Sequence[float] | None = None,
        model: str = "",
        **options: Unpack[CallOptions],
    ) -> Answers[Forecast]: ...

    async def predict(
        self,
        series: Column | Mapping[str, Column] | Sequence[Column] | Frame,
        horizon: int,
        *,
        quantiles: Sequence[float] | None = None,
        model: str = "",
        **options: Unpack[CallOptions],
    ) -> Forecast | Answers[Forecast]:
        """As Client.predict."""
        return await self._run(calls.predict(series, horizon, quantiles, model), options)

    @overload
    async def sentiment(self, texts: str, *, model: str = "", **options: Unpack[CallOptions]) -> Sentiment: ...  # type: ignore[overload-overlap]  # a str is an Iterable[str]

    @overload
    async def sentiment(
        self, texts: Iterable[str], *, model: str = "", **options: Unpack[CallOptions]
    ) -> Answers[Sentiment]: ...

    async def sentiment(
        self, texts: str | Iterable[str], *, model: str = "", **options: Unpack[CallOptions]
    ) -> Sentiment | Answers[Sentiment]:
        """As Client.sentiment."""
        return await self._run(calls.sentiment(texts, model), options)

    @overload
    async def indicators(  # type: ignore[overload-overlap]  # an empty mapping is both, and refused
        self,
        bars: Bars,
        indicators: IndicatorSpec | Iterable[IndicatorSpec],
        *,
        last: int = 0,
        **options: Unpack[CallOptions],
    ) -> Indicators: ...

    @overload
    async def indicators(
        self,
        bars: Mapping[str, Bars] | Sequence[Bars],
        indicators: IndicatorSpec | Iterable[IndicatorSpec],
        *,
        last: int = 0,
        **options: Unpack[CallOptions],
    ) -> Answers[Indicators]: ...

    async def indicators(
        self,
        bars: Bars | Mapping[str, Bars] | Sequence[Bars],
        indicators: IndicatorSpec | Iterable[IndicatorSpec],
        *,
        last: int = 0,
        **options: Unpack[CallOptions],
    ) -> Indicators | Answers[Indicators]:
        """As Client.indicators."""
        return await self._run(calls.indicators(bars, indicators, last), options)

    async def analyze(
        self,
        series: Column | Mapping[str, Column] | Sequence[Column] | Frame | None = None,
        horizon: int = 10,
        *,
        quantiles: Sequence[float] | None = None,
        texts: str | Iterable[str] | None = None,
        bars: Bars | Mapping[str, Bars] | Sequence[Bars] | None = None,
        indicators: IndicatorSpec | Iterable[IndicatorSpec] = (),
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
        bars: Bars,
        *,
        times: Sequence[Time] | None = None,
        indicators: IndicatorSpec | Sequence[IndicatorSpec] = (),
        forecast: ForecastEvery | None = None,
        delivery: Delivery = "lossless",
        keep: int = 500,
        reconnect_seconds: float = RECONNECT_SECONDS,
    ) -> AsyncWatch:
        """As Client.watch, to be entered with `async with`."""
        record = Record(symbol, bars, times, indicators, forecast, delivery, keep)
        return AsyncWatch(self._stub, self._key, record, reconnect_seconds, delivery == "latest")

    def stream(self) -> AsyncStream:
        """Many calls on one stream, for bulk: several times the calls a second, in any order; see AsyncStream."""
        return AsyncStream(self._stub, self._key, self._retries)

    async def _run(self, call: calls.Call[T], options: CallOptions) -> T:
        attempt = Attempt(self._key, self._retries, self._timeout, **options)
        send = getattr(self._stub, call.method)
        while True:
            try:
                answer = await send(call.request, timeout=attempt.timeout, metadata=attempt.metadata)
            except grpc.RpcError as failure:
                pause = attempt.pause_after(failure)
            else:
                return call.read(answer)
            await asyncio.sleep(pause)
