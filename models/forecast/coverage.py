"""Coverage of the central 80% interval, measured on the series by backtests inside the context.

Owns the choice of origins and the count of hits. Origins lie one horizon apart, so that targets do not overlap: the
count is small, and independent.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from models.forecast import student
from models.forecast.arrays import AnyArray, Device, namespace, with_rows
from models.forecast.path import Path
from models.forecast.season import Season
from models.forecast.structure import AUTOREGRESSION, Structure
from models.forecast.volatility import Backtest
from models.forecast.walk import EWMA, Edges, Walk


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


def _upper_edge(edges: Edges, horizon: int | AnyArray, device: Device) -> AnyArray:
    """[B, 1] or [1]: the edge of the central 80% interval in deviations."""
    return edges((0.9,), device)[horizon - 1]


def random_walk(horizon: int | AnyArray, counts: list[int], test: Backtest, edges: Edges) -> Coverage:
    """Coverage of the random walk with ``edges`` on the ``counts`` origins of ``test``.

    ``horizon`` is int64 [B], or the common horizon of all rows.
    """
    edge = _upper_edge(edges, horizon, test.sigma.device)
    return _counted(abs(test.target - test.start) <= test.sigma * edge, test, counts)


def _counted(kept: AnyArray, test: Backtest, counts: list[int]) -> Coverage:
    return Coverage((kept if test.real is None else kept & test.real).sum(1), counts)


def mixture(
    path: Path,
    horizon: AnyArray,
    counts: list[int],
    weight: AnyArray,
    steps: int,
    walk: Walk = EWMA,
    structure: Structure = AUTOREGRESSION,
    season: Season | None = None,
) -> Coverage:
    """As random_walk(), for rows with the structured model mixed in at ``weight`` [b]; ``steps``: the longest horizon.

    The structured model is fitted once, on the older half of the context, and judged on the latest half. Gate and
    logarithms come from the whole context.
    """
    if max(counts) == 0:
        return Coverage(namespace(horizon).zeros_like(horizon), counts)
    test = walk.backtest(path, horizon, counts, 1, None, season)
    median, deviation = structure.backtest(path, test.ends, horizon, steps)
    device = horizon.device
    edge, far = _upper_edge(student.table, horizon, device), test.sigma * _upper_edge(walk.edges, horizon, device)
    target = path.prices(test.target)
    share = weight[:, None]
    low = blend(path.prices(test.start - far), path.prices(median - deviation * edge), share)
    high = blend(path.prices(test.start + far), path.prices(median + deviation * edge), share)
    return _counted((low <= target) & (target <= high), test, counts)
