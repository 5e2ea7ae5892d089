"""Answers to many items: an item is read at the first access, and the columns of all items are arrays.

Owns the lazy sequences behind Answers, and the arrays [n, ...] over the items of a call. response.py finds the columns
in the bytes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Generic, Self, TypeVar, cast, overload

import numpy as np
from numpy.typing import NDArray

from market_inference import errors
from market_inference.client import arrays, checks, forecast, response
from market_inference.client.answers import Answers, Indicators
from market_inference.client.arrays import Floats
from market_inference.client.checks import AskedForecast, AskedIndicators
from market_inference.client.forecast import Forecast
from market_inference.client.indicator import Labels
from market_inference.client.inputs.items import Panel, Series, Source
from market_inference.client.item_error import item_error
from market_inference.contract.encoding import split
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.errors import MarketInferenceError

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741
_UNREAD: Any = object()


@dataclass
class Part(Generic[I]):
    """The bytes of the answer to one request of a call, or the error, and the items of the request."""

    answer: bytes | MarketInferenceError
    items: Sequence[I]


class Items(Sequence[T | MarketInferenceError]):
    """The answers to the items of a call, over all requests of the call. An answer is read at the first access.

    Every answer is checked when it arrives: sound answers in the usual form together, others one by one. A wrong answer
    is the error of its item.

    Pickles and copies hold the answers instead of the responses' bytes.
    """

    # The types of a response, of an item of the response, and of an answer in the item.
    _response: Any
    _item: Any
    _body: Any

    def __init__(self, parts: Sequence[Part[Any]]) -> None:
        # The bytes of each answer that is not read yet, else None.
        self._bodies: list[memoryview | None] = []
        self._read: list[Any] = []
        # Of each item: the other fields of the response, and the source.
        self._places: list[tuple[Any, Source]] = []
        self.request_id = ""
        # Name and version of each model that answered, in order.
        self.models: dict[tuple[str, str], None] = {}
        for part in parts:
            rest = None
            if isinstance(part.answer, MarketInferenceError):
                self._bodies += [None] * len(part.items)
                self._read += [part.answer] * len(part.items)
            else:
                items, rest = response.read(self._response, part.answer, len(part.items))
                self.request_id = self.request_id or rest.request_id
                if rest.model:
                    self.models[rest.model, rest.model_version] = None
                self._add(items, rest, part.items)
            self._places += [(rest, item.source) for item in part.items]

    def _add(self, found: Sequence[memoryview], rest: Any, items: Sequence[Any]) -> None:
        """The answers of one response, checked."""
        self._check_rest(rest)
        before = len(self._bodies)
        bodies = [response.result_of(raw, item.source.symbol) for raw, item in zip(found, items, strict=True)]
        usual = [at for at, body in enumerate(bodies) if body is not None]
        sound = self._sound([cast(memoryview, bodies[at]) for at in usual], [items[at] for at in usual])
        unread = {at for at, is_sound in zip(usual, sound, strict=True) if is_sound}
        for at, item in enumerate(items):
            if at in unread:
                self._read.append(_UNREAD)
                continue
            bodies[at] = None
            self._read.append(self._look(response.twin(self._item, bytes(found[at])), rest, item, at, before))
        self._bodies += bodies

    @classmethod
    def of(cls, answers: Sequence[Any], *more: Any) -> Self:
        """Answers without bytes to read."""
        made = cls((), *more)
        made._bodies, made._read = [None] * len(answers), list(answers)
        return made

    def __reduce__(self) -> Any:
        return type(self).of, (list(self),)

    def __len__(self) -> int:
        return len(self._read)

    @overload
    def __getitem__(self, at: int) -> T | MarketInferenceError: ...

    @overload
    def __getitem__(self, at: slice) -> list[T | MarketInferenceError]: ...

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self[one] for one in range(len(self))[at]]
        found = self._read[at]
        if found is _UNREAD:
            found = self._read[at] = self._answer(range(len(self))[at])
        return found

    def __iter__(self) -> Iterator[T | MarketInferenceError]:
        return map(self.__getitem__, range(len(self)))

    @cached_property
    def failed(self) -> NDArray[np.bool_]:
        """Whether each item failed [n]."""
        return np.array([isinstance(found, MarketInferenceError) for found in self._read], dtype=bool)

    @cached_property
    def answered(self) -> list[int]:
        """The positions of the answered items. Raises the first item's error if all items failed."""
        found: list[int] = np.flatnonzero(~self.failed).tolist()
        if not found and len(self):
            raise cast(MarketInferenceError, self[0])
        return found

    def spread(self, found: Floats) -> Floats:
        """Rows of the answered items [m, ...] in the places of all items [n, ...], NaN for items that failed."""
        if len(found) == len(self):
            return found
        made = np.full((len(self), *found.shape[1:]), np.nan)
        made[self.answered] = found
        return made

    def bytes_of(self) -> list[memoryview] | None:
        """The bytes of the answered items; None if the bytes of an item are unknown."""
        found = [self._bodies[at] for at in self.answered]
        return None if any(body is None for body in found) else cast(list[memoryview], found)

    def _answer(self, at: int) -> T:
        rest, source = self._places[at]
        return self._value(response.twin(self._body, bytes(cast(memoryview, self._bodies[at]))), rest, source)

    def _look(self, found: Any, rest: Any, item: Any, at: int, before: int = 0) -> T | MarketInferenceError:
        """The answer, or error, in an item of a response; `before` items went with earlier requests."""
        try:
            return self._checked(found, rest, item, f"{split.ITEMS[self._response]}[{at}]")
        except MarketInferenceError as error:
            return item_error(error, item.source, before)

    def _checked(self, found: Any, rest: Any, item: Any, place: str) -> T:
        """The answer in an item of a response. Raises the item's error, and InternalError for a wrong answer."""
        which = found.WhichOneof("result")
        # The content of a refused item does not come back, so that its symbol may be missing.
        if which != "error" or found.symbol:
            checks.symbol(found.symbol, item.source.symbol, place, rest.request_id)
        if which == "error":
            raise errors.from_status(found.error, rest.request_id)
        if which is None:
            raise checks.wrong(place, "an answer or an error", "neither", rest.request_id)
        body = getattr(found, which)
        self._check(body, item, f"{place}.{which}", rest.request_id)
        return self._value(body, rest, item.source)

    @classmethod
    def one(cls, answer: bytes, item: Any, *more: Any) -> T:
        """The answer to the only item of a call, without the parts for many. Raises the item's error."""
        found, made = response.single(cls._response, answer), cls((), *more)
        made._check_rest(found.rest)
        result = made._look(found.items[0], found.rest, item, 0)
        if isinstance(result, MarketInferenceError):
            raise result
        return result

    def _check_rest(self, rest: Any) -> None:
        """Check the fields of a response beside its items. Raises InternalError."""

    def _sound(self, bodies: Sequence[memoryview], items: Sequence[Any]) -> Sequence[bool]:
        """Whether the answer to each item keeps the rules; False also for bytes in another form than the service's."""
        raise NotImplementedError

    def _check(self, body: Any, item: Any, place: str, request_id: str) -> None:
        """Check the answer to an item in its message's twin. Raises InternalError."""
        raise NotImplementedError

    def _value(self, body: Any, rest: Any, source: Source) -> T:
        """The answer from its message's twin; `rest`: the response's other fields."""
        raise NotImplementedError


