"""Coverage of the central 80% interval, measured on the series by backtests inside the context.

Owns the choice of origins and the count of hits. Origins lie one horizon apart, so that targets do not overlap: the
count is small, and independent.
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
    """Per row: the number of origins with a hit (``hits``, int64 [B], on the device), out of ``counts``."""

    hits: AnyArray
    counts: list[int]

    def replace(self, rows: Sequence[int], places: AnyArray, other: "Coverage") -> None:
        """Take the results of ``rows`` (``places`` on the device) from ``other``."""
        self.hits = with_rows(self.hits, places, other.hits)
        for row, count in zip(rows, other.counts, strict=True):
            self.counts[row] = count

    def shares(self) -> list[float]:
        """Hits over counts, NaN without origins."""
        pairs = zip(self.hits.tolist(), self.counts, strict=True)
        return [hits / count if count else math.nan for hits, count in pairs]


def blend(first: AnyArray, second: AnyArray, weight: AnyArray) -> AnyArray:
    """(1 - weight) first + weight second; unlike a lerp, no overflow between finite numbers."""
    return (1 - weight) * first + weight * second


def _upper_edge(path: Path, horizon: AnyArray) -> AnyArray:
    """[B, 1]: the edge of the central 80% interval in deviations."""
    return table((0.9,), path.step.device)[horizon - 1]


def random_walk(path: Path, horizon: AnyArray, counts: list[int], test: volatility.Backtest | None = None) -> Coverage:
    """Coverage of the random walk on the latest ``counts`` origins of every row; ``horizon`` is int64 [B].

    ``test`` is volatility.backtest() of the same arguments, if already computed.
    """
    test = test or volatility.backtest(path, horizon, counts)
    return _counted(abs(test.target - test.start) <= test.sigma * _upper_edge(path, horizon), test, counts)


def _counted(kept: AnyArray, test: volatility.Backtest, counts: list[int]) -> Coverage:
    return Coverage((kept if test.real is None else kept & test.real).sum(1), counts)


def mixture(path: Path, horizon: AnyArray, counts: list[int], weight: AnyArray, steps: int) -> Coverage:
    """As random_walk(), for rows with the autoregression mixed in at ``weight`` [b]; ``steps`` is the longest horizon.

    The autoregression is fitted once, on the older half of the context, and judged on the latest half. Gate and
    logarithms come from the whole context.
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
