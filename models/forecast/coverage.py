"""Coverage of the central 80% interval, measured on the series by backtests inside the context.

Owns the choice of origins and the count of hits. Origins lie one horizon apart, so that targets do not overlap: the
count is small, and independent.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from models.cache import cache_of_device
from models.forecast import student, trial
from models.forecast.arrays import AnyArray, Device, namespace, with_rows
from models.forecast.path import Path
from models.forecast.scale import natural
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

    def select(self, rows: Sequence[int], places: AnyArray) -> "Coverage":
        """The results of ``rows`` (``places`` on the device)."""
        return Coverage(self.hits[places], [self.counts[row] for row in rows])

    def shares(self) -> list[float]:
        """Hits over counts, NaN without origins."""
        pairs = zip(self.hits.tolist(), self.counts, strict=True)
        return [hits / count if count else math.nan for hits, count in pairs]


def blend(first: AnyArray, second: AnyArray, weight: AnyArray) -> AnyArray:
    """(1 - weight) first + weight second; unlike a lerp, no overflow between finite numbers."""
    return (1 - weight) * first + weight * second


def _upper_edge(edges: Edges, horizon: int | AnyArray, device: Device) -> AnyArray:
    """[B, 1] or [1]: the edge of the central 80% interval in deviations."""
    return _common_edge(edges, horizon, device) if isinstance(horizon, int) else edges((0.9,), device)[horizon - 1]


@cache_of_device(lru_cache(maxsize=1024))
def _common_edge(edges: Edges, horizon: int, device: Device) -> AnyArray:
    """[1]: the edge of the central 80% interval over one horizon."""
    return edges((0.9,), device)[horizon - 1]


def random_walk(horizon: int | AnyArray, counts: list[int], test: Backtest, edges: Edges) -> Coverage:
    """Coverage of the random walk with ``edges`` on the ``counts`` origins of ``test``.

    ``horizon`` is int64 [B], or the common horizon of all rows.
    """
    edge = _upper_edge(edges, horizon, test.sigma.device)
    return _counted(abs(test.target - test.start) <= test.sigma * edge, test, counts)


def _counted(kept: AnyArray, test: Backtest, counts: list[int]) -> Coverage:
    return Coverage((kept if test.real is None else kept & test.real).sum(1), counts)


class Mixture(NamedTuple):
    """The coverage of rows with the structured model mixed in, and what the backtests say of the model.

    ``weight`` [b]: of the structured model, at most the gate's. ``width`` [b]: the factor of its deviations. ``logs``
    [b]: whether it works on logarithms.
    """

    coverage: Coverage
    weight: AnyArray
    width: AnyArray
    logs: AnyArray


def mixture(
    path: Path,
    horizon: AnyArray,
    counts: list[int],
    weight: AnyArray,
    steps: int,
    walk: Walk = EWMA,
    structure: Structure = AUTOREGRESSION,
    season: Season | None = None,
) -> Mixture:
    """As random_walk(), for rows with the structured model mixed in at ``weight`` [b]; ``steps``: the longest horizon.

    The structured model is fitted once, on the older half of the context, and judged on the latest half. Gate and
    logarithms come from the whole context.
    """
    xp, width = namespace(horizon), 1.0 + 0 * weight
    own = natural(path) if structure.judged else path
    if max(counts) == 0:
        return Mixture(Coverage(xp.zeros_like(horizon), counts), weight, width, own.logs)
    test = walk.backtest(path, horizon, counts, 1, None, season)
    median, deviation = structure.backtest(own, test.ends, steps)
    if structure.judged:
        tried = trial.judge(own, test, horizon, median, deviation)
        weight, width = weight * tried.share, tried.width
    device = horizon.device
    row, column = xp.arange(len(median), device=device)[:, None], xp.arange(median.shape[1], device=device)
    last = (horizon - 1)[:, None]
    edge, far = _upper_edge(student.table, horizon, device), test.sigma * _upper_edge(walk.edges, horizon, device)
    middle, reach = median[row, column, last], deviation[row, column, last] * (width[:, None] * edge)
    target = path.prices(test.target)
    share = weight[:, None]
    low = blend(path.prices(test.start - far), own.prices(middle - reach), share)
    high = blend(path.prices(test.start + far), own.prices(middle + reach), share)
    return Mixture(_counted((low <= target) & (target <= high), test, counts), weight, width, own.logs)