class Forecasts(Items[Forecast]):
    """Forecasts of many series."""

    _response = pb.PredictResponse
    _item = pb.SeriesForecast
    _body = pb.Forecast

    def __init__(self, parts: Sequence[Part[Series]], asked: AskedForecast) -> None:
        self._asked = asked
        super().__init__(parts)

    def __reduce__(self) -> Any:
        return type(self).of, (list(self), self._asked)

    def _check_rest(self, rest: Any) -> None:
        self._asked.check_levels(rest.quantile_levels, rest.request_id)

    def _sound(self, bodies: Sequence[memoryview], items: Sequence[Series]) -> Sequence[bool]:
        asked = self._asked
        found = response.forecasts(bodies, asked.horizon, len(asked.levels)) if bodies else None
        if found is None or not checks.sound(found.point, found.quantiles, median=asked.median):
            return [False] * len(bodies)
        return [
            checks.is_rest_sound(bytes(body[found.end :]), asked, len(item.values), timed=item.times is not None)
            for body, item in zip(bodies, items, strict=True)
        ]

    def _check(self, body: Any, item: Series, place: str, request_id: str) -> None:
        timed = item.times is not None
        checks.forecast(body, self._asked, len(item.values), timed=timed, place=place, request_id=request_id)

    def _value(self, body: Any, rest: Any, source: Source) -> Forecast:
        return forecast.read(body, arrays.read(rest.quantile_levels), source, rest, rest.request_id)

    @cached_property
    def columns(self) -> tuple[Floats, Floats]:
        """`point` [n, horizon] and `quantiles` [n, horizon, levels], NaN for items that failed."""
        horizon, levels = self._first.quantiles.shape
        bodies = self.bytes_of()
        found = None if bodies is None else response.forecasts(bodies, horizon, levels)
        if found is not None:
            return self.spread(found.point), self.spread(found.quantiles)
        read = [cast(Forecast, self[at]) for at in self.answered]
        return self.spread(np.stack([one.point for one in read])), self.spread(
            np.stack([one.quantiles for one in read])
        )

    @property
    def levels(self) -> Floats:
        """The quantile levels [levels]."""
        return self._first.levels

    @property
    def _first(self) -> Forecast:
        return cast(Forecast, self[self.answered[0]])


