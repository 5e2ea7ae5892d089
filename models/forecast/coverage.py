"""Coverage of the central 80% interval, measured on the series itself by backtests inside its context.

Owns which origins are tried and the count of kept promises. Origins lie one horizon apart, so that no two targets
overlap: the count is small, and honest.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from models.forecast import autoregression, volatility
from models.forecast.arrays import AnyArray, namespace, with_rows
from models.forecast.path import Path
from models.forecast.student import table


@dataclass(slots=True)
class Coverage:
    """Per row: how many origins kept the promise (``hits``, int64 [B], on the device), out of ``counts``."""

    hits: AnyArray
    counts: list[int]

    def replace(self, rows: Sequence[int], places: AnyArray, other: "Coverage") -> None:
        """Take the results of ``rows`` (``places`` on the device) from ``other``."""
        self.hits = with_rows(self.hits, places, other.hits)
        for row, count in zip(rows, other.counts, strict=True):
            self.counts[row] = count

    def shares(self) -> list[float]:
        """Hits over counts, NaN where nothing could be tried."""
        pairs = zip(self.hits.tolist(), self.counts, strict=True)
        return [hits / count if count else math.nan for hits, count in pairs]


def blend(first: AnyArray, second: AnyArray, weight: AnyArray) -> AnyArray:
    """(1 - weight) first + weight second, which unlike a lerp cannot overflow between two finite numbers."""
    return (1 - weight) * first + weight * second


def _upper_edge(path: Path, horizon: AnyArray) -> AnyArray:
    """[B, 1]: the edge of the central 80% interval in deviations."""
    return table((0.9,), path.step.device)[horizon - 1]


def random_walk(path: Path, horizon: AnyArray, counts: list[int], test: volatility.Backtest | None = None) -> Coverage:
    """Coverage of the random walk on each row's latest ``counts`` origins; ``horizon`` is int64 [B].

    ``test`` is volatility.backtest() of the same, where it is at hand.
    """
    test = test or volatility.backtest(path, horizon, counts)
    return _counted(abs(test.target - test.start) <= test.sigma * _upper_edge(path, horizon), test, counts)


def _counted(kept: AnyArray, test: volatility.Backtest, counts: list[int]) -> Coverage:
    return Coverage((kept if test.real is None else kept & test.real).sum(1), counts)


def mixture(path: Path, horizon: AnyArray, counts: list[int], weight: AnyArray, steps: int) -> Coverage:
    """As random_walk(), for rows that mix in the autoregression at ``weight`` [b]; ``steps`` is the longest horizon.

    The autoregression is fitted once, on the older half of the context, and judged on the latest half. Gate and
    logarithms are those of the whole context.
    """
    if max(counts) == 0:
        return Coverage(namespace(horizon).zeros_like(horizon), counts)
    test = volatility.backtest(path, horizon, counts)
    median, deviation = autoregression.backtest(path, test.ends, horizon, steps)
    edge = _upper_edge(path, horizon)
    target = path.prices(test.target)
    share = weight[:, None]
    low = blend(path.prices(test.start - test.sigma * edge), path.prices(median - deviation * edge), share)
    high = blend(path.prices(test.start + test.sigma * edge), path.prices(median + deviation * edge), share)
    return _counted((low <= target) & (target <= high), test, counts)
