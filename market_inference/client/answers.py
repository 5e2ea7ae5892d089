"""Answers of calls, one per item.

Owns the values that users get, except forecast.py's. decode.py and bulk.py make them from messages.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from market_inference.client.arrays import Floats
from market_inference.client.inputs.items import Source
from market_inference.client.warning import AnswerWarning
from market_inference.errors import MarketInferenceError

if TYPE_CHECKING:
    from market_inference.client.bulk import ForecastAnswers, IndicatorAnswers

T = TypeVar("T")
_SHOWN_NAMES = 5


@dataclass(frozen=True, slots=True, repr=False)
class Sentiment:
    """The sentiment of one text.

    `label` is "negative", "neutral" or "positive"; `score` is P(positive) - P(negative); the three probabilities sum
    to 1. `chunks`: windows that a long text was split into. `symbol`: the text's symbol where the texts had symbols.
    `warnings`: doubts of the service about the text, such as another language than English; none for clean texts.
    """

    label: str
    score: float
    negative: float
    neutral: float
    positive: float
    chunks: int
    model: str
    model_version: str
    request_id: str
    symbol: str = ""
    source: Source = Source()  # noqa: RUF009  # frozen
    warnings: tuple[AnswerWarning, ...] = ()

    def to_frame(self, *, library: str = "") -> Any:
        """A frame of one row; `library`: "pandas" or "polars"."""
        from market_inference.client.frames import tables

        return tables.sentiment(self, library)

    def __repr__(self) -> str:
        name = f"{self.symbol}: " if self.symbol else ""
        shares = f"negative {self.negative:.2f}, neutral {self.neutral:.2f}, positive {self.positive:.2f}"
        model = "; ".join((f"model {self.model}", *(one.code for one in self.warnings)))
        return f"Sentiment({name}{self.brief()}; {shares}; {model})"

    def brief(self) -> str:
        """Label and score, for the repr of many answers."""
        return f"{self.label} {self.score:+.2f}"


class Indicators(dict[str, Any]):
    """Indicators of one instrument: a dictionary of columns [bars] float64, oldest first, NaN during warm-up.

    The keys are "RSI" for a function with one output and "MACD.macdhist" for others, by TA-Lib's names, so that
    pandas.DataFrame(result) has a column for each. `result["MACD"]` is a dictionary of the function's outputs. A
    function in the request twice carries its parameters, as in `result["SMA:timeperiod=20"]`; this name works for every
    indicator with parameters. `index`: the labels of the bars in the caller's data, None where the data had none.
    """

    def __init__(
        self,
        outputs: Mapping[str, Mapping[str, Floats]],
        aliases: Mapping[str, str] | None = None,
        *,
        source: Source = Source(),  # noqa: B008  # frozen
        model: str = "",
        model_version: str = "",
        request_id: str = "",
    ) -> None:
        super().__init__(
            {
                name if len(columns) == 1 else f"{name}.{output}": values
                for name, columns in outputs.items()
                for output, values in columns.items()
            }
        )
        self._outputs = outputs
        self._aliases = aliases or {}
        self.source = source
        self.model = model
        self.model_version = model_version
        self.request_id = request_id

    @property
    def symbol(self) -> str:
        """The symbol given with the bars."""
        return self.source.symbol

    @property
    def notes(self) -> tuple[str, ...]:
        """Changes that the client made to the data, such as the reversal of descending dates."""
        return self.source.notes

    @property
    def index(self) -> Any:
        """The labels of the values, oldest first: those of the newest bars where `last` was given."""
        size = len(next(iter(self.values()), ()))
        index = self.source.index
        return index if index is None or len(index) == size else index[len(index) - size :]

    def __missing__(self, name: str) -> Any:
        outputs = self._outputs.get(self._aliases.get(name, name))
        if outputs is not None and len(outputs) != 1:
            return dict(outputs)
        key, output = self.place(name)
        return self._outputs[key][output]

    def place(self, name: str) -> tuple[str, str]:
        """The indicator and the output of a key. Raises KeyError for an unknown name, or one of several outputs."""
        key = self._aliases.get(name, name)
        if key in self._outputs:
            outputs = self._outputs[key]
            if len(outputs) != 1:
                raise KeyError(f"{name!r} has {', '.join(outputs)}: name one, such as '{name}.{next(iter(outputs))}'")
            return key, next(iter(outputs))
        # A parameter may hold a decimal point: only the last dot can stand before an output.
        key, _, output = name.rpartition(".")
        key = self._aliases.get(key, key)
        columns = self._outputs.get(key)
        if columns is None:
            raise KeyError(f"{name!r}; there are {', '.join(self._outputs)}")
        if output not in columns:
            raise KeyError(f"{name!r}; {key} has {', '.join(columns)}")
        return key, output

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in self._outputs or name in self._aliases

    def get(self, name: str, default: Any = None) -> Any:
        """`self[name]`, or the default for an unknown name."""
        try:
            return self[name]
        except KeyError:
            return default

    def __repr__(self) -> str:
        size = len(next(iter(self.values()), ()))
        newest = f"the newest {self.brief()}" if size else ", ".join(self)
        return f"Indicators({self.symbol + ': ' if self.symbol else ''}{newest}; {size} bars)"

    def brief(self) -> str:
        """The newest values, for the repr of many answers."""
        shown = [f"{name} {values[-1]:.6g}" for name, values in list(self.items())[:_SHOWN_NAMES] if len(values)]
        return ", ".join((*shown, "...") if len(self) > _SHOWN_NAMES else shown)

    def columns(self) -> dict[str, Floats]:
        """The columns as a plain dictionary."""
        return dict(self)

    def to_frame(self, *, library: str = "") -> Any:
        """A frame with a row for each bar, under the labels of the input; `library`: by default the input's."""
        from market_inference.client.frames import tables

        return tables.indicators(self, library)

    def _repr_html_(self) -> str:
        from market_inference.client.frames import html

        size = len(next(iter(self.values()), ()))
        shown = min(size, html.MOST_ROWS)
        labels = range(size) if self.index is None else self.index
        rows = [(labels[at], *(float(values[at]) for values in self.values())) for at in range(size - shown, size)]
        return html.table(repr(self), ("bar", *self), rows, left_out=size - shown)