class Panels(Items[Indicators]):
    """Indicators of many instruments."""

    _response = pb.ComputeIndicatorsResponse
    _item = pb.PanelIndicators
    _body = pb.IndicatorSet

    def __init__(self, parts: Sequence[Part[Panel]], labels: Labels, asked: AskedIndicators) -> None:
        self._labels = labels
        self._asked = asked
        super().__init__(parts)

    def __reduce__(self) -> Any:
        return type(self).of, (list(self), self._labels, self._asked)

    def _sound(self, bodies: Sequence[memoryview], items: Sequence[Panel]) -> Sequence[bool]:
        layouts = map(response.Layout.known, bodies)
        return [
            layout is not None and _fits(layout, self._asked, len(item.columns["close"]))
            for layout, item in zip(layouts, items, strict=True)
        ]

    def _check(self, body: Any, item: Panel, place: str, request_id: str) -> None:
        checks.indicators(checks.shape_of(body), self._asked, len(item.columns["close"]), place, request_id)

    def _answer(self, at: int) -> Indicators:
        body = self._bodies[at] if len(self) > 1 else None
        if body is None or self._block is None:
            return super()._answer(at)
        layout, _ = self._block
        rest, source = self._places[at]
        return self._placed(layout, body, rest, source)

    @classmethod
    def one(cls, answer: bytes, item: Any, *more: Any) -> Indicators:
        """As Items.one, at half of the cost: the columns are read from their places in the bytes."""
        (raw,), rest = response.read(cls._response, answer, 1)
        body = response.result_of(raw, item.source.symbol)
        layout = None if body is None else response.Layout.known(body)
        made = cls((), *more)
        if body is None or layout is None or not _fits(layout, made._asked, len(item.columns["close"])):
            return super().one(answer, item, *more)
        return made._placed(layout, body, rest, item.source)

    def _placed(self, layout: response.Layout, body: memoryview, rest: Any, source: Source) -> Indicators:
        outputs: dict[str, dict[str, Floats]] = {name: {} for name in self._labels.names}
        for column in layout.columns:
            outputs[self._labels.names[column.indicator]][column.output] = layout.values(body, column)
        return self._made(outputs, rest, source)

    def _value(self, body: Any, rest: Any, source: Source) -> Indicators:
        outputs = {
            name: {output.name: arrays.read(output.values) for output in indicator.outputs}
            for name, indicator in zip(self._labels.names, body.indicators, strict=True)
        }
        return self._made(outputs, rest, source)

    def _made(self, outputs: dict[str, dict[str, Floats]], rest: Any, source: Source) -> Indicators:
        return Indicators(
            outputs,
            self._labels.aliases,
            source=source,
            model=rest.model,
            model_version=rest.model_version,
            request_id=rest.request_id,
        )

    @cached_property
    def _block(self) -> tuple[response.Layout, response.Bytes] | None:
        """The common layout of all answered items, and the bytes [m, size]; None without a common layout."""
        known = [body for body in self._bodies if body is not None]
        layout = response.Layout.of(known[0]) if known else None
        block = None if layout is None else layout.block(known)
        return None if layout is None or block is None else (layout, block)

    def column(self, name: str) -> Floats:
        """One output of one indicator [n, bars], NaN for items that failed.

        Raises KeyError for an unknown name, ValueError for items with different numbers of bars.
        """
        first = cast(Indicators, self[self.answered[0]])
        key, output = first.place(name)
        if self._block is not None and self.bytes_of() is not None:
            layout, block = self._block
            position = self._labels.names.index(key)
            for column in layout.columns:
                if (column.indicator, column.output) == (position, output):
                    return self.spread(response.doubles(block[:, column.start : column.stop]))
        values = [cast(Indicators, self[at])[f"{key}.{output}"] for at in self.answered]
        sizes = {len(one) for one in values}
        if len(sizes) > 1:
            raise ValueError(
                f"{name}: the items have {min(sizes)} to {max(sizes)} values: ask for the newest with last=, or read "
                "each item"
            )
        return self.spread(np.stack(values))


