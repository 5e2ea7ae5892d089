"""The cycle of the volatility: how large steps are at each phase of a period, such as the hours of a day.

Owns the factors of the phases, and the steps of a path freed of them. The time of day explains more of the volatility
of intraday prices than any memory: overnight hours are calm, openings and announcements are not.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from models.forecast.arrays import AnyArray, Device, host, namespace, put
from models.forecast.clock import Clock
from models.forecast.path import Path
from models.forecast.series import Array

# A phase counts PRIOR_STEPS steps of the mean size of its neighbours, REACH on both sides, beside its own: few steps
# hardly move a factor. A phase that differs from its neighbours by more than the scatter of sizes, such as an opening,
# counts fewer. Neighbours count OVERALL_STEPS steps of the mean size of all.
REACH = 2
PRIOR_STEPS = 20.0
OVERALL_STEPS = 4.0
# The variance of sizes around their mean, relative to the squared mean, times two: of the normal distribution 1.1, of
# the Student t with 4 degrees of freedom 2.
SCATTER = 1.6
# A step counts at most as so many mean steps.
LARGEST_STEP = 8.0


@dataclass(frozen=True, slots=True)
class Season:
    """The factors of B rows; all 1 for a row without a period.

    ``factor``: [B, W], of every step of the path. ``ahead``: [B, H], the sums of the squared factors of 1 to H steps.
    """

    factor: AnyArray
    ahead: AnyArray

    def calmed(self, path: Path) -> Path:
        """The path with every step over its factor; levels stay."""
        return replace(path, step=path.step / self.factor)

    def select(self, rows: AnyArray) -> "Season":
        """The season of ``rows`` (int64 [b])."""
        return Season(self.factor[rows], self.ahead[rows])

    def between(self, ends: AnyArray, horizon: AnyArray) -> AnyArray:
        """[B, O]: the sums of the squared factors of ``horizon`` (int64 [B]) steps after columns ``ends``."""
        xp, rows = namespace(self.factor), len(self.factor)
        sums = xp.zeros((rows, self.factor.shape[1] + 1), dtype=xp.float64, device=self.factor.device)
        sums[:, 1:] = (self.factor * self.factor).cumsum(1)
        row, last = xp.arange(rows, device=self.factor.device)[:, None], self.factor.shape[1]
        return sums[row, (ends + horizon[:, None]).clip(0, last)] - sums[row, ends + 0 * row]


def make_season(path: Path, clocks: Sequence[Clock | None], steps: int, device: Device) -> Season:
    """The seasons of a path. Waits for the device."""
    step, counts = host(path.step), host(path.count).astype(np.int64).tolist()
    factor, ahead = np.ones(step.shape), np.ones((len(clocks), steps))
    for row, (clock, count) in enumerate(zip(clocks, counts, strict=True)):
        if clock is not None:
            phases = clock.phases[-count - steps :]
            found = _factors(np.abs(step[row, -count:]), phases[:count], clock.period)
            factor[row, -count:], ahead[row] = found[phases[:count]], found[phases[count:]]
    return Season(put(factor, device), put((ahead * ahead).cumsum(1), device))


def _factors(size: Array, phases: NDArray[np.int64], period: int) -> Array:
    """[period]: the size of the steps at each phase, relative to that of all steps; 0 is the newest step's."""
    mean = size.mean()
    if mean == 0:
        return np.ones(period)
    clipped = np.minimum(size, LARGEST_STEP * mean)
    mean = clipped.mean()
    sums, counts = (np.bincount(phases, weights, period).astype(np.float64) for weights in (clipped, None))
    around = (_around(sums) + OVERALL_STEPS * mean) / (_around(counts) + OVERALL_STEPS)
    surprise = (sums - counts * around) ** 2 / (SCATTER * around**2 * np.maximum(counts, 1))
    prior = PRIOR_STEPS / (1 + surprise)
    found: Array = (sums + prior * around) / (counts + prior) / mean
    return found


def _around(values: Array) -> Array:
    """[period]: the sums over a phase and its neighbours, around the cycle."""
    sums: Array = np.sum([np.roll(values, shift) for shift in range(-REACH, REACH + 1)], axis=0)
    return sums
