"""The random walks by volatility model: `EWMA` of `vol_rw` and of `auto` version 1, `POOLED` of `auto` version 2.

Owns the pairing of a deviation with its tails. The formulas are in volatility.py, sigma_table.py and student.py.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from models.forecast import sigma_table, student, volatility
from models.forecast.arrays import AnyArray, Device
from models.forecast.path import Path
from models.forecast.season import Season
from models.forecast.volatility import Backtest


class Edges(Protocol):
    """The band's edges at levels, in deviations of the horizon."""

    def __call__(self, levels: tuple[float, ...], device: Device, /) -> AnyArray:
        """Float64 [LONGEST_HORIZON, len(levels)]."""
        ...


class Deviations(Protocol):
    """The deviations of the random walk, now and at past origins; see volatility.backtest()."""

    def __call__(
        self,
        path: Path,
        horizon: AnyArray,
        counts: Sequence[int],
        steps: int,
        every: int | None = None,
        season: Season | None = None,
        /,
    ) -> Backtest: ...


class Walk(NamedTuple):
    """A random walk without drift: its deviations, and the edges of its bands."""

    backtest: Deviations
    edges: Edges


EWMA = Walk(volatility.backtest, student.table)
POOLED = Walk(sigma_table.backtest, sigma_table.edges)
