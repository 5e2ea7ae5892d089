"""The state of a live session on the client's side: the bars so far, bars in flight, and the reading of answers.

Owns everything that reopening a session without gap or duplicate needs; watch.py owns the connection. Answered bars are
the history of a reopened session, bars without an answer are sent again. The service's newest checkpoint stands for the
bars before the history, so that a reopened session gives the values of a session that stayed open.
"""

from array import array
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from market_inference import errors
from market_inference.client import arrays, checks
from market_inference.client import forecast as forecasts
from market_inference.client.calls import noted
from market_inference.client.checks import AskedForecast
from market_inference.client.forecast import Forecast
from market_inference.client.indicator import Indicator, IndicatorSpecs, Labels, columns_read, read_all
from market_inference.client.inputs import arguments, times
from market_inference.client.inputs.bars import panels, row
from market_inference.client.inputs.items import Panel, Source
from market_inference.client.inputs.names import BAR_COLUMNS
from market_inference.client.inputs.table import take
from market_inference.client.types import BarLike, Levels, Time, Times
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.errors import ArgumentError, MarketInferenceError, UnavailableError

Delivery = Literal["lossless", "latest"]

_DELIVERIES = {"lossless": pb.WATCH_DELIVERY_LOSSLESS, "latest": pb.WATCH_DELIVERY_LATEST}
_MOST_BARS = 10_000
_SPARE_BARS = 64


@dataclass(frozen=True, slots=True, eq=False)
class Update(Mapping[str, float]):
    """The session at one bar: `update["RSI"]`, `update["MACD.macdhist"]`; NaN during warm-up.

    `sequence`: the bar's number. `time`: the bar's time as it was given to append(), None without one. `forecast`: when
    one was due at this bar. `error`: why the service refused this bar, or why its forecast failed; a refused bar has no
    values, and reading one raises the error.
    """

    sequence: int
    values_by_name: Mapping[str, float]
    forecast: Forecast | None = None
    error: MarketInferenceError | None = None
    time: Any = None

    def replaces(self, older: "Update") -> bool:
        """Whether a reader of the newest updates does without an older one: errors and the newest forecast stay."""
        errors_stay = self.error is None and older.error is None
        return errors_stay and (self.forecast is not None or older.forecast is None)

    def __getitem__(self, name: str) -> float:
        if self.error is not None and not self.values_by_name:
            raise self.error
        if name not in self.values_by_name:
            raise KeyError(f"{name!r}; there are {', '.join(self.values_by_name) or 'none'}")
        return self.values_by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_by_name)

    def __len__(self) -> int:
        return len(self.values_by_name)


@dataclass(frozen=True, slots=True)
class ForecastEvery:
    """A forecast of the closes, `horizon` bars ahead, at every n-th bar; `period` as for predict().

    `by_time`: the phases of the cycle from the times of the bars, as predict(times=True); each bar then needs a time.

    Raises ArgumentError.
    """

    horizon: int
    quantiles: Levels = ()
    every: int = 1
    model: str = ""
    period: int = 0
    by_time: bool = False

    def __post_init__(self) -> None:
        arguments.whole(self.horizon, "forecast.horizon", 1)
        arguments.levels(self.quantiles, "forecast.quantiles")
        arguments.whole(self.every, "forecast.every")
        arguments.text(self.model, "forecast.model")
        arguments.whole(self.period, "forecast.period")
        if not isinstance(self.by_time, bool):
            raise arguments.refuse("forecast.by_time", "True or False", self.by_time)

    @property
    def asked(self) -> AskedForecast:
        """The question of every forecast."""
        return AskedForecast(int(self.horizon), tuple(arguments.levels(self.quantiles)), int(self.period))

    def message(self) -> pb.WatchForecast:
        """The contract's form."""
        return pb.WatchForecast(
            horizon=int(self.horizon),
            quantiles=arguments.levels(self.quantiles),
            every=int(self.every),
            model=self.model,
            period=int(self.period),
            by_time=bool(self.by_time),
        )


