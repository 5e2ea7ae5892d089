"""The random walks by volatility model: `EWMA` of `vol_rw` and of `auto` version 1, `POOLED` of `auto` version 2.

Owns the pairing of a deviation with its tails. The formulas are in volatility.py, sigma_table.py and student.py.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from models.forecast import sigma_table, student, volatility
from models.forecast.arrays import AnyArray, Device
from models.forecast.path import Path
from models.forecast.season import Season
from models.forecast.volatility import Backtest

Edges: TypeAlias = Callable[[tuple[float, ...], Device], AnyArray]
"""Of levels on a device: the band's edges in deviations of the horizon, float64 [LONGEST_HORIZON, len(levels)]."""


class Walk(NamedTuple):
    """A random walk without drift: its deviations, see volatility.backtest(), and the edges of its bands."""

    backtest: Callable[[Path, AnyArray, Sequence[int], int, int | None, Season | None], Backtest]
    edges: Edges


EWMA = Walk(volatility.backtest, student.table)
POOLED = Walk(sigma_table.backtest, sigma_table.edges)
