"""A batch of series as right-aligned paths, and the way from a path's units back to prices.

Owns packing, the choice of logarithms and the return to the series' units. Predictions on the path are left to
volatility.py and autoregression.py.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.forecast.arrays import AnyArray, at_most, gather, holds, largest, namespace
from models.forecast.series import Array

# A hair above 2: a step of exactly a factor of e^2 never depends on how a logarithm is rounded.
LARGEST_LOG_STEP = 2.0 + 1e-9
LARGEST = float(np.finfo(np.float64).max)


@dataclass(frozen=True, slots=True)
class Path:
    """Paths of B series over W steps, the latest step last; padding on the left holds zero steps.

    Attributes:
        level: [B, W + 1], the path relative to the last value: log(x / x_T), or (x - x_T) / unit.
        step: [B, W], the differences of level.
        mask: [B, W], 1 where a step is real, 0 in padding; None for a batch without padding.
        count: [B], the number of real steps, as float64.
        logs: [B], whether the path is logarithmic.
        last: [B], x_T.
        unit: [B], the divisor of a path of differences; None where all paths are known to be logarithmic.
        peak: [B], the largest size of a step.
        distance: [B], the sum of the sizes of all steps.
        still: at least the number of zero steps of all rows, padding aside; infinite for tensors, which are not read.
            Only for skipping work.
    """

    level: AnyArray
    step: AnyArray
    mask: AnyArray | None
    count: AnyArray
    logs: AnyArray
    last: AnyArray
    unit: AnyArray | None
    peak: AnyArray
    distance: AnyArray
    still: float

    def select(self, rows: AnyArray) -> "Path":
        """The paths at ``rows`` (int64 [b])."""
        return Path(
            self.level[rows],
            self.step[rows],
            None if self.mask is None else self.mask[rows],
            self.count[rows],
            self.logs[rows],
            self.last[rows],
            None if self.unit is None else self.unit[rows],
            self.peak[rows],
            self.distance[rows],
            self.still,
        )

    def masked(self, steps: AnyArray) -> AnyArray:
        """``steps`` [B, W] with zeros where there is padding."""
        return steps if self.mask is None else steps * self.mask

    def without(self, latest: AnyArray) -> "Path":
        """The paths without the ``latest`` steps (int64 [B]), in the same units; numpy's as short as the longest."""
        xp, end, count = namespace(self.level), self.level.shape[1], self.count - latest
        longest = int(count.max()) if isinstance(count, np.ndarray) else end - 1
        columns = xp.arange(end - 1 - longest, end, device=self.level.device) - latest[:, None]
        level = gather(self.level, columns.clip(0))
        mask = None if holds(count == longest) else real_steps(count, longest)
        step = level[:, 1:] - level[:, :-1]
        size = abs(step)
        return Path(level, step, mask, count, self.logs, self.last, self.unit, largest(size), size.sum(1), self.still)

    def prices(self, level: AnyArray) -> AnyArray:
        """Path levels [B, ...] in the series' own units, finite also where the true value would overflow."""
        xp = namespace(level)
        shape = (-1,) + (1,) * (level.ndim - 1)
        last = self.last.reshape(shape)
        values = last * xp.exp(level)
        if self.unit is None:
            return at_most(values, LARGEST)
        values = xp.where(self.logs.reshape(shape), values, last + self.unit.reshape(shape) * level)
        return values.clip(-LARGEST, LARGEST)


def real_steps(count: AnyArray, width: int) -> AnyArray:
    """[B, W] float64: 1 at the latest ``count`` [B] of ``width`` steps, 0 before them."""
    xp = namespace(count)
    age = xp.arange(width, 0, -1, device=count.device)
    return xp.where(age <= count[:, None], 1.0, xp.zeros_like(count)[:, None])


def pack(series: Sequence[Array]) -> Array:
    """Right-aligned values [B, W + 1], the left filled with the oldest value of the row; a view of a lone series."""
    if len(series) == 1:
        return series[0][None]
    lengths = list(map(len, series))
    longest = max(lengths)
    if min(lengths) == longest:
        return np.array(series)
    values = np.empty((len(series), longest))
    for row, own, length in zip(values, series, lengths, strict=True):
        row[longest - length :] = own
        row[: longest - length] = own[0]
    return values


def make_path(values: AnyArray, count: AnyArray, *, padded: bool) -> Path:
    """The paths of ``values`` [B, W + 1] with ``count`` [B] real steps (both float64, on one device).

    Logarithms are taken where every value is positive and no step is larger than a factor of e^2.
    """
    xp = namespace(values)
    last = values[:, -1]
    mask = real_steps(count, values.shape[1] - 1) if padded else None
    # A value <= 0 gives a step that is not finite; every comparison with such a step is false.
    level = xp.log(values)
    step = level[:, 1:] - level[:, :-1]
    size = abs(step)
    peak = largest(size)
    logs = peak < LARGEST_LOG_STEP
    if holds(logs):
        still = _still(step, mask, count)
        return Path(level - level[:, -1:], step, mask, count, logs, last, None, peak, size.sum(1), still)
    largest_value = largest(abs(values))
    unit = xp.where(largest_value > 0, largest_value, 1.0)
    level = xp.where(logs[:, None], level, values / unit[:, None])
    step = level[:, 1:] - level[:, :-1]
    size = abs(step)
    still = _still(step, mask, count)
    return Path(level - level[:, -1:], step, mask, count, logs, last, unit, largest(size), size.sum(1), still)


def _still(step: AnyArray, mask: AnyArray | None, count: AnyArray) -> float:
    """The number of zero steps in ``step`` [B, W], padding aside; infinite for tensors."""
    if not isinstance(step, np.ndarray):
        return math.inf
    return float(step.size if mask is None else count.sum()) - np.count_nonzero(step)
