"""One batch on the device: the paths of the items, the bands at the levels of every item, and the answers.

Owns the shapes of a batch. Items of different contexts, horizons and level sets share a batch; answers hold no padding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from models.cache import cache_of_device
from models.forecast import autoregression, student, volatility
from models.forecast.answer_warnings import Warnings, of_coverage, of_cycles
from models.forecast.arrays import AnyArray, Device, host, namespace, put, running_max, with_rows
from models.forecast.clock import Clock, clock_of
from models.forecast.coverage import Coverage, blend
from models.forecast.path import make_path, pack
from models.forecast.scale import natural
from models.forecast.season import Season, make_season
from models.forecast.series import Forecast, Phases, Series
from models.forecast.structure import Structure
from models.forecast.volatility import Backtest
from models.forecast.walk import EWMA, POOLED, Edges, Walk

_NO_TIMES = {type(None)}


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


@cache_of_device(lru_cache(maxsize=512))
def _ones(steps: int, device: Device) -> AnyArray:
    """[H]: the growth of the median of a random walk."""
    return put(np.ones(steps), device)


class Batch:
    """The items' paths on ``device``, and the bands' edges [B or 1, H, A] in deviations of the horizon.

    ``walk_reach`` are the edges of the random walk, ``every`` is the common horizon of all rows, None for several.
    """

    def __init__(self, items: Sequence[Series], device: Device, walk: Walk = EWMA) -> None:
        self.items = items
        self.device = device
        series, self.horizons, self.levels, _, periods, _, times = zip(*items, strict=True)
        self.lengths = list(map(len, series))
        self.steps = max(self.horizons)
        self.widths = list(map(len, self.levels))
        self.columns = max(self.widths)
        padded = min(self.lengths) < max(self.lengths)
        steps = self.numbers([length - 1 for length in self.lengths])
        self.path = make_path(put(pack(series), device), steps, padded=padded)
        self.walk_reach = self._reach(walk.edges)
        self.horizon = self.vector(self.horizons)
        self.origins = list(map(volatility.room, self.lengths, self.horizons))
        self.every = self.steps if min(self.horizons) == self.steps else None
        self.clocks: list[Clock | None] = []
        self.season = None
        if walk is POOLED and (any(periods) or set(map(type, times)) != _NO_TIMES):
            self.clocks = [clock_of(item, self.steps) for item in items]
            self.season = make_season(self.path, self.clocks, self.steps, device) if any(self.clocks) else None
        self._walk = walk

    @cached_property
    def walk(self) -> Backtest:
        """The deviations of the random walk, now and at past origins; series with faults or halts never need them."""
        return self._walk.backtest(self.path, self.horizon, self.origins, self.steps, self.every, self.season)

    def vector(self, numbers: Sequence[int]) -> AnyArray:
        """Numbers of the host as int64 [n] on the device."""
        return put(np.array(numbers, dtype=np.int64), self.device)

    def numbers(self, numbers: Sequence[float]) -> AnyArray:
        """Numbers of the host as float64 [n] on the device."""
        return put(np.array(numbers, dtype=np.float64), self.device)

    def _reach(self, edges: Edges) -> AnyArray:
        if self.levels.count(self.levels[0]) == len(self.levels):
            return edges(self.levels[0], self.device)[None, : self.steps]
        sets = list(dict.fromkeys(self.levels))
        xp = namespace(self.path.level)
        stacked = xp.zeros((len(sets), self.steps, self.columns), dtype=xp.float64, device=self.device)
        for index, levels in enumerate(sets):
            stacked[index, :, : len(levels)] = edges(levels, self.device)[: self.steps]
        place = {levels: index for index, levels in enumerate(sets)}
        return stacked[self.vector([place[levels] for levels in self.levels])]

    def random_walk(self) -> Outlook:
        """No drift, the exponentially weighted sigma, Student tails."""
        edges = self.walk.spread[:, :, None] * self.walk_reach
        return Outlook(self.path.last[:, None] * _ones(self.steps, self.device), self.path.prices(edges))

    def structured(self, rows: AnyArray, structure: Structure, width: AnyArray | None = None) -> Outlook:
        """The structured model of ``rows`` (int64 [b]) alone, with ``width`` [b] as factor of its deviations."""
        path = self.path.select(rows)
        if structure.judged:
            path = natural(path)
        median, deviation = structure.predict(path, self.steps)
        if width is not None:
            deviation = deviation * width[:, None]
        reach = self._reach(student.table)
        reach = reach if len(reach) == 1 else reach[rows]
        return Outlook(path.prices(median), path.prices(median[:, :, None] + deviation[:, :, None] * reach))

    def parts(self, rows: Sequence[int]) -> list[Sequence[int]]:
        """``rows`` in parts small enough for the memory of the autoregression."""
        if not rows:
            return []
        size = autoregression.rows_at_once(self.path.step.shape[1])
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    def answers(
        self,
        outlook: Outlook,
        gates: Sequence[float],
        coverage: Coverage,
        warnings: Mapping[int, Warnings],
        plain: Sequence[int] = (),
    ) -> list[Forecast]:
        """Forecasts on the host, cut to the items' horizons and levels.

        ``warnings`` are about the data, by row; ``plain`` are rows of which plain values have the larger share.
        """
        medians, bands = list(host(outlook.point)), list(host(outlook.quantiles))
        if min(self.horizons) < self.steps or min(self.widths) < self.columns:
            medians = [median[:horizon] for median, horizon in zip(medians, self.horizons, strict=True)]
            sizes = zip(bands, self.horizons, self.widths, strict=True)
            bands = [np.ascontiguousarray(band[:horizon, :width]) for band, horizon, width in sizes]
        logs, shares, counts = self.path.logs.tolist(), coverage.shares(), coverage.counts
        doubts = list(map(of_coverage, shares, counts))
        for row in plain:
            logs[row] = False
        for row, found in warnings.items():
            doubts[row] = found + doubts[row]
        forecasts = list(map(Forecast, medians, bands, gates, logs, self.lengths, shares, counts, doubts))
        if self.season is not None:
            for row, clock in enumerate(self.clocks):
                if clock is not None:
                    answer = forecasts[row]
                    forecasts[row] = answer._replace(
                        phases=self._phases(row, clock, self.season),
                        warnings=answer.warnings + of_cycles(clock.cycles, clock.period),
                    )
        return forecasts

    def _phases(self, row: int, clock: Clock, season: Season) -> Phases:
        """The coverage of the random walk one step ahead, by phase."""
        place = self.vector([row])
        item = self.items[row]
        count, last = volatility.room(len(item.values), 1), len(item.values)
        one = self.vector([1])
        test = POOLED.backtest(self.path.select(place), one, [count], 1, 1, season.select(place))
        edge = POOLED.edges((0.9,), self.device)[0, 0]
        hits = host(abs(test.target - test.start) <= test.sigma * edge)[0]
        phases = clock.phases[last - count : last]
        counted = np.bincount(phases, minlength=clock.period)
        kept = np.bincount(phases, hits, clock.period)
        measured = np.where(counted > 0, kept / np.maximum(counted, 1), np.nan)
        return Phases(measured, counted, None if item.times is None else clock.phases[last : last + item.horizon])
