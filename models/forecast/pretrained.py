"""Pretrained forecasters as models: any network that gives quantiles at fixed levels becomes a Model of series.

Owns levels, answers and backtests around a network. The network itself is a Foundation: fracast, chronos or timesfm.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch

from models.forecast.batch import Outlook
from models.forecast.embedded import bucket, cost
from models.forecast.interpolation import weights
from models.forecast.path import LARGEST
from models.forecast.selftest import SelfTestError, seasonal
from models.forecast.series import Array, Forecast, Series

# Each past origin costs a forward pass, so there are few; the count says so.
BACKTESTS = 4
LEAST_POINTS = 30
_INTERVAL = (0.1, 0.9)


class Foundation(Protocol):
    """A pretrained network: ``levels`` that it knows, increasing; ``longest`` context that it looks at, in points."""

    levels: tuple[float, ...]
    longest: int
    version: str
    device: torch.device

    def quantiles(self, contexts: Sequence[Array], horizon: int) -> torch.Tensor:
        """[len(contexts), horizon, levels] float64 on ``device``, in the units of each context (float64 [T], |x| < 2).

        A row never depends on the others, nor a step on the horizon.
        """
        ...


class Pretrained:
    """A Foundation as a Model. Its bands are the network's own: on prices seldom better than those of `auto`."""

    def __init__(self, name: str, foundation: Foundation, backtests: int = BACKTESTS) -> None:
        self.name = name
        self.version = foundation.version
        self._foundation = foundation
        self._backtests = backtests

    def bucket(self, item: Series) -> Hashable:
        return bucket(item)

    def cost(self, item: Series) -> int:
        return cost(item) * (1 + len(past(item, self._backtests)))

    def check(self) -> None:
        """Forecast a stored series; raises SelfTestError unless the bands are ordered and near it."""
        item = seasonal()
        found = self.run([item])[0].quantiles
        near = np.abs(found - item.values.mean()) <= 10 * np.ptp(item.values)
        if not near.all() or (found[:, 1:] < found[:, :-1]).any():
            raise SelfTestError(f"{self.name}: the self-test's forecast is not near its series: {found[-1].tolist()}")

    @torch.inference_mode()
    def run(self, items: Sequence[Series]) -> list[Forecast]:
        """Forecasts in the items' order; equal alone and in any batch to the network's float precision."""
        return with_coverage(items, self._plain(items), self._plain, self._backtests)

    def _plain(self, items: Sequence[Series]) -> list[Forecast]:
        steps, columns = max(item.horizon for item in items), max(len(item.levels) for item in items)
        found = outlook(self._foundation, items, steps, columns)
        point, quantiles = found.point.cpu().numpy(), found.quantiles.cpu().numpy()
        return [
            Forecast(
                point[row, : item.horizon],
                np.ascontiguousarray(quantiles[row, : item.horizon, : len(item.levels)]),
                gate=1.0,
                logs=False,
                context=min(len(item.values), self._foundation.longest),
                coverage=float("nan"),
                coverage_count=0,
            )
            for row, item in enumerate(items)
        ]


def outlook(foundation: Foundation, items: Sequence[Series], steps: int, columns: int) -> Outlook:
    """The network's forecasts at each item's own levels, [b, steps] and [b, steps, columns]."""
    contexts = [item.values[-foundation.longest :] for item in items]
    # Powers of two change no digit, and keep the largest and the smallest series within the range of float32.
    exponents = [int(np.frexp(np.abs(context).max())[1]) - 1 for context in contexts]
    scaled = [np.ldexp(context, -exponent) for context, exponent in zip(contexts, exponents, strict=True)]
    found = foundation.quantiles(scaled, steps)
    power = torch.tensor(exponents, device=found.device)[:, None, None]
    # Networks may cross their quantiles; sorting never makes them worse (Chernozhukov et al., 2010).
    known = torch.ldexp(found, power).clamp(-LARGEST, LARGEST).sort(dim=2).values
    quantiles = known.new_zeros(len(items), steps, columns)
    for levels in dict.fromkeys(item.levels for item in items):
        rows = torch.tensor([row for row, item in enumerate(items) if item.levels == levels], device=known.device)
        share = weights(foundation.levels, levels, known.device)[:steps]
        # Rounding may swap levels that all but touch.
        quantiles[rows, :, : len(levels)] = torch.einsum("bhk,hak->bha", known[rows], share).cummax(2).values
    middle = weights(foundation.levels, (0.5,), known.device)[:steps, 0]
    return Outlook((known * middle).sum(2), quantiles)


def past(item: Series, most: int) -> list[int]:
    """The latest ``most`` origins one horizon apart, as lengths of the series by then."""
    lengths = (len(item.values) - order * item.horizon for order in range(1, most + 1))
    return [length for length in lengths if length >= LEAST_POINTS]


def with_coverage(
    items: Sequence[Series],
    answers: Sequence[Forecast],
    forecast: Callable[[Sequence[Series]], Sequence[Forecast]],
    most: int,
) -> list[Forecast]:
    """``answers`` with the coverage of the central 80% interval by ``forecast`` itself, run anew at past origins."""
    origins = [past(item, most) for item in items]
    earlier = [
        Series(item.values[:length], item.horizon, _INTERVAL)
        for item, lengths in zip(items, origins, strict=True)
        for length in lengths
    ]
    bands = iter(forecast(earlier) if earlier else ())
    found = []
    for item, answer, lengths in zip(items, answers, origins, strict=True):
        targets = [item.values[length + item.horizon - 1] for length in lengths]
        kept = [low <= target <= high for target in targets for low, high in [next(bands).quantiles[-1]]]
        share = sum(kept) / len(kept) if kept else float("nan")
        found.append(replace(answer, coverage=share, coverage_count=len(kept)))
    return found