class Record:
    """The bars of a session, and the answers to them."""

    def __init__(
        self,
        symbol: str,
        bars: object,
        at: Times | None,
        indicators: IndicatorSpecs,
        forecast: ForecastEvery | None,
        delivery: Delivery,
        keep: int,
    ) -> None:
        """`at`: the opening times of the bars. `keep`: bars that the service holds, at least. Raises ArgumentError."""
        self._indicators: list[Indicator] = read_all(indicators)
        self._labels = Labels.of(self._indicators)
        given = noted(panels(bars, columns_read(self._indicators)))
        if not given.single:
            raise ArgumentError("bars", "a session watches one instrument: give its bars, or its closes")
        history = given.items[0] if at is None else _timed(given.items[0], at)
        self._symbol = arguments.text(symbol or "", "symbol") or history.source.symbol
        self._columns = tuple(name for name in BAR_COLUMNS if name in history.columns)
        size = len(history.columns["close"])
        self._keep = min(max(arguments.whole(keep, "keep", 1), size), _MOST_BARS)
        self._held = self._keep
        self._checkpoint: pb.WatchCheckpoint | None = None
        # Bars that the service counts before bar 1.
        self._earlier = size
        # The answered bars, oldest first: the newest `_needed`, and some more between two cuts.
        self._bars = {name: array("d", history.columns[name].tolist()) for name in self._columns}
        instants = range(1, size + 1) if history.times is None else history.times.tolist()
        self._times = array("q", instants)
        if forecast is not None and not isinstance(forecast, ForecastEvery):
            raise arguments.refuse("forecast", "a ForecastEvery such as ForecastEvery(horizon=5)", forecast)
        if forecast is not None and forecast.by_time and history.times is None:
            raise ArgumentError("times", "the forecast is by time: give the times of the bars")
        self._forecast = forecast
        self._asked = None if forecast is None else forecast.asked
        self._delivery = arguments.one_of(delivery, "delivery", _DELIVERIES)
        self._opened: pb.WatchOpened | None = None
        self._names: tuple[str, ...] = ()
        self.sequence = 0
        self.pending: deque[pb.WatchBar] = deque()
        # The times of pending bars as they were given, then of the newest answered bar.
        self._given: deque[Any] = deque()
        self._newest_time: Any = None
        self._taken = 0

    def open(self) -> pb.WatchRequest:
        """The message that opens the session at its last answered bar."""
        self._taken, self._opened = 0, None
        needed = min(self._needed, len(self._times))
        if self._checkpoint is None:
            self._earlier = needed - self.sequence
        message = pb.WatchOpen(
            symbol=self._symbol,
            times=self._times[-needed:],
            delivery=_DELIVERIES[self._delivery],
            sequence=self.sequence,
            bars=self._keep,
            checkpoint=self._checkpoint,
        )
        message.history.symbol = self._symbol
        for name, values in self._bars.items():
            arrays.write(message.history, name, np.array(values[-needed:]))
        for one in self._indicators:
            message.indicators.add(name=one.name, params=one.params)
        if self._forecast is not None:
            message.forecast.CopyFrom(self._forecast.message())
        return pb.WatchRequest(open=message)

    @property
    def _needed(self) -> int:
        """Answered bars that another replica needs: those that the session holds, and those that no checkpoint has."""
        fresh = 0 if self._checkpoint is None else self.sequence + 2 - self._checkpoint.sequence
        return max(self._held, fresh)

    def append(self, bar: BarLike, time: Time | None, as_of: Time | None) -> pb.WatchBar:
        """The next bar, numbered; in flight from now on. Without a time it opens a nanosecond after the bar before."""
        last = self.pending[-1] if self.pending else None
        before = last.bar.time if last else self._times[-1]
        values, own = row(bar)
        given = own if time is None else time
        if given is None and self._forecast is not None and self._forecast.by_time:
            raise ArgumentError("time", "the session's forecast is by time: give the bar's time")
        instant = before + 1 if given is None else times.nanoseconds(given)
        return self._note(values, (last.sequence if last else self.sequence) + 1, instant, as_of, given)

    def correct(self, bar: BarLike, as_of: Time | None) -> pb.WatchBar:
        """The newest bar again, with other values; in flight from now on."""
        last = self.pending[-1] if self.pending else None
        values, _ = row(bar)
        given = self._given[-1] if self._given else self._newest_time
        if last:
            return self._note(values, last.sequence, last.bar.time, as_of, given)
        return self._note(values, self.sequence, self._times[-1], as_of, given)

    def _note(
        self, values: Mapping[str, float], sequence: int, instant: int, as_of: Time | None, given: Any
    ) -> pb.WatchBar:
        missing = [name for name in self._columns if name not in values]
        if missing:
            raise ArgumentError(
                "bar", f"{', '.join(missing)} missing, which the session's history has; there are {', '.join(values)}"
            )
        message = pb.WatchBar(
            sequence=sequence,
            bar=pb.Bar(time=instant, **{name: values[name] for name in self._columns}),
            as_of=0 if as_of is None else times.nanoseconds(as_of, "as_of"),
        )
        self.pending.append(message)
        self._given.append(given)
        return message

    def read(self, response: pb.WatchResponse) -> Update | None:
        """The update of an answer; None for the answer that opens the session.

        Raises InternalError for a wrong answer: the bars in flight are then unknown, and the session has to end.
        """
        opened = self._opened
        if response.HasField("opened"):
            self._open_with(response)
            self._note_checkpoint(response, response.opened.request_id)
            return None
        if opened is None:
            raise checks.wrong("result", "opened, before any other answer", response.WhichOneof("result"))
        self._check(response, opened)
        accepted = response.HasField("update")
        time: Any = None
        while self._taken < response.taken:
            self._taken += 1
            bar, time = self.pending.popleft(), self._given.popleft()
            # The answer to a bar in between was dropped, so the bar was accepted: errors are never dropped.
            if accepted or self._taken < response.taken:
                self._accept(bar)
                self._newest_time = time
        request_id = opened.request_id
        self._note_checkpoint(response, request_id)
        if not accepted:
            return Update(response.sequence, {}, error=errors.from_status(response.error, request_id), time=time)
        update = response.update
        values = dict(zip(self._names, update.indicators, strict=True))
        if update.HasField("forecast_error"):
            failure = errors.from_status(update.forecast_error, request_id)
            return Update(response.sequence, values, error=failure, time=time)
        if not update.HasField("forecast"):
            return Update(response.sequence, values, time=time)
        source = Source(self._symbol)
        found = forecasts.read(update.forecast, arrays.read(opened.quantile_levels), source, opened, request_id)
        return Update(response.sequence, values, found, time=time)

    def _open_with(self, response: pb.WatchResponse) -> None:
        """Take the answer that opens the session. Raises InternalError."""
        opened = response.opened
        if self._opened is not None:
            raise checks.wrong("result", "an answer to a bar", "opened for the second time", opened.request_id)
        names = _named(opened.columns, self._labels, self._indicators, opened.request_id)
        if self._asked is not None:
            levels = np.array(opened.quantile_levels, dtype="<f8").tobytes()
            self._asked.check_levels(levels, opened.request_id)
        if self._checkpoint is not None and self._begins_anew(response):
            raise UnavailableError("this gateway or replica is too old to continue the session", code="UNAVAILABLE")
        self._opened, self._names = opened, names
        self._held = min(max(self._keep, opened.bars), _MOST_BARS)

    def _begins_anew(self, response: pb.WatchResponse) -> bool:
        """Whether the service goes by the history alone: an old gateway or replica does not know checkpoints."""
        if not response.HasField("checkpoint"):
            return True
        counted, sent = response.checkpoint.bars + 1, min(self._needed, len(self._times))
        return counted == sent != self._earlier + self.sequence

    def _note_checkpoint(self, response: pb.WatchResponse, request_id: str) -> None:
        """Raises InternalError for a checkpoint of other bars than the session's."""
        if not response.HasField("checkpoint"):
            return
        found = response.checkpoint
        sequence, bars = self.sequence, self._earlier + self.sequence - 1
        if (found.sequence, found.bars) != (sequence, bars):
            expected, got = f"bar {sequence} after {bars} bars", f"bar {found.sequence} after {found.bars}"
            raise checks.wrong("checkpoint", expected, got, request_id)
        self._checkpoint = found

    def _check(self, response: pb.WatchResponse, opened: pb.WatchOpened) -> None:
        """An answer is to bars in flight, with every value and the forecast that is due. Raises InternalError."""
        request_id, kind = opened.request_id, response.WhichOneof("result")
        if kind is None:
            raise checks.wrong("result", "an update or an error", "neither", request_id)
        answered = response.taken - self._taken
        if not 1 <= answered <= len(self.pending):
            raise checks.wrong("taken", f"1 to {len(self.pending)} bars in flight", f"{answered} bars", request_id)
        sequence = self.pending[answered - 1].sequence
        if response.sequence != sequence:
            raise checks.wrong("sequence", sequence, response.sequence, request_id)
        if kind == "error":
            return
        update, due = response.update, self._forecast
        if len(update.indicators) != len(self._names):
            expected = f"{len(self._names)} values"
            raise checks.wrong("update.indicators", expected, len(update.indicators), request_id)
        is_due = due is not None and sequence % (due.every or 1) == 0
        which = update.WhichOneof("forecast_result")
        if is_due != (which is not None):
            raise checks.wrong("update.forecast", "a forecast" if is_due else "none", which or "none", request_id)
        if which == "forecast" and due is not None and self._asked is not None:
            checks.forecast(
                update.forecast,
                self._asked,
                _MOST_BARS,
                timed=bool(due.by_time),
                place="update.forecast",
                request_id=request_id,
            )

    def _accept(self, message: pb.WatchBar) -> None:
        if message.sequence == self.sequence:
            for name, values in self._bars.items():
                values[-1] = getattr(message.bar, name)
            return
        self.sequence = message.sequence
        for name, values in self._bars.items():
            values.append(getattr(message.bar, name))
        self._times.append(message.bar.time)
        surplus = len(self._times) - self._needed
        if surplus > self._held // 4 + _SPARE_BARS:
            for held in (self._times, *self._bars.values()):
                del held[:surplus]


