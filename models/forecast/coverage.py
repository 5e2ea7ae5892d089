"""Coverage of the central 80% interval, measured on the series itself by backtests inside its context.

Owns which origins are tried and the count of kept promises. Origins lie one horizon apart, so that no two targets
overlap: the count is small, and honest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from models.forecast import autoregression, volatility
from models.forecast.path import Path
from models.forecast.student import table
from models.staging import to_device


@dataclass(slots=True)
class Coverage:
    """Per row: how many origins kept the promise (``hits``, int64 [B], on the device), out of ``counts``."""

    hits: torch.Tensor
    counts: list[int]

    def replace(self, rows: Sequence[int], places: torch.Tensor, other: "Coverage") -> None:
        """Take the results of ``rows`` (``places`` on the device) from ``other``."""
        self.hits = self.hits.index_copy(0, places, other.hits)
        for row, count in zip(rows, other.counts, strict=True):
            self.counts[row] = count

    def shares(self) -> list[float]:
        """Hits over counts, NaN where nothing could be tried."""
        pairs = zip(self.hits.tolist(), self.counts, strict=True)
        return [hits / count if count else float("nan") for hits, count in pairs]


def blend(first: torch.Tensor, second: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """(1 - weight) first + weight second; unlike torch.lerp, it cannot overflow between two finite numbers."""
    return (1 - weight) * first + weight * second


def _upper_edge(path: Path, horizon: torch.Tensor) -> torch.Tensor:
    """[B, 1]: the edge of the central 80% interval in deviations."""
    return table((0.9,), path.step.device)[horizon - 1]


def random_walk(path: Path, horizon: torch.Tensor, counts: list[int]) -> Coverage:
    """Coverage of the random walk on each row's latest ``counts`` origins; ``horizon`` is int64 [B]."""
    most = max(counts)
    if most == 0:
        return Coverage(torch.zeros_like(horizon), counts)
    test = volatility.backtest(path, horizon, to_device(np.array(counts), horizon.device), most)
    moved = path.level.gather(1, test.targets) - path.level.gather(1, test.ends)
    kept = moved.abs() <= test.sigma * _upper_edge(path, horizon)
    return Coverage((kept & test.real).sum(1), counts)


def mixture(path: Path, horizon: torch.Tensor, counts: list[int], weight: torch.Tensor, steps: int) -> Coverage:
    """As random_walk(), for rows that mix in the autoregression at ``weight`` [b]; ``steps`` is the longest horizon.

    The autoregression is fitted once, on the older half of the context, and judged on the latest half. Gate and
    logarithms are those of the whole context.
    """
    most = max(counts)
    if most == 0:
        return Coverage(torch.zeros_like(horizon), counts)
    test = volatility.backtest(path, horizon, to_device(np.array(counts), horizon.device), most)
    median, deviation = autoregression.backtest(path, test.ends, steps)
    at = (horizon - 1)[:, None, None].expand(-1, most, 1)
    median, deviation = median.gather(2, at)[..., 0], deviation.gather(2, at)[..., 0]
    edge = _upper_edge(path, horizon)
    start = path.level.gather(1, test.ends)
    target = path.prices(path.level.gather(1, test.targets))
    share = weight[:, None]
    low = blend(path.prices(start - test.sigma * edge), path.prices(median - deviation * edge), share)
    high = blend(path.prices(start + test.sigma * edge), path.prices(median + deviation * edge), share)
    return Coverage(((low <= target) & (target <= high) & test.real).sum(1), counts)
