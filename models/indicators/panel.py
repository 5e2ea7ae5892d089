"""The bars from which indicators are computed.

Owns the layout and the invariants of a panel. The service checks the prices (finite, low <= close <= high).
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Column = Literal["open", "high", "low", "close", "volume"]
COLUMNS: tuple[Column, ...] = ("open", "high", "low", "close", "volume")

_FLOAT64 = np.dtype(np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """Bars of one symbol, oldest first: C-contiguous float64 columns [T] of finite numbers, None for absent columns.

    Raises ValueError without any column, for another dtype or layout, and for different or zero lengths.
    """

    open: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None
    low: NDArray[np.float64] | None = None
    close: NDArray[np.float64] | None = None
    volume: NDArray[np.float64] | None = None
    bars: int = field(init=False)
    """T, the length of every column."""

    def __post_init__(self) -> None:
        bars = 0
        for place, column in enumerate((self.open, self.high, self.low, self.close, self.volume)):
            if column is None:
                continue
            given = len(column)
            if column.dtype != _FLOAT64 or column.ndim != 1 or not column.flags.c_contiguous:
                raise ValueError(f"column {COLUMNS[place]} must be a C-contiguous float64 array of one dimension")
            if given != (bars or given):
                raise ValueError(f"column {COLUMNS[place]} has {given} bars, others have {bars}")
            if given == 0:
                raise ValueError(f"column {COLUMNS[place]} has no bars, a panel needs at least one")
            bars = given
        if bars == 0:
            raise ValueError("a panel needs at least one column")
        object.__setattr__(self, "bars", bars)
