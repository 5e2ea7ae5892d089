"""Pretrained forecasters as models: any network with quantiles at fixed levels becomes a Model of series.

Owns levels, answers and backtests around a network. The network is a Foundation: fracast, chronos or timesfm.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Protocol

import numpy as np
import torch

from models.forecast import answer_warnings
from models.forecast.batch import Outlook
from models.forecast.embedded import bucket, units
from models.forecast.interpolation import weights
from models.forecast.path import LARGEST
from models.forecast.selftest import SelfTestError, seasonal
from models.forecast.series import Array, Forecast, Series

# A past origin costs a forward pass, so origins are few; the answer has the count.
BACKTESTS = 4
LEAST_POINTS = 30
_INTERVAL = (0.1, 0.9)


class Foundation(Protocol):
    """A pretrained network: the known ``levels``, increasing; the ``longest`` context, in points."""

    levels: tuple[float, ...]
    longest: int
    version: str
    device: torch.device

    def steps(self, horizon: int) -> int:
        """How many steps the network is run for when ``horizon`` are wanted; rows of equal steps share a batch."""
        ...

    def quantiles(self, contexts: Sequence[Array], horizon: int) -> torch.Tensor:
        """[len(contexts), horizon, levels] float64 on ``device``, in the units of the context (float64 [T], |x| < 2).

        ``horizon`` is a result of steps(). Rows are independent.
        """
        ...


class Pretrained:
    """A Foundation as a Model. The bands come from the network: on prices seldom better than the bands of `auto`."""

    def __init__(self, name: str, foundation: Foundation, backtests: int = BACKTESTS) -> None:
        self.name = name
        self.version = foundation.version
        self._foundation = foundation
        self._backtests = backtests

    def bucket(self, item: Series) -> Hashable:
        return bucket(item)

    def units(self, item: Series) -> int:
        return units(item) * (1 + len(past(item, self._backtests)))

    def check(self) -> None:
        """Forecast a stored series twice; raises SelfTestError unless the bands repeat, are ordered and not absurd.

        No answer is stored: the weights are the user's.
        """
        item = seasonal()
        found, again = (self._plain([item])[0].quantiles for _ in range(2))
        near = np.abs(found - item.values.mean()) <= 100 * np.ptp(item.values)
        if not near.all() or (found[:, 1:] < found[:, :-1]).any() or not np.array_equal(found, again):
            raise SelfTestError(f"{self.name}: the self-test found {found[-1].tolist()}, then {again[-1].tolist()}")

    def run(self, items: Sequence[Series]) -> list[Forecast]:
        """Forecasts in the items' order; equal alone and in any batch to the network's float precision."""
        return with_coverage(items, self._plain(items), self._plain, self._backtests)

    @torch.inference_mode()
    def _plain(self, items: Sequence[Series]) -> list[Forecast]:
        examined = [answer_warnings.examine(item) for item in items]
        items = [item for item, _ in examined]
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
                warnings=warnings,
            )
            for row, (item, warnings) in enumerate(examined)
        ]


def outlook(foundation: Foundation, items: Sequence[Series], steps: int, columns: int) -> Outlook:
    """The network's forecasts at the levels of every item, [b, steps] and [b, steps, columns]."""
    device = foundation.device
    # Powers of two change no digit, and keep the largest and the smallest series within the range of float32.
    exponents = [int(np.frexp(np.abs(item.values).max())[1]) - 1 for item in items]
    scaled = [np.ldexp(item.values, -exponent) for item, exponent in zip(items, exponents, strict=True)]
    known = _known(foundation, scaled, [item.horizon for item in items], steps)
    quantiles = known.new_zeros(len(items), steps, columns)
    for levels in dict.fromkeys(item.levels for item in items):
        rows = torch.tensor([row for row, item in enumerate(items) if item.levels == levels], device=device)
        share = weights(foundation.levels, levels, device)[:steps]
        # Rounding may swap nearly equal levels.
        quantiles[rows, :, : len(levels)] = torch.einsum("bhk,hak->bha", known[rows], share).cummax(2).values
    middle = weights(foundation.levels, (0.5,), device)[:steps, 0]
    power = torch.tensor(exponents, device=device)[:, None]
    point = torch.ldexp((known * middle).sum(2), power).clamp(-LARGEST, LARGEST)
    return Outlook(point, torch.ldexp(quantiles, power[:, :, None]).clamp(-LARGEST, LARGEST))


def _known(foundation: Foundation, series: Sequence[Array], horizons: Sequence[int], steps: int) -> torch.Tensor:
    """[b, steps, levels]: the network's own quantiles, sorted; zeros beyond a row's horizon."""
    device = foundation.device
    runs = [foundation.steps(horizon) for horizon in horizons]
    known = torch.zeros(len(series), steps, len(foundation.levels), dtype=torch.float64, device=device)
    for run in sorted(set(runs)):
        rows = [row for row, own in enumerate(runs) if own == run]
        found = foundation.quantiles([series[row][-foundation.longest :] for row in rows], run)[:, :steps]
        # Networks may cross quantiles; sorting never makes quantiles worse (Chernozhukov et al., 2010).
        known[torch.tensor(rows, device=device), : found.shape[1]] = found.sort(dim=2).values
    return known


def by_blocks(
    next_block: Callable[[Sequence[Array]], torch.Tensor],
    contexts: Sequence[Array],
    horizon: int,
    foundation: Foundation,
) -> torch.Tensor:
    """[b, horizon, levels] from ``next_block``, a forecast of a fixed number of steps.

    Later blocks take earlier medians as observed values, so the bands of later blocks are too narrow.
    """
    middle = min(range(len(foundation.levels)), key=lambda index: abs(foundation.levels[index] - 0.5))
    blocks = [next_block(contexts)]
    while sum(block.shape[1] for block in blocks) < horizon:
        medians = blocks[-1][:, :, middle].cpu().numpy()
        pairs = zip(contexts, medians, strict=True)
        contexts = [np.concatenate([context, median])[-foundation.longest :] for context, median in pairs]
        blocks.append(next_block(contexts))
    return torch.cat(blocks, dim=1)[:, :horizon]


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
    """``answers`` with the coverage of the central 80% interval, from runs of ``forecast`` at past origins."""
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
        warnings = answer_warnings.with_coverage(answer.warnings, share, len(kept))
        found.append(answer._replace(coverage=share, coverage_count=len(kept), warnings=warnings))
    return found
