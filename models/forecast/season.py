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

# A phase counts PRIOR_STEPS steps of the mean size of its neighbours, weighted by their distance, beside its own: few
# steps hardly move a factor. A phase that differs from its neighbours by more than the scatter of sizes explains, such
# as an opening, counts fewer. Neighbours count OVERALL_STEPS steps of the mean size of all.
NEIGHBOURS = (0.5, 1.0, 1.0, 1.0, 0.5)
PRIOR_STEPS = 60.0
OVERALL_STEPS = 4.0
# The variance of sizes around their mean, relative to the squared mean, times two: of the normal distribution 1.1, of
# the Student t with 4 degrees of freedom 2.
SCATTER = 1.6
# A step counts at most as so many mean steps, and as so many of the mean steps of its phase.
LARGEST_STEP, LARGEST_OF_PHASE = 10.0, 4.0


@dataclass(frozen=True, slots=True)
class Season:
    """The factors of B rows; all 1 for a row without a period.

    ``factor``: [B, W], of every step of the path. ``ahead``: [B, H], the sums of the squared factors of 1 to H steps.
    ``known``: bool [B], whether the row has a period.
    """

    factor: AnyArray
    ahead: AnyArray
    known: AnyArray

    def calmed(self, path: Path) -> Path:
        """The path with every step over its factor; levels stay."""
        return replace(path, step=path.step / self.factor)

    def select(self, rows: AnyArray) -> "Season":
        """The season of ``rows`` (int64 [b])."""
        return Season(self.factor[rows], self.ahead[rows], self.known[rows])

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
    known = np.array([clock is not None for clock in clocks])
    return Season(put(factor, device), put((ahead * ahead).cumsum(1), device), put(known, device))


def _factors(size: Array, phases: NDArray[np.int64], period: int) -> Array:
    """[period]: the size of the steps at each phase, relative to that of all steps; 0 is the newest step's."""
    mean = size.mean()
    if mean == 0:
        return np.ones(period)
    counts = np.bincount(phases, minlength=period).astype(np.float64)
    known = _around(counts) + OVERALL_STEPS
    clipped = np.minimum(size, LARGEST_STEP * mean)
    usual = _smoothed(clipped, phases, counts, known)
    clipped = np.minimum(clipped, LARGEST_OF_PHASE * usual[phases])
    found: Array = _smoothed(clipped, phases, counts, known) / clipped.mean()
    return found


def _smoothed(size: Array, phases: NDArray[np.int64], counts: Array, known: Array) -> Array:
    """[period]: the mean size at each phase, of ``counts`` steps, shrunk to that of ``known`` steps around it."""
    sums = np.bincount(phases, size, len(counts)).astype(np.float64)
    around = (_around(sums) + OVERALL_STEPS * size.mean()) / known
    # By the smaller mean, a calm phase beside an opening differs as much as the opening; one step counts as around it.
    smaller = np.minimum((sums + around) / (counts + 1), around)
    surprise = (sums - counts * around) ** 2 / (SCATTER * around * smaller * np.maximum(counts, 1))
    prior = PRIOR_STEPS / np.maximum(surprise, 1) ** 2
    found: Array = (sums + prior * around) / (counts + prior)
    return found


def _around(values: Array) -> Array:
    """[period]: the weighted sums over a phase and its neighbours, around the cycle."""
    reach = len(NEIGHBOURS) // 2
    return np.convolve(values.take(np.arange(-reach, len(values) + reach), mode="wrap"), NEIGHBOURS, "valid")