def _timed(history: Panel, at: Times) -> Panel:
    """The history with its times, oldest first. Raises ArgumentError."""
    instants = times.instants(at, "times")
    size = len(history.columns["close"])
    if len(instants) != size:
        raise ArgumentError("times", f"there are {size} bars and {len(instants)} times")
    rows = times.order(instants, "times")
    if rows is None:
        return Panel(history.columns, instants, replace(history.source, index=at))
    columns = {name: values[rows] for name, values in history.columns.items()}
    source = history.source.noting(times.reversed_note("times"), index=take(at, rows))
    return Panel(columns, instants[rows], source)


def _named(sent: Sequence[str], labels: Labels, asked: Sequence[Indicator], request_id: str) -> tuple[str, ...]:
    """The service's columns under the client's labels: an indicator in the request twice carries its parameters.

    Raises InternalError for columns of other indicators.
    """
    names: list[str] = []
    functions: list[str] = []
    seen: set[str] = set()
    for column in sent:
        name, _, output = column.partition(".")
        if not functions or name != functions[-1] or not output or output in seen:
            functions.append(name)
            seen = set()
        seen.add(output)
        if len(functions) <= len(labels.names):
            label = labels.names[len(functions) - 1]
            names.append(f"{label}.{output}" if output else label)
    expected = [one.name.upper() for one in asked]
    if [name.upper() for name in functions] != expected:
        raise checks.wrong("opened.columns", f"columns of {', '.join(expected) or 'nothing'}", [*sent], request_id)
    return tuple(names)
