"""The synchronous client.

Owns one channel to a gateway and the waiting; what is sent and how answers are read is calls.py's.
"""

import time
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
from market_inference.client.watch import RECONNECT_SECONDS, Watch
from market_inference.contract.generated.inference_pb2_grpc import MarketInferenceServiceStub

T = TypeVar("T")


class Client:
    """A connection to a market-inference gateway; safe to share between threads, closed by `with` or `close()`.

    `target`: "host:port". `api_key`: else $MARKET_INFERENCE_API_KEY, else on loopback the key of the gateway on this
    machine. `tls`: True for the system's roots, or a TLS with files; None sends in plain text, the key included: keep
    that to a network that you trust. `timeout`: seconds that a call may take. `retries`: when a failed call is sent
    again.

    Every call takes the keywords of CallOptions: `timeout`, `request_id`, `priority`, `traceparent`; and raises a
    `market_inference.MarketInferenceError`, by kind as `market_inference.errors` says. ValueError and TypeError say
    that the arguments cannot be sent at all.

        with Client() as client:
            forecast = client.predict(closes, horizon=10)
            mood = client.sentiment("Chipmaker lifts full-year guidance")
            values = client.indicators(bars, ["RSI", ("SMA", {"timeperiod": 50})])
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
            self._channel = grpc.insecure_channel(target, CHANNEL_OPTIONS)
        else:
            self._channel = grpc.secure_channel(target, secure.credentials(), [*CHANNEL_OPTIONS, *secure.options()])
        self._stub = MarketInferenceServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the channel; calls in flight end with CancelledError."""
        self._channel.close()

    @overload
    def predict(
        self,
        series: Column,
        horizon: int,
        *,
        quantiles: Sequence[float] | None = None,
        model: str = "",
        **options: Unpack[CallOptions],
    ) -> Forecast: ...

    @overload
    def predict(
        self,
        series: Mapping[str, Column] | Sequence[Column] | Frame,
        horizon: int,
        *,
        quantiles: Sequence[float] | None = None,
        model: str = "",
        **options: Unpack[CallOptions],
    ) -> Answers[Forecast]: ...

    def predict(
        self,
        series: Column | Mapping[str, Column] | Sequence[Column] | Frame,
        horizon: int,
        *,
        quantiles: Sequence[float] | None = None,
        model: str = "",
        **options: Unpack[CallOptions],
    ) -> Forecast | Answers[Forecast]:
        """Forecast `horizon` steps of one series, oldest value first, or of many in one call.

        One series (a list, array or column) gives a Forecast. Many give Answers in their order, where each may fail
        alone: a mapping of symbol to values, a frame whose columns are symbols, a list of series, or a 2-D array whose
        rows are series (which a type checker cannot tell from one). `quantiles`: levels between 0 and 1, by default
        0.1 to 0.9. `model`: a name from `models()`.
        """
        return self._run(calls.predict(series, horizon, quantiles, model), options)

    @overload
    def sentiment(self, texts: str, *, model: str = "", **options: Unpack[CallOptions]) -> Sentiment: ...  # type: ignore[overload-overlap]  # a str is an Iterable[str]

    @overload
    def sentiment(
        self, texts: Iterable[str], *, model: str = "", **options: Unpack[CallOptions]
    ) -> Answers[Sentiment]: ...

    def sentiment(
        self, texts: str | Iterable[str], *, model: str = "", **options: Unpack[CallOptions]
    ) -> Sentiment | Answers[Sentiment]:
        """Classify one text (a Sentiment), or several (Answers, in order)."""
        return self._run(calls.sentiment(texts, model), options)

    @overload
    def indicators(  # type: ignore[overload-overlap]  # an empty mapping is both, and refused
        self,
        bars: Bars,
        indicators: IndicatorSpec | Iterable[IndicatorSpec],
        *,
        last: int = 0,
        **options: Unpack[CallOptions],
    ) -> Indicators: ...

    @overload
    def indicators(
        self,
        bars: Mapping[str, Bars] | Sequence[Bars],
        indicators: IndicatorSpec | Iterable[IndicatorSpec],
        *,
        last: int = 0,
        **options: Unpack[CallOptions],
    ) -> Answers[Indicators]: ...

    def indicators(
        self,
        bars: Bars | Mapping[str, Bars] | Sequence[Bars],
        indicators: IndicatorSpec | Iterable[IndicatorSpec],
        *,
        last: int = 0,
        **options: Unpack[CallOptions],
    ) -> Indicators | Answers[Indicators]:
        """Compute TA-Lib indicators over the bars of one instrument (Indicators) or of many (Answers).

        Bars: a mapping or frame with columns open, high, low, close, volume in any case, of which only those need to be
        there that the indicators read, or the closes alone. Many: a mapping of symbol to bars, or a list of bars.
        Indicators: "RSI", "SMA:timeperiod=50", ("SMA", {"timeperiod": 50}), or a mapping with name, params and last.
        `last`: only this many newest values, for all that do not say their own; 0 is one value per bar.
        """
        return self._run(calls.indicators(bars, indicators, last), options)

    def analyze(
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
        """Forecasts of `series`, sentiment of `texts` and indicators of `bars` in one call under one deadline.

        Give any of the three. A part that fails leaves the others whole.
        """
        parts = calls.Parts(series, horizon, quantiles, texts, bars, indicators, last, forecast_model, sentiment_model)
        return self._run(calls.analyze(parts), options)

    def status(self, **options: Unpack[CallOptions]) -> ServiceStatus:
        """The health of the service, by running every engine on a small real input."""
        return self._run(calls.get_status(), options)

    def models(self, **options: Unpack[CallOptions]) -> list[ModelInfo]:
        """The models that a call may name."""
        return self._run(calls.list_models(), options)

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
    ) -> Watch:
        """A live session: give it one bar at a time, and every bar is answered with fresh values.

        `bars`: those so far, oldest first, in any form that indicators() takes; their columns are those of every bar to
        come. `times`: when they open, as many as bars. `indicators`: computed at every bar. `forecast`: forecasts of
        the closes at every n-th bar. `delivery`: "lossless", or "latest" for a reader who only wants the newest update.
        `keep`: bars to hold, at least as many as are given, for lookbacks, forecasts and opening the session again.
        `reconnect_seconds`: for how long a lost session is tried to be opened again.
        """
        record = Record(symbol, bars, times, indicators, forecast, delivery, keep)
        return Watch(self._stub, self._key, record, reconnect_seconds)

    def _run(self, call: calls.Call[T], options: CallOptions) -> T:
        attempt = Attempt(self._key, self._retries, self._timeout, **options)
        send = getattr(self._stub, call.method)
        while True:
            try:
                answer = send(call.request, timeout=attempt.timeout, metadata=attempt.metadata)
            except grpc.RpcError as failure:
                pause = attempt.pause_after(failure)
            else:
                return call.read(answer)
            time.sleep(pause)
