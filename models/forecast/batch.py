"""One batch on the device: the path of its items, the bands at each item's own levels, and the answers.

Owns the shapes of a batch. Items of different contexts, horizons and level sets share it; padding never comes back.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from models.forecast import autoregression, volatility
from models.forecast.coverage import Coverage, blend
from models.forecast.path import make_path, pack
from models.forecast.series import Forecast, Series
from models.forecast.student import table
from models.staging import to_device


@dataclass(frozen=True, slots=True)
class Outlook:
    """Forecasts of B rows in the series' units: ``point`` [B, H] is the median, ``quantiles`` [B, H, A]."""

    point: torch.Tensor
    quantiles: torch.Tensor

    def mixed(self, rows: torch.Tensor, weight: torch.Tensor, other: "Outlook") -> "Outlook":
        """This outlook with ``other`` mixed into ``rows`` (int64 [b]) at ``weight`` ([b, H] or [b, 1])."""
        point = blend(self.point[rows], other.point, weight)
        quantiles = blend(self.quantiles[rows], other.quantiles, weight[:, :, None]).cummax(2).values
        return Outlook(self.point.index_copy(0, rows, point), self.quantiles.index_copy(0, rows, quantiles))


class Batch:
    """The items' paths on ``device`` and the bands' edges ``reach`` [B or 1, H, A] in units of sigma * sqrt(h)."""

    def __init__(self, items: Sequence[Series], device: torch.device) -> None:
        self.items = items
        self.device = device
        values, self.lengths = pack(items)
        self.horizons = [item.horizon for item in items]
        self.steps = max(self.horizons)
        self.columns = max(len(item.levels) for item in items)
        self.path = make_path(to_device(values, device), self.vector(self.lengths).double() - 1)
        self.reach = self._reach()

    def vector(self, numbers: Sequence[int]) -> torch.Tensor:
        """Numbers of the host as int64 [n] on the device."""
        return to_device(np.array(numbers, dtype=np.int64), self.device)

    def _reach(self) -> torch.Tensor:
        sets = list(dict.fromkeys(item.levels for item in self.items))
        if len(sets) == 1:
            return table(sets[0], self.device)[None, : self.steps]
        stacked = self.path.level.new_zeros(len(sets), self.steps, self.columns)
        for index, levels in enumerate(sets):
            stacked[index, :, : len(levels)] = table(levels, self.device)[: self.steps]
        place = {levels: index for index, levels in enumerate(sets)}
        return stacked[self.vector([place[item.levels] for item in self.items])]

    def random_walk(self) -> Outlook:
        """No drift, the exponentially weighted sigma, Student tails."""
        path = self.path
        ahead = torch.arange(1, self.steps + 1, dtype=torch.float64, device=self.device).sqrt()
        spread = volatility.sigma(path)[:, None] * ahead
        point = path.last[:, None].expand(-1, self.steps).contiguous()
        return Outlook(point, path.prices(spread[:, :, None] * self.reach))

    def autoregression(self, rows: torch.Tensor) -> Outlook:
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
        point, quantiles = outlook.point.cpu().numpy(), outlook.quantiles.cpu().numpy()
        logs, shares = self.path.logs.tolist(), coverage.shares()
        found = []
        for row, item in enumerate(self.items):
            steps, levels = item.horizon, len(item.levels)
            own = quantiles[row, :steps]
            if levels < self.columns:
                own = np.ascontiguousarray(own[:, :levels])
            median = point[row, :steps]
            found.append(
                Forecast(median, own, gates[row], logs[row], len(item.values), shares[row], coverage.counts[row])
            )
        return found