class Answers(Generic[T]):
    """One answer per item of a call, in the order of the items.

    Where the items had symbols, a mapping by symbol: iteration gives the symbols, and `keys()`, `values()`,
    `items()`, `in` and `get()` are a dictionary's. Else a sequence: iteration gives the answers. `[]` takes a symbol
    or a position.

    An item that failed alone raises its error from `[]`, and stands as this error in `values()`, `items()` and
    iteration, which never raise. `errors` holds the errors and `answered` the answers, by position; `raise_errors()`
    is for programs that need all. Many series or instruments as arrays: see ForecastAnswers and IndicatorAnswers.
    """

    def __init__(
        self,
        items: Sequence[T | MarketInferenceError],
        symbols: tuple[str, ...] = (),
        request_id: str = "",
        source: Source = Source(),  # noqa: B008  # frozen
        models: Collection[tuple[str, str]] = (),
    ) -> None:
        """`models`: name and version of each model that answered, in the order of the items."""
        self._items = items
        self._models = tuple(models)
        self._positions = {symbol: at for at, symbol in enumerate(symbols)}
        self.symbols = symbols
        self.request_id = request_id
        self.source = source

    @property
    def notes(self) -> tuple[str, ...]:
        """That several models or versions answered, where the service changed its model between the call's requests."""
        if len(self._models) < 2:
            return ()
        named = ", ".join(f"{name} {version}" for name, version in self._models)
        return (f"the requests of this call were answered by different models: {named}",)

    @property
    def failed(self) -> NDArray[np.bool_]:
        """Whether each item failed [n], a mask for arrays."""
        return np.array([isinstance(item, MarketInferenceError) for item in self._items], dtype=bool)

    @property
    def errors(self) -> dict[int, MarketInferenceError]:
        """The errors of the items that failed, by position."""
        return {at: cast(MarketInferenceError, self._items[at]) for at in np.flatnonzero(self.failed).tolist()}

    @property
    def answered(self) -> dict[int, T]:
        """The answers of the items that did not fail, by position."""
        return {at: cast(T, self._items[at]) for at in np.flatnonzero(~self.failed).tolist()}

    def raise_errors(self) -> None:
        """Raise the first failed item's error, naming every item that failed; nothing when none failed."""
        failed = self.errors
        if not failed:
            return
        names = [self.symbols[at] if self.symbols else f"item {at}" for at in failed]
        more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
        error = copy(next(iter(failed.values())))
        error.message = (
            f"{len(failed)} of {len(self)} items failed ({', '.join(names[:_SHOWN_NAMES])}{more}): {error.message}"
        )
        error.args = (error.message,)
        raise error

    def keys(self) -> tuple[Any, ...]:
        """The symbols, or the positions of items without symbols."""
        return self.symbols or tuple(range(len(self._items)))

    def values(self) -> list[T | MarketInferenceError]:
        """The answers, with the error in the place of an item that failed."""
        return list(self._items)

    def items(self) -> list[tuple[Any, T | MarketInferenceError]]:
        """The pairs of `keys()` and `values()`."""
        return list(zip(self.keys(), self._items, strict=True))

    def to_frame(self, *, calendar: str = "", library: str = "") -> Any:
        """A long frame: a row for each item and step, bar or text.

        The columns of symbols and times are named as in the caller's own long frame, such as `unique_id` and `ds`,
        else `symbol` and `time`. An item that failed keeps one row, with its error in the column `error`. `calendar`:
        for forecasts, see Forecast.to_frame. `library`: "pandas" or "polars", by default the input's.
        """
        from market_inference.client.frames import tables

        first = next(iter(self.answered.values()), None)
        if isinstance(first, Indicators):
            return tables.many_indicators(self, library)
        if isinstance(first, Sentiment):
            return tables.sentiments(self, library)
        return tables.forecasts(self, calendar, library)

    def _repr_html_(self) -> str:
        from market_inference.client.frames import html

        rows = [(key, item) for key, item in self.items()[: html.MOST_ROWS]]
        return html.table(repr(self), ("item", "answer"), rows, left_out=len(self) - len(rows))

    def get(self, which: int | str, default: Any = None) -> Any:
        """The item's answer, or the default where there is no such item or the item failed."""
        try:
            return self[which]
        except (LookupError, MarketInferenceError):
            return default

    def __getitem__(self, which: int | str) -> T:
        """The item's answer; raises its MarketInferenceError when it failed, KeyError or IndexError without an item.

        Raises ValueError for a number that is the symbol of one item and the position of another.
        """
        item = self._items[self._position(which)]
        if isinstance(item, MarketInferenceError):
            raise item
        return item

    def __contains__(self, which: object) -> bool:
        return which in self.keys()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.symbols or self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        failed = len(self.errors)
        mixed = f", {len(self._models)} models" if self.notes else ""
        names = (f"{symbol} " for symbol in self.symbols) if self.symbols else repeat("")
        found: Sequence[Any] = self._items[:_SHOWN_NAMES]
        shown = [
            f"{name}{'failed' if isinstance(one, MarketInferenceError) else one.brief()}"
            for name, one in zip(names, found, strict=False)
        ]
        shown += ["..."] if len(self) > _SHOWN_NAMES else []
        values = f": {'; '.join(shown)}" if shown else ""
        return f"Answers({len(self)} items{f', {failed} failed' if failed else ''}{mixed}{values})"

    def _position(self, which: int | str) -> int:
        named = self._positions.get(str(which))
        if isinstance(which, str):
            if named is None:
                raise KeyError(f"{which!r}; there are {', '.join(self.symbols) or 'positions'}")
            return named
        if named is not None and named != which:
            raise ValueError(f"{which} is a symbol and a position: give {str(which)!r}, or take values()[{which}]")
        return which


