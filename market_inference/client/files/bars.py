"""The bars of one instrument, as read from a file."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from market_inference.client.files.instants import Instants

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Bars(Mapping[str, Floats]):
    """Columns open, high, low, close and volume, as far as the file has them: float64 [n], oldest bar first.

    `symbol`: the instrument named in the file, else the file's name. `times`: datetime64[ns] [n], or None for a file
    without times; in UTC if `zone` is "UTC", else wall-clock time. `notes`: decisions made while reading, one line
    each. A mapping of columns, so that `client.indicators(bars, ...)` takes the object as it is.
    """

    symbol: str
    columns: Mapping[str, Floats]
    times: Instants | None
    zone: str | None
    notes: tuple[str, ...]
    details: Mapping[str, str] = field(default_factory=dict)
    read_column: Callable[[str], Floats] = field(default=lambda name: np.empty(0), repr=False)

    def __getitem__(self, name: str) -> Floats:
        return self.columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    def column(self, name: str) -> Floats:
        """Any column of the file by name, such as "Adj Close", float64 [n]. Raises FileError."""
        return self.columns[name.lower()] if name.lower() in self.columns else self.read_column(name)

    def __repr__(self) -> str:
        size = len(next(iter(self.columns.values()))) if self.columns else 0
        span = f", {self.times[0]} to {self.times[-1]}" if self.times is not None and size else ""
        return f"Bars({self.symbol!r}, {size} bars{span}: {', '.join(self.columns)})"