@lru_cache(maxsize=256)
def _fits(layout: response.Layout, asked: AskedIndicators, bars: int) -> bool:
    """Whether the indicators of a layout are those asked for, of so many bars."""
    try:
        checks.indicators(layout.shape, asked, bars, "", "")
    except errors.InternalError:
        return False
    return True


class ForecastAnswers(Answers[Forecast]):
    """Answers of predict(): one Forecast per series, and arrays over all series, for a whole universe.

        forecasts = client.predict(closes, horizon=10)  # a frame, a mapping or a 2-D array of many series
        forecasts.quantiles[:, -1, 0]  # the lowest level at the last step, for every series

    A series that failed is a row of NaN; `failed` and `errors` say which and why, `raise_errors()` raises.
    """

    _items: Forecasts

    @property
    def point(self) -> Floats:
        """The median paths [n, horizon], in the order of the series."""
        return self._items.columns[0]

    @property
    def quantiles(self) -> Floats:
        """The quantiles [n, horizon, levels], in the order of the series."""
        return self._items.columns[1]

    @property
    def levels(self) -> Floats:
        """The quantile levels [levels], ascending."""
        return self._items.levels

    @property
    def failed(self) -> NDArray[np.bool_]:
        return self._items.failed


class IndicatorAnswers(Answers[Indicators]):
    """Answers of indicators(): one Indicators per instrument, and an array per output over all instruments.

        found = client.indicators(universe, ["RSI", "MACD"])
        found.column("RSI"), found.column("MACD.macdhist")  # each [n, bars]

    An instrument that failed is a row of NaN; `failed` and `errors` say which and why, `raise_errors()` raises.
    """

    _items: Panels

    def column(self, name: str) -> Floats:
        """One output of one indicator for all instruments [n, bars], by a key of Indicators such as "MACD.macdhist".

        Raises KeyError for an unknown name, and ValueError where the instruments have different numbers of bars: ask
        for the newest with `last`.
        """
        return self._items.column(name)

    @property
    def failed(self) -> NDArray[np.bool_]:
        return self._items.failed
