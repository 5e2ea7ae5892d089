"""Real daily bars of five stocks, from the package bokeh-sampledata.

Owns the adjustment for splits and dividends, and the cut between the context of a forecast and the held-out days.
"""

from dataclasses import dataclass
from datetime import date

import numpy as np
from bokeh_sampledata import stocks

from market_inference.client.arrays import Floats

NAMES = {"AAPL": "Apple", "GOOG": "Google", "IBM": "IBM", "MSFT": "Microsoft", "FB": "Facebook"}


@dataclass(frozen=True, slots=True, eq=False)
class Bars:
    """Bars of one instrument, oldest first: `days` [n], and `columns` open, high, low, close, volume [n] float64."""

    symbol: str
    days: tuple[date, ...]
    columns: dict[str, Floats]

    @property
    def name(self) -> str:
        """Symbol and company."""
        company = NAMES[self.symbol]
        return self.symbol if company == self.symbol else f"{self.symbol} {company}"

    @property
    def closes(self) -> Floats:
        return self.columns["close"]

    def __len__(self) -> int:
        return len(self.days)

    def until(self, stop: int, longest: int) -> "Bars":
        """At most `longest` bars before position `stop`."""
        window = slice(max(0, stop - longest), stop)
        return Bars(self.symbol, self.days[window], {name: values[window] for name, values in self.columns.items()})


def load() -> list[Bars]:
    """All bars of each symbol; prices are adjusted to the shares of the last day."""
    return [_adjusted(symbol) for symbol in NAMES]


def _adjusted(symbol: str) -> Bars:
    raw = getattr(stocks, symbol)
    columns = {name: np.array(raw[name], dtype=np.float64) for name in ("open", "high", "low", "close", "volume")}
    factor = np.array(raw["adj_close"]) / columns["close"]
    factor /= factor[-1]
    for name in ("open", "high", "low", "close"):
        columns[name] *= factor
    columns["volume"] /= factor
    return Bars(symbol, tuple(date.fromisoformat(day) for day in raw["date"]), columns)
