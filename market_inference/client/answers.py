"""What calls return, one answer per item.

Owns the shapes that users meet, but for forecast.py's; decode.py makes them from messages.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from market_inference.client.arrays import Floats
from market_inference.client.forecast import Forecast
from market_inference.errors import MarketInferenceError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sentiment:
    """The sentiment of one text.

    `label` is "negative", "neutral" or "positive"; `score` is P(positive) - P(negative); the three probabilities sum
    to 1. `chunks`: windows that a long text was split into.
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


class Indicators(Mapping[str, Any]):
    """Indicators of one instrument, by name.

    `result["RSI"]` is an array [bars] float64, oldest first, with NaN for the warm-up; `result["MACD"]` a dictionary of
    such arrays by TA-Lib's output names; `result["MACD.macdhist"]` one of them. A name that was asked for twice carries
    its parameters: `result["SMA:timeperiod=20"]`, which works for every indicator that was given parameters.
    """

    def __init__(
        self,
        outputs: Mapping[str, Mapping[str, Floats]],
        aliases: Mapping[str, str] | None = None,
        *,
        symbol: str = "",
        model: str = "",
        model_version: str = "",
        request_id: str = "",
    ) -> None:
        self._outputs = outputs
        self._aliases = aliases or {}
        self.symbol = symbol
        self.model = model
        self.model_version = model_version
        self.request_id = request_id

    def __getitem__(self, name: str) -> Any:
        key, output = self._split(name)
        outputs = self._outputs[self._aliases.get(key, key)]
        if output:
            return outputs[output]
        return next(iter(outputs.values())) if len(outputs) == 1 else dict(outputs)

    def __iter__(self) -> Iterator[str]:
        return iter(self._outputs)

    def __len__(self) -> int:
        return len(self._outputs)

    def __repr__(self) -> str:
        return f"Indicators({self.symbol!r}, {list(self)})"

    def columns(self) -> dict[str, Floats]:
        """Every output as one flat column, named such as "RSI" or "MACD.macdhist": what a DataFrame takes."""
        return {
            name if len(outputs) == 1 else f"{name}.{output}": values
            for name, outputs in self._outputs.items()
            for output, values in outputs.items()
        }

    def _split(self, name: str) -> tuple[str, str]:
        """Indicator and output of a name; a parameter's decimal point is not the dot between the two."""
        if name in self._outputs or name in self._aliases:
            return name, ""
        key, _, output = name.rpartition(".")
        if self._aliases.get(key, key) not in self._outputs:
            raise KeyError(f"{name!r}; there are {', '.join(self._outputs)}")
        return key, output


class Answers(Generic[T]):
    """One answer per item of a call, in the order given: by position, or by symbol where the items had symbols.

    An item that failed alone raises its error when it is reached for; `errors` holds all of these by position and
    `answered` the rest, for those who would rather not catch.
    """

    def __init__(
        self, items: list[T | MarketInferenceError], symbols: tuple[str, ...] = (), request_id: str = ""
    ) -> None:
        self._items = items
        self.symbols = symbols
        self.request_id = request_id

    @property
    def errors(self) -> dict[int, MarketInferenceError]:
        """The errors of the items that failed, by position."""
        return {at: item for at, item in enumerate(self._items) if isinstance(item, MarketInferenceError)}

    @property
    def answered(self) -> dict[int, T]:
        """The answers of the items that did not fail, by position."""
        return {at: item for at, item in enumerate(self._items) if not isinstance(item, MarketInferenceError)}

    def __getitem__(self, which: int | str) -> T:
        """The item's answer; raises its MarketInferenceError when it failed, KeyError or IndexError without an item."""
        item = self._items[self._position(which) if isinstance(which, str) else which]
        if isinstance(item, MarketInferenceError):
            raise item
        return item

    def __iter__(self) -> Iterator[T]:
        return (self[at] for at in range(len(self)))

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"Answers({len(self)} items, {len(self.errors)} failed)"

    def _position(self, symbol: str) -> int:
        if symbol not in self.symbols:
            raise KeyError(symbol)
        return self.symbols.index(symbol)


class Analysis:
    """The parts of one Analyze call. A part that was not asked for is None; one that failed raises when it is read."""

    def __init__(
        self,
        forecasts: Answers[Forecast] | MarketInferenceError | None,
        sentiments: Answers[Sentiment] | MarketInferenceError | None,
        indicators: Answers[Indicators] | MarketInferenceError | None,
        request_id: str,
    ) -> None:
        self._forecasts = forecasts
        self._sentiments = sentiments
        self._indicators = indicators
        self.request_id = request_id

    @property
    def forecasts(self) -> Answers[Forecast] | None:
        return _or_raise(self._forecasts)

    @property
    def sentiments(self) -> Answers[Sentiment] | None:
        return _or_raise(self._sentiments)

    @property
    def indicators(self) -> Answers[Indicators] | None:
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