class Analysis:
    """The parts of one Analyze call: None for a part that was not in the call; reading a failed part raises its
    error.
    """

    def __init__(
        self,
        forecasts: "ForecastAnswers | MarketInferenceError | None",
        sentiments: Answers[Sentiment] | MarketInferenceError | None,
        indicators: "IndicatorAnswers | MarketInferenceError | None",
        request_id: str,
    ) -> None:
        self._forecasts = forecasts
        self._sentiments = sentiments
        self._indicators = indicators
        self.request_id = request_id

    @property
    def forecasts(self) -> "ForecastAnswers | None":
        """Answers in the order of `series`."""
        return _or_raise(self._forecasts)

    @property
    def sentiments(self) -> Answers[Sentiment] | None:
        """Answers in the order of `texts`."""
        return _or_raise(self._sentiments)

    @property
    def indicators(self) -> "IndicatorAnswers | None":
        """Answers in the order of `bars`."""
        return _or_raise(self._indicators)

    @property
    def errors(self) -> dict[str, MarketInferenceError]:
        """The errors of the parts that failed, by part: "forecasts", "sentiments" or "indicators"."""
        parts = {"forecasts": self._forecasts, "sentiments": self._sentiments, "indicators": self._indicators}
        return {name: part for name, part in parts.items() if isinstance(part, MarketInferenceError)}


def _or_raise(part: T | MarketInferenceError) -> T:
    if isinstance(part, MarketInferenceError):
        raise part
    return part
