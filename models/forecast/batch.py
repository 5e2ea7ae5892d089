"""One batch on the device: the paths of the items, the bands at the levels of every item, and the answers.

Owns the shapes of a batch. Items of different contexts, horizons and level sets share a batch; answers hold no padding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from models.forecast import autoregression, volatility
from models.forecast.answer_warnings import Warnings, of_coverage
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
        """The outlook with ``other`` mixed into ``rows`` (int64 [b]) at ``weight`` ([b, H] or [b, 1])."""
        point = blend(self.point[rows], other.point, weight)
        quantiles = running_max(blend(self.quantiles[rows], other.quantiles, weight[:, :, None]))
        return Outlook(with_rows(self.point, rows, point), with_rows(self.quantiles, rows, quantiles))


@lru_cache(maxsize=512)
def _ahead(steps: int, device: Device) -> tuple[AnyArray, AnyArray]:
    """1 and sqrt(h) for ``steps`` ahead, both [H]: the growth of the median and of the deviation of a random walk."""
    return put(np.ones(steps), device), put(np.sqrt(np.arange(1.0, steps + 1)), device)


class Batch:
    """The items' paths on ``device`` and the bands' edges ``reach`` [B or 1, H, A] in units of sigma * sqrt(h)."""

    def __init__(self, items: Sequence[Series], device: Device) -> None:
        self.items = items
        self.device = device
        series, self.horizons, self.levels = zip(*items, strict=True)
        self.lengths = list(map(len, series))
        self.steps = max(self.horizons)
        self.widths = list(map(len, self.levels))
        self.columns = max(self.widths)
        padded = min(self.lengths) < max(self.lengths)
        self.path = make_path(put(pack(series), device), self.numbers(self.lengths) - 1, padded=padded)
        self.reach = self._reach()
        self.horizon = self.vector(self.horizons)
        self.origins = list(map(volatility.room, self.lengths, self.horizons))
        every = self.steps if min(self.horizons) == self.steps else None
        self.walk = volatility.backtest(self.path, self.horizon, self.origins, every)

    def vector(self, numbers: Sequence[int]) -> AnyArray:
        """Numbers of the host as int64 [n] on the device."""
        return put(np.array(numbers, dtype=np.int64), self.device)

    def numbers(self, numbers: Sequence[float]) -> AnyArray:
        """Numbers of the host as float64 [n] on the device."""
        return put(np.array(numbers, dtype=np.float64), self.device)

    def _reach(self) -> AnyArray:
        sets = list(dict.fromkeys(self.levels))
        if len(sets) == 1:
            return table(sets[0], self.device)[None, : self.steps]
        xp = namespace(self.path.level)
        stacked = xp.zeros((len(sets), self.steps, self.columns), dtype=xp.float64, device=self.device)
        for index, levels in enumerate(sets):
            stacked[index, :, : len(levels)] = table(levels, self.device)[: self.steps]
        place = {levels: index for index, levels in enumerate(sets)}
        return stacked[self.vector([place[levels] for levels in self.levels])]

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
        """``rows`` in parts small enough for the memory of the autoregression."""
        size = autoregression.rows_at_once(self.path.step.shape[1])
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    def answers(
        self, outlook: Outlook, gates: Sequence[float], coverage: Coverage, warnings: Mapping[int, Warnings]
    ) -> list[Forecast]:
        """Forecasts on the host, cut to the items' horizons and levels; ``warnings`` are about the data, by row."""
        medians, bands = list(host(outlook.point)), list(host(outlook.quantiles))
        if min(self.horizons) < self.steps or min(self.widths) < self.columns:
            medians = [median[:horizon] for median, horizon in zip(medians, self.horizons, strict=True)]
            sizes = zip(bands, self.horizons, self.widths, strict=True)
            bands = [np.ascontiguousarray(band[:horizon, :width]) for band, horizon, width in sizes]
        logs, shares, counts = self.path.logs.tolist(), coverage.shares(), coverage.counts
        doubts = list(map(of_coverage, shares, counts))
        for row, found in warnings.items():
            doubts[row] = found + doubts[row]
        return list(map(Forecast, medians, bands, gates, logs, self.lengths, shares, counts, doubts))
