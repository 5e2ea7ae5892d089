"""One batch on the device: the path of its items, the bands at each item's own levels, and the answers.

Owns the shapes of a batch. Items of different contexts, horizons and level sets share it; padding never comes back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from models.forecast import autoregression, volatility
from models.forecast.arrays import AnyArray, Device, host, namespace, put, running_max, with_rows
from models.forecast.coverage import Coverage, blend
from models.forecast.path import make_path, pack
from models.forecast.series import Forecast, Series
from models.forecast.student import table


@dataclass(frozen=True, slots=True)
class Outlook:
    """Forecasts of B rows in the series' units: ``point`` [B, H] is the median, ``quantiles`` [B, H, A]."""

    point: AnyArray
    quantiles: AnyArray

    def mixed(self, rows: AnyArray, weight: AnyArray, other: "Outlook") -> "Outlook":
        """This outlook with ``other`` mixed into ``rows`` (int64 [b]) at ``weight`` ([b, H] or [b, 1])."""
        point = blend(self.point[rows], other.point, weight)
        quantiles = running_max(blend(self.quantiles[rows], other.quantiles, weight[:, :, None]))
        return Outlook(with_rows(self.point, rows, point), with_rows(self.quantiles, rows, quantiles))


@lru_cache(maxsize=512)
def _ahead(steps: int, device: Device) -> tuple[AnyArray, AnyArray]:
    """1 and sqrt(h) for each of ``steps`` ahead, both [H]: how a random walk's median and its deviation grow."""
    return put(np.ones(steps), device), put(np.sqrt(np.arange(1.0, steps + 1)), device)


class Batch:
    """The items' paths on ``device`` and the bands' edges ``reach`` [B or 1, H, A] in units of sigma * sqrt(h)."""

    def __init__(self, items: Sequence[Series], device: Device) -> None:
        self.items = items
        self.device = device
        values, self.lengths = pack(items)
        self.horizons = [item.horizon for item in items]
        self.steps = max(self.horizons)
        self.columns = max(len(item.levels) for item in items)
        count = self.numbers([length - 1 for length in self.lengths])
        self.path = make_path(put(values, device), count, padded=min(self.lengths) < max(self.lengths))
        self.reach = self._reach()
        self.horizon = self.vector(self.horizons)
        self.origins = [volatility.room(*pair) for pair in zip(self.lengths, self.horizons, strict=True)]
        every = self.steps if min(self.horizons) == self.steps else None
        self.walk = volatility.backtest(self.path, self.horizon, self.origins, every)

    def vector(self, numbers: Sequence[int]) -> AnyArray:
        """Numbers of the host as int64 [n] on the device."""
        return put(np.array(numbers, dtype=np.int64), self.device)

    def numbers(self, numbers: Sequence[float]) -> AnyArray:
        """Numbers of the host as float64 [n] on the device."""
        return put(np.array(numbers, dtype=np.float64), self.device)

    def _reach(self) -> AnyArray:
        sets = list(dict.fromkeys(item.levels for item in self.items))
        if len(sets) == 1:
            return table(sets[0], self.device)[None, : self.steps]
        xp = namespace(self.path.level)
        stacked = xp.zeros((len(sets), self.steps, self.columns), dtype=xp.float64, device=self.device)
        for index, levels in enumerate(sets):
            stacked[index, :, : len(levels)] = table(levels, self.device)[: self.steps]
        place = {levels: index for index, levels in enumerate(sets)}
        return stacked[self.vector([place[item.levels] for item in self.items])]

    def random_walk(self) -> Outlook:
        """No drift, the exponentially weighted sigma, Student tails."""
        still, root = _ahead(self.steps, self.device)
        spread = self.walk.now[:, None] * root
        return Outlook(self.path.last[:, None] * still, self.path.prices(spread[:, :, None] * self.reach))

    def autoregression(self, rows: AnyArray) -> Outlook:
        """The ridge autoregression of ``rows`` (int64 [b]) alone."""
        path = self.path.select(rows)
        median, deviation = autoregression.predict(path, self.steps)
        reach = self.reach if len(self.reach) == 1 else self.reach[rows]
        return Outlook(path.prices(median), path.prices(median[:, :, None] + deviation[:, :, None] * reach))

    def parts(self, rows: Sequence[int]) -> list[Sequence[int]]:
        """``rows`` split so that the autoregression of one part stays within memory."""
        size = autoregression.rows_at_once(self.path.step.shape[1])
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    def answers(self, outlook: Outlook, gates: Sequence[float], coverage: Coverage) -> list[Forecast]:
        """Forecasts on the host, cut to each item's own horizon and levels."""
        medians, bands = list(host(outlook.point)), list(host(outlook.quantiles))
        if min(self.horizons) < self.steps or min(len(item.levels) for item in self.items) < self.columns:
            medians = [median[: item.horizon] for median, item in zip(medians, self.items, strict=True)]
            pairs = zip(bands, self.items, strict=True)
            bands = [np.ascontiguousarray(band[: item.horizon, : len(item.levels)]) for band, item in pairs]
        logs, shares = self.path.logs.tolist(), coverage.shares()
        return list(map(Forecast, medians, bands, gates, logs, self.lengths, shares, coverage.counts))
