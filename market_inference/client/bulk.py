"""Answers to many items: an item is read at the first access, and the columns of all items are arrays.

Owns the lazy sequences behind Answers, and the arrays [n, ...] over the items of a call. response.py finds the columns
in the bytes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, Self, TypeVar, cast, overload

import numpy as np
from numpy.typing import NDArray

from market_inference import errors
from market_inference.client import arrays, forecast, response
from market_inference.client.answers import Answers, Indicators
from market_inference.client.arrays import Floats
from market_inference.client.forecast import Forecast
from market_inference.client.indicator import Labels
from market_inference.client.inputs.items import Panel, Source
from market_inference.client.item_error import item_error
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

    Pickles and copies hold the answers instead of the responses' bytes.
    """

    # The types of a response, of an item of the response, and of an answer in the item.
    _response: Any
    _item: Any
    _body: Any

    def __init__(self, parts: Sequence[Part[Any]]) -> None:
        self._raw: list[memoryview | MarketInferenceError | None] = []
        self._read: list[Any] = []
        # Of each item: the other fields of the response, the source, and the number of items in earlier requests.
        self._places: list[tuple[Any, Source, int]] = []
        self.request_id = ""
        # Name and version of each model that answered, in order.
        self.models: dict[tuple[str, str], None] = {}
        for part in parts:
            before, rest = len(self._raw), None
            if isinstance(part.answer, MarketInferenceError):
                self._raw += [None] * len(part.items)
                self._read += [part.answer] * len(part.items)
            else:
                items, rest = response.read(self._response, part.answer, len(part.items))
                self.request_id = self.request_id or rest.request_id
                if rest.model:
                    self.models[rest.model, rest.model_version] = None
                self._raw += items
                self._read += [_UNREAD] * len(items)
            self._places += [(rest, item.source, before) for item in part.items]

    @classmethod
    def of(cls, answers: Sequence[Any], *more: Any) -> Self:
        """Answers without bytes to read."""
        made = cls((), *more)
        made._raw, made._read = [None] * len(answers), list(answers)
        return made

    def __reduce__(self) -> Any:
        return type(self).of, (list(self),)

    def __len__(self) -> int:
        return len(self._raw)

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
    def bodies(self) -> list[memoryview | None]:
        """The bytes of each answer; None for an error, and for bytes in an unusual order."""
        return [response.result_of(raw) if isinstance(raw, memoryview) else None for raw in self._raw]

    @cached_property
    def failed(self) -> NDArray[np.bool_]:
        """Whether each item failed [n]."""
        return np.array(
            [body is None and isinstance(self[at], MarketInferenceError) for at, body in enumerate(self.bodies)],
            dtype=bool,
        )

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
        found = [self.bodies[at] for at in self.answered]
        return None if any(body is None for body in found) else cast(list[memoryview], found)

    def _answer(self, at: int) -> T | MarketInferenceError:
        rest, source, before = self._places[at]
        body = self.bodies[at]
        if body is not None:
            return self._value(response.twin(self._body, bytes(body)), rest, source)
        item = response.twin(self._item, bytes(cast(memoryview, self._raw[at])))
        return self._result(item, rest, source, before)

    def _result(self, item: Any, rest: Any, source: Source, before: int) -> T | MarketInferenceError:
        which = item.WhichOneof("result")
        if which == "error":
            return item_error(errors.from_status(item.error, rest.request_id), source, before)
        if which is None:
            raise errors.InternalError("the service sent an item without a result", code="INTERNAL")
        return self._value(getattr(item, which), rest, source)

    @classmethod
    def one(cls, answer: bytes, item: Any, *more: Any) -> T:
        """The answer to the only item of a call, without the parts for many. Raises the item's error."""
        found = response.single(cls._response, answer)
        result = cls((), *more)._result(found.items[0], found.rest, item.source, 0)
        if isinstance(result, MarketInferenceError):
            raise result
        return result

    def _value(self, body: Any, rest: Any, source: Source) -> T:
        """The answer from its message's twin; `rest`: the response's other fields."""
        raise NotImplementedError


class Forecasts(Items[Forecast]):
    """Forecasts of many series."""

    _response = pb.PredictResponse
    _item = pb.SeriesForecast
    _body = pb.Forecast

    def _value(self, body: Any, rest: Any, source: Source) -> Forecast:
        return forecast.read(body, arrays.read(rest.quantile_levels), source, rest, rest.request_id)

    @cached_property
    def columns(self) -> tuple[Floats, Floats]:
        """`point` [n, horizon] and `quantiles` [n, horizon, levels], NaN for items that failed."""
        horizon, levels = self._first.quantiles.shape
        bodies = self.bytes_of()
        found = None if bodies is None else response.forecasts(bodies, horizon, levels)
        if found is None:
            read = [cast(Forecast, self[at]) for at in self.answered]
            found = np.stack([one.point for one in read]), np.stack([one.quantiles for one in read])
        return self.spread(found[0]), self.spread(found[1])

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

    def __init__(self, parts: Sequence[Part[Panel]], labels: Labels) -> None:
        super().__init__(parts)
        self._labels = labels

    def __reduce__(self) -> Any:
        return type(self).of, (list(self), self._labels)

    def _answer(self, at: int) -> Indicators | MarketInferenceError:
        body = self.bodies[at] if len(self) > 1 else None
        if body is None or self._block is None:
            return super()._answer(at)
        layout, _ = self._block
        rest, source, _ = self._places[at]
        return self._placed(layout, body, rest, source)

    @classmethod
    def one(cls, answer: bytes, item: Any, *more: Any) -> Indicators:
        """As Items.one, at half of the cost: the columns are read from their places in the bytes."""
        labels: Labels = more[0]
        (raw,), rest = response.read(cls._response, answer, 1)
        body = response.result_of(raw)
        layout = None if body is None else response.Layout.known(body)
        if body is None or layout is None or layout.indicators != len(labels.names):
            return super().one(answer, item, labels)
        return cls((), labels)._placed(layout, body, rest, item.source)

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
        known = [body for body in self.bodies if body is not None]
        layout = response.Layout.of(known[0]) if known else None
        if layout is None or layout.indicators != len(self._labels.names):
            return None
        block = layout.block(known)
        return None if block is None else (layout, block)

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
