"""A live session as its client knows it: the bars so far, what is in flight, and how answers read.

Owns what a session needs to be opened again without gap or duplicate; watch.py owns the connection. Bars whose answer
has come are the history, those whose answer has not are sent again.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np

from market_inference import errors
from market_inference.client import arrays, inputs, warning
from market_inference.client.arrays import Floats
from market_inference.client.forecast import Coverage, Forecast
from market_inference.client.indicator import Indicator, IndicatorSpec, Labels, read_all
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.errors import MarketInferenceError

Delivery = Literal["lossless", "latest"]
Time = int | datetime | np.datetime64
BarLike = Mapping[str, Any] | float

_DELIVERIES = {"lossless": pb.WATCH_DELIVERY_LOSSLESS, "latest": pb.WATCH_DELIVERY_LATEST}
_MOST_BARS = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class Update(Mapping[str, float]):
    """The session at one bar: `update["RSI"]`, `update["MACD.macdhist"]`; NaN during warm-up.

    `sequence`: the bar's number. `forecast`: when one was due at this bar. `error`: why this bar was refused, or why
    its forecast failed; a refused bar has no values, and reaching for one raises the error.
    """

    sequence: int
    values_by_name: Mapping[str, float]
    forecast: Forecast | None = None
    error: MarketInferenceError | None = None

    def __getitem__(self, name: str) -> float:
        if self.error is not None and not self.values_by_name:
            raise self.error
        return self.values_by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_by_name)

    def __len__(self) -> int:
        return len(self.values_by_name)


@dataclass(frozen=True, slots=True)
class ForecastEvery:
    """A forecast of the closes, `horizon` bars ahead, at every n-th bar."""

    horizon: int
    quantiles: Sequence[float] = ()
    every: int = 1
    model: str = ""


class Record:
    """A session's bars, and the answers that they have had."""

    def __init__(
        self,
        symbol: str,
        bars: object,
        times: Sequence[Time] | None,
        indicators: IndicatorSpec | Sequence[IndicatorSpec],
        forecast: ForecastEvery | None,
        delivery: Delivery,
        keep: int,
    ) -> None:
        """`keep`: bars to open the session with again, at most; the service holds as many."""
        given = inputs.panels(bars)
        if not given.single:
            raise ValueError("a session watches one instrument: give its bars, or its closes")
        history = given.values[0]
        self._columns = tuple(name for name in inputs.BAR_COLUMNS if name in history)
        size = len(history["close"])
        self._keep = min(max(keep, size), _MOST_BARS)
        rows = zip(*(history[name].tolist() for name in self._columns), strict=True)
        self._bars: deque[tuple[float, ...]] = deque(rows)
        instants = range(1, size + 1) if times is None else [nanoseconds(time) for time in times]
        if len(instants) != size:
            raise ValueError(f"there are {size} bars and {len(instants)} times")
        self._times: deque[int] = deque(instants)
        self._symbol = symbol
        self._indicators: list[Indicator] = read_all(indicators)
        self._labels = Labels.of(self._indicators)
        self._forecast = forecast
        self._delivery = delivery
        self._opened: pb.WatchOpened | None = None
        self._names: tuple[str, ...] = ()
        self.sequence = 0
        self.pending: deque[pb.WatchBar] = deque()
        self._taken = 0

    def open(self) -> pb.WatchRequest:
        """The message that opens the session where its last answered bar left it."""
        self._taken = 0
        message = pb.WatchOpen(
            symbol=self._symbol,
            times=self._times,
            delivery=_DELIVERIES[self._delivery],
            sequence=self.sequence,
            bars=self._keep,
        )
        message.history.symbol = self._symbol
        for name, values in zip(self._columns, np.array(self._bars, dtype=np.float64).T, strict=True):
            arrays.write(message.history, name, values)
        for one in self._indicators:
            message.indicators.add(name=one.name, params=one.params)
        if self._forecast is not None:
            asked = self._forecast
            message.forecast.CopyFrom(
                pb.WatchForecast(horizon=asked.horizon, quantiles=asked.quantiles, every=asked.every, model=asked.model)
            )
        return pb.WatchRequest(open=message)

    def append(self, bar: BarLike, time: Time | None, as_of: Time | None) -> pb.WatchBar:
        """The next bar, numbered; in flight from now on. Without a time it opens a nanosecond after the one before."""
        last = self.pending[-1] if self.pending else None
        before = last.bar.time if last else self._times[-1]
        instant = _time_of(bar, time)
        return self._note(
            bar,
            (last.sequence if last else self.sequence) + 1,
            before + 1 if instant is None else instant,
            as_of,
        )

    def correct(self, bar: BarLike, as_of: Time | None) -> pb.WatchBar:
        """The newest bar again, with other values; in flight from now on."""
        last = self.pending[-1] if self.pending else None
        return self._note(
            bar, last.sequence if last else self.sequence, last.bar.time if last else self._times[-1], as_of
        )

    def _note(self, bar: BarLike, sequence: int, time: int, as_of: Time | None) -> pb.WatchBar:
        values = {name.lower(): value for name, value in bar.items()} if isinstance(bar, Mapping) else {"close": bar}
        missing = [name for name in self._columns if name not in values]
        if missing:
            raise ValueError(f"the bar lacks {', '.join(missing)}, which the session's history has")
        message = pb.WatchBar(
            sequence=sequence,
            bar=pb.Bar(time=time, **{name: float(values[name]) for name in self._columns}),
            as_of=0 if as_of is None else nanoseconds(as_of),
        )
        self.pending.append(message)
        return message

    def read(self, response: pb.WatchResponse) -> Update | None:
        """What an answer says; None for the one that tells that the session is open."""
        if response.HasField("opened"):
            self._opened = response.opened
            self._names = _named(response.opened.columns, self._labels)
            return None
        accepted = response.HasField("update")
        while self._taken < response.taken:
            self._taken += 1
            bar = self.pending.popleft()
            # What was dropped on the way was accepted: errors are never dropped.
            if accepted or self._taken < response.taken:
                self._accept(bar)
        request_id = self._opened.request_id if self._opened else ""
        if not accepted:
            return Update(response.sequence, {}, error=errors.from_status(response.error, request_id))
        update = response.update
        values = dict(zip(self._names, update.indicators, strict=True))
        if update.HasField("forecast_error"):
            return Update(response.sequence, values, error=errors.from_status(update.forecast_error, request_id))
        return Update(response.sequence, values, self._read_forecast(update))

    def _accept(self, message: pb.WatchBar) -> None:
        values = tuple(getattr(message.bar, name) for name in self._columns)
        if message.sequence == self.sequence:
            self._bars[-1] = values
            return
        self.sequence = message.sequence
        self._bars.append(values)
        self._times.append(message.bar.time)
        if len(self._bars) > self._keep:
            self._bars.popleft()
            self._times.popleft()

    def _read_forecast(self, update: pb.WatchUpdate) -> Forecast | None:
        if not update.HasField("forecast") or self._opened is None:
            return None
        found, levels = update.forecast, arrays.read(self._opened.quantile_levels)
        point: Floats = arrays.read(found.point)
        return Forecast(
            symbol=self._symbol,
            point=point,
            quantiles=arrays.read(found.quantiles).reshape(len(point), len(levels)),
            levels=levels,
            coverage=Coverage(found.coverage.nominal, found.coverage.measured, found.coverage.origins),
            gate=found.gate,
            logs=found.logs,
            context=found.context,
            model=self._opened.model,
            model_version=self._opened.model_version,
            request_id=self._opened.request_id,
            warnings=warning.read(found.warnings),
        )


def nanoseconds(time: Time) -> int:
    """Nanoseconds since the epoch; a datetime without a zone is taken as UTC."""
    if isinstance(time, np.datetime64):
        return int(time.astype("datetime64[ns]").astype(np.int64))
    if isinstance(time, datetime):
        aware = time if time.tzinfo else time.replace(tzinfo=UTC)
        return round(aware.timestamp() * 1e6) * 1000
    return int(time)


def _time_of(bar: BarLike, time: Time | None) -> int | None:
    given = bar.get("time") if time is None and isinstance(bar, Mapping) else time
    return None if given is None else nanoseconds(given)


def _named(sent: Sequence[str], labels: Labels) -> tuple[str, ...]:
    """The service's columns under the client's labels: an indicator asked for twice carries its parameters."""
    names: list[str] = []
    places = iter(labels.names)
    label, function = "", ""
    seen: set[str] = set()
    for column in sent:
        name, _, output = column.partition(".")
        if name != function or not output or output in seen:
            label, function = next(places), name
            seen = set()
        seen.add(output)
        names.append(f"{label}.{output}" if output else label)
    return tuple(names)
