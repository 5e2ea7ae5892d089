"""One batch on the device: the path of its items, the bands at each item's own levels, and the answers.

Owns the shapes of a batch. Items of different contexts, horizons and level sets share it; padding never comes back.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from models.forecast import autoregression, volatility
from models.forecast.path import make_path, pack
from models.forecast.series import Forecast, Series
from models.forecast.student import table


@dataclass(frozen=True, slots=True)
class Outlook:
    """Forecasts of B rows in the series' units: ``point`` [B, H] is the median, ``quantiles`` [B, H, A]."""

    point: torch.Tensor
    quantiles: torch.Tensor


class Batch:
    """The items' paths on ``device`` and the bands' edges ``reach`` [B or 1, H, A] in units of sigma * sqrt(h)."""

    def __init__(self, items: Sequence[Series], device: torch.device) -> None:
        self.items = items
        self.device = device
        values, lengths = pack(items)
        horizons = [item.horizon for item in items]
        self.origins = [volatility.room(*pair) for pair in zip(lengths, horizons, strict=True)]
        numbers = torch.from_numpy(np.array([lengths, horizons, self.origins])).to(device)
        self.horizon = numbers[1]
        self._number = numbers[2]
        self.path = make_path(torch.from_numpy(values).to(device), (numbers[0] - 1).double())
        self.steps = max(horizons)
        self.reach = self._reach()

    def _reach(self) -> torch.Tensor:
        sets = list(dict.fromkeys(item.levels for item in self.items))
        if len(sets) == 1:
            return table(sets[0], self.device)[None, : self.steps]
        most = max(map(len, sets))
        stacked = self.path.level.new_zeros(len(sets), self.steps, most)
        for index, levels in enumerate(sets):
            stacked[index, :, : len(levels)] = table(levels, self.device)[: self.steps]
        place = {levels: index for index, levels in enumerate(sets)}
        return stacked[torch.tensor([place[item.levels] for item in self.items], device=self.device)]

    def reach_of(self, rows: torch.Tensor) -> torch.Tensor:
        """``reach`` of ``rows`` (int64 [b]), [b or 1, H, A]."""
        return self.reach if len(self.reach) == 1 else self.reach[rows]

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
        band = median[:, :, None] + deviation[:, :, None] * self.reach_of(rows)
        return Outlook(path.prices(median), path.prices(band))

    def random_walk_coverage(self) -> torch.Tensor:
        """How many of each item's ``origins`` kept their promise under the random walk, int64 [B]."""
        most = max(self.origins)
        if most == 0:
            return torch.zeros_like(self.horizon)
        return volatility.coverage(self.path, self.horizon, self._number, most)

    def answers(
        self, outlook: Outlook, weight: torch.Tensor, covered: torch.Tensor, counts: Sequence[int]
    ) -> list[Forecast]:
        """Forecasts on the host, cut to each item's horizon and levels; ``covered`` [B] is out of ``counts``."""
        point, quantiles = outlook.point.cpu().numpy(), outlook.quantiles.cpu().numpy()
        columns = quantiles.shape[2]
        gates, logs, hits = weight.tolist(), self.path.logs.tolist(), covered.tolist()
        found = []
        for row, item in enumerate(self.items):
            steps, levels, count = item.horizon, len(item.levels), counts[row]
            own = quantiles[row, :steps]
            if levels < columns:
                own = np.ascontiguousarray(own[:, :levels])
            share = hits[row] / count if count else float("nan")
            found.append(Forecast(point[row, :steps], own, gates[row], logs[row], len(item.values), share, count))
        return found


def mix(outlook: Outlook, rows: torch.Tensor, weight: torch.Tensor, other: Outlook) -> Outlook:
    """``outlook`` with ``other`` mixed into ``rows`` (int64 [b]) at ``weight`` ([b] or [b, H])."""
    weight = weight if weight.dim() == 2 else weight[:, None]
    point = torch.lerp(outlook.point[rows], other.point, weight)
    quantiles = torch.lerp(outlook.quantiles[rows], other.quantiles, weight[:, :, None])
    return Outlook(
        outlook.point.index_copy(0, rows, point),
        outlook.quantiles.index_copy(0, rows, quantiles.cummax(2).values),
    )
