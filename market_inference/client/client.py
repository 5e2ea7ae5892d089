"""The synchronous client.

Owns the channel of calls, the channels of sessions, and the waiting. calls.py owns the content of requests and answers.
"""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, overload

import grpc

from market_inference.client import calls
from market_inference.client.attempt import Attempt, CallOptions, PredictOptions
from market_inference.client.channels import Channels
from market_inference.client.connection import DEFAULT_TARGET, TLS, Connection, methods
from market_inference.client.inputs import arguments
from market_inference.client.keywords import known, suggesting
from market_inference.client.lane import IDLE_SECONDS, NoStreamError, ThreadedLane
from market_inference.client.retries import Retries
from market_inference.client.session import Delivery, ForecastEvery, Record
from market_inference.client.stream import Stream
from market_inference.client.watch import RECONNECT_SECONDS, Watch
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


class Client:
    """A connection to a market-inference gateway; safe to share between threads, closed by `with` or `close()`.

    `target`: "host:port". `api_key`: else $MARKET_INFERENCE_API_KEY, else on loopback the key of this machine's
    gateway. `tls`: True for the system's roots, or a TLS with files; None sends in plain text, the key included: for
    trusted networks only. `timeout`: seconds for a call, math.inf for no limit. `retries`: the policy of sending
    again.

    Every call takes the keywords of CallOptions: `timeout`, `request_id`, `priority`, `traceparent`; and raises a
    `market_inference.MarketInferenceError`, by kind as `market_inference.errors` says. An argument without a form in
    the contract raises ArgumentError, which is also a ValueError and a TypeError, before anything is sent.

    Times: rows with dates, in an index or a column, are sent oldest first: descending rows are reversed with a note
    (`answer.notes` and an InputWarning), other orders and duplicates are refused. More items than a request may hold
    (256 series, 100 texts, 64 panels, 8 MiB) travel in several requests under the call's one deadline.

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
        self._connection = Connection(target, api_key, tls)
        self._timeout = arguments.seconds(timeout, "timeout")
        self._retries = retries
        self._channel = self._connection.channel()
        self._methods = methods(self._channel)
        self._sessions = Channels(self._connection.channel)
        self._closed = False
        self._lane = ThreadedLane(self._connection, idle_seconds=IDLE_SECONDS, or_unary=True)
        self._lock = threading.Lock()
        self._in_flight = 0

    @property
    def target(self) -> str:
        """The gateway's "host:port"."""
        return self._connection.target

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the channel; calls in flight end with CancelledError, later calls with ClosedError."""
        self._closed = True
        self._lane.close()
        for channel in (self._channel, *self._sessions.close()):
            channel.close()

    @overload
    def predict(self, series: OneColumn, horizon: int, **options: Unpack[PredictOptions]) -> Forecast: ...

    @overload
    def predict(
        self, series: ManySeries, horizon: int, *, groups: Groups = None, **options: Unpack[PredictOptions]
    ) -> ForecastAnswers: ...

    @overload
    def predict(self, series: Column, horizon: int, **options: Unpack[PredictOptions]) -> Forecast: ...

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
        **options: Unpack[CallOptions],
    ) -> Forecast | ForecastAnswers:
        """Forecast `horizon` steps of one series, oldest value first, or of many in one call.

        One series (a list, an array [n] or [n, 1], a frame's column) gives a Forecast. Many give Answers in their
        order, where each may fail alone: a mapping of symbol to values, a frame with a column for each symbol, a long
        frame (unique_id, ds, y), a list of series, or a 2-D array whose rows are series (which a type checker cannot
        tell from one). An array that looks like prices with a series in a column raises an InputWarning. `quantiles`:
        levels between 0 and 1, by default 0.1 to 0.9. `interval`: shares of central intervals, such as 0.95, whose
        levels are added. `model`: a name from `models()`. `period`: values of one cycle of the volatility, such as 24
        for hourly prices; `forecast.coverage.by_phase` then has the coverage by phase. `times`: True takes the phases
        of the cycle from the times of the series, so that missing rows shift no phase; the cycle is then a day, or a
        week for daily rows, unless `period` says so. Or the times of one series.

        For a model whose `takes` in `models()` names them: `covariates`, a mapping of name to column or a frame with a
        column for each. In place of a column, columns in the form of `series`. Rows are matched by time where both have
        times, else by position. `known_ahead`: the names of those with `horizon` rows more, known before they happen,
        such as a calendar. `groups`: series to forecast together, from each other: True for all, a mapping of symbol
        to label, or a label for each series.

        Missing values before the first value, and in a frame of several symbols those after a symbol's last value, are
        left out, and `forecast.notes` says so; others are refused by row. `forecast.warnings` holds the doubts of the
        service.
        """
        return self._run(
            self.predict,
            calls.predict(series, horizon, quantiles, model, interval, period, covariates, known_ahead, groups, times),
            options,
        )

    @overload
    def sentiment(  # type: ignore[overload-overlap]  # a str is an Iterable[str]
        self, texts: str, *, about: str | None = None, model: str = "", **options: Unpack[CallOptions]
    ) -> Sentiment: ...

    @overload
    def sentiment(
        self,
        texts: str | ManyTexts,
        *,
        about: str | Iterable[str] | None = None,
        model: str = "",
        **options: Unpack[CallOptions],
    ) -> Answers[Sentiment]: ...

    def sentiment(
        self,
        texts: str | ManyTexts,
        *,
        about: str | Iterable[str] | None = None,
        model: str = "",
        **options: Unpack[CallOptions],
    ) -> Sentiment | Answers[Sentiment]:
        """Classify one text (a Sentiment), or several (Answers): a list, a frame's column, or symbol to text.

        `about`: a company, as the texts name it, for the sentiment towards it; one for each text of a list; or several
        for one text, whose Answers have the companies as symbols. A text that does not name its company fails, as a
        blank text, None and NaN do.
        `sentiment.warnings` holds the doubts of the service, such as a text in another language than English.
        """
        return self._run(self.sentiment, calls.sentiment(texts, model, about), options)

    @overload
    def indicators(
        self, bars: OneBars, indicators: IndicatorSpecs, *, last: int = 0, **options: Unpack[CallOptions]
    ) -> Indicators: ...

    @overload
    def indicators(
        self, bars: ManyBars, indicators: IndicatorSpecs, *, last: int = 0, **options: Unpack[CallOptions]
    ) -> IndicatorAnswers: ...

    @overload
    def indicators(
        self, bars: Mapping[str, Column], indicators: IndicatorSpecs, *, last: int = 0, **options: Unpack[CallOptions]
    ) -> Any: ...

    @overload
    def indicators(
        self, bars: Column, indicators: IndicatorSpecs, *, last: int = 0, **options: Unpack[CallOptions]
    ) -> Indicators: ...

    def indicators(
        self, bars: BarsLike, indicators: IndicatorSpecs, *, last: int = 0, **options: Unpack[CallOptions]
    ) -> Indicators | IndicatorAnswers:
        """Compute TA-Lib indicators over the bars of one instrument (Indicators) or of many (Answers).

        Bars: a mapping or frame with columns open, high, low, close, volume under their usual names, rows [time, open,
        high, low, close, volume], or the closes alone. Only the columns that the indicators read, and the close, are
        sent. Many: a mapping of symbol to bars or closes, a list of bars, a long frame with a column of symbols, or
        yfinance's frame of several tickers. Indicators: "RSI", "SMA:timeperiod=50", ("SMA", {"timeperiod": 50}), or a
        mapping with name, params and last. `last`: the number of newest values for indicators without their own; 0
        gives a value for each bar.
        """
        return self._run(self.indicators, calls.indicators(bars, indicators, last), options)

    def analyze(
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
        """Forecasts of `series`, sentiment of `texts` and indicators of `bars` in one call under one deadline.

        Give any of the three. A part that fails leaves the others whole.
        """
        parts = calls.AnalyzeParts(
            series, horizon, quantiles, texts, bars, indicators, last, forecast_model, sentiment_model
        )
        return self._run(self.analyze, calls.analyze(parts), options)

    def status(self, **options: Unpack[CallOptions]) -> ServiceStatus:
        """The health of the service, by running every engine on a small real input."""
        return self._run(self.status, calls.get_status(), options)

    def models(self, **options: Unpack[CallOptions]) -> list[ModelInfo]:
        """The models that a call may name."""
        return self._run(self.models, calls.list_models(), options)

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
    ) -> Watch:
        """A live session: one bar in, fresh values out.

        `bars`: the history, oldest first, in any form that indicators() takes for one instrument. `times`: the
        opening times of the bars, by default the index or the column of times of `bars`. `indicators`: computed at
        every bar; bars have the columns that these read. `forecast`: forecasts of the closes at every n-th bar.
        `delivery`: "lossless", or "latest" for a reader of the newest update only. `keep`: bars to hold for
        forecasts and functions with unbounded memory; never fewer than the history and the longest lookback.
        `reconnect_seconds`: for how long a lost session is reopened; a connection that died silently counts as lost
        after 30 s.
        """
        self._require_open()
        record = Record(symbol, bars, times, indicators, forecast, delivery, keep)
        return Watch(self._sessions, self._connection, record, reconnect_seconds)

    def stream(self) -> Stream:
        """Many calls on one stream, for bulk: several times the calls per second, answered in any order; see Stream."""
        self._require_open()
        return Stream(self._connection, self._retries, self._timeout)

    def _require_open(self) -> None:
        if self._closed:
            raise ClosedError("this client is closed: make a new one")

    def _run(self, method: Callable[..., Any], call: calls.Call[T], options: CallOptions) -> T:
        self._require_open()
        attempt = Attempt(self._connection, self._retries, self._timeout, **known(method, options))
        answers: list[Any] = []
        # Requests of a call with several are in flight together; by place in the call.
        ahead: dict[int, concurrent.futures.Future[bytes]] = {}
        try:
            for at, request in enumerate(call.requests):
                try:
                    if len(call.requests) > 1 and self._shares(call.method):
                        for place, early in call.ahead(at, ahead):
                            ahead[place] = self._ask(call.method, early, attempt)
                    answers.append(self._send(call.method, request, attempt, ahead.pop(at, None)))
                except MarketInferenceError as error:
                    error = call.explain(error, len(answers))
                    if all(isinstance(answer, MarketInferenceError) for answer in answers):
                        raise error from None
                    answers.append(error)
        finally:
            for future in ahead.values():
                future.cancel()
        return call.read(answers)

    def _send(
        self, method: str, request: bytes, attempt: Attempt, sent: concurrent.futures.Future[bytes] | None = None
    ) -> bytes:
        """The answer to a request; `sent`: its future where it is on the lane already."""
        while True:
            try:
                with self._counted() as in_flight:
                    # A lone call is unary: the lane is for calls in company.
                    if sent is None and in_flight > 1 and self._shares(method):
                        sent = self._ask(method, request, attempt)
                    if sent is None:
                        answer = self._alone(method, request, attempt)
                    else:
                        answer = self._wait(sent, method, request, attempt)
            except (grpc.RpcError, MarketInferenceError) as failure:
                pause = attempt.pause_after(failure)
            except ValueError:  # grpc: the channel was closed by another thread
                self._require_open()
                raise
            else:
                attempt.answered()
                return answer
            sent = None
            time.sleep(pause)

    @contextmanager
    def _counted(self) -> Iterator[int]:
        """The number of this client's calls in flight, this call included."""
        with self._lock:
            self._in_flight += 1
            in_flight = self._in_flight
        try:
            yield in_flight
        finally:
            with self._lock:
                self._in_flight -= 1

    def _alone(self, method: str, request: bytes, attempt: Attempt) -> bytes:
        answer: bytes = self._methods[method](request, timeout=attempt.timeout, metadata=attempt.metadata)
        return answer

    def _shares(self, method: str) -> bool:
        """Whether a request of a method may go on the lane of this client."""
        return self._lane.usable and METHODS[method].streamable

    def _ask(self, method: str, request: bytes, attempt: Attempt) -> concurrent.futures.Future[bytes]:
        """Send a request on the lane."""
        future: concurrent.futures.Future[bytes] = concurrent.futures.Future()
        self._lane.ask(method, request, future, future, **attempt.options)
        return future

    def _wait(self, future: concurrent.futures.Future[bytes], method: str, request: bytes, attempt: Attempt) -> bytes:
        """The answer to a request on the lane."""
        try:
            return future.result(attempt.timeout)
        except NoStreamError:
            return self._alone(method, request, attempt)
        except TimeoutError:
            raise attempt.too_late from None
        finally:
            future.cancel()
