"""The bars held by a live session.

Owns the memory: a fixed number of bars per column, the newest at the end of one contiguous block, so that a window of
bars is a view, readable by TA-Lib without a copy.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from models.indicators.panel import COLUMNS, Panel


class Bars:
    """The newest `capacity` bars of some columns. `count`: number of all bars received, dropped bars included."""

    def __init__(self, columns: tuple[str, ...], capacity: int) -> None:
        self.columns = columns
        self.capacity = capacity
        self.count = 0
        self._rows = {name: row for row, name in enumerate(columns)}
        # New bars fill the spare space at the end; once per `capacity // 4 + 64` bars all bars move to the start.
        self._values = np.empty((len(columns), capacity + capacity // 4 + 64))
        self._end = 0

    @property
    def held(self) -> int:
        return min(self.count, self.capacity)

    def append(self, bar: Mapping[str, float]) -> None:
        """Take the next bar, with every column."""
        if self._end == self._values.shape[1]:
            self._values[:, : self.capacity] = self._values[:, self._end - self.capacity :]
            self._end = self.capacity
        self._end += 1
        self.count += 1
        self.replace(bar)

    def replace(self, bar: Mapping[str, float]) -> None:
        """Correct the newest bar."""
        for name, row in self._rows.items():
            self._values[row, self._end - 1] = bar[name]

    def newest(self) -> dict[str, float]:
        return {name: self.at(name) for name in self.columns}

    def at(self, column: str, ago: int = 0) -> float:
        """The value of a column `ago` bars before the newest; `ago` must be less than `held`."""
        return self._values.item(self._rows[column], self._end - 1 - ago)

    def column(self, name: str, last: int) -> NDArray[np.float64]:
        """A view of the newest values of a column, oldest first, at most `last`."""
        return self._values[self._rows[name], max(self._end - self.held, self._end - last) : self._end]

    def window(self, last: int) -> Panel:
        """A panel of views of the newest bars, at most `last`."""
        return Panel(**{name: self.column(name, last) for name in COLUMNS if name in self._rows})
