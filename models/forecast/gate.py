"""The gate: how much structure a series shows beyond a random walk, in [0, 1].

Owns the test for structure alone. On prices the gate stays shut, so that prices never pay for the autoregression.

Every statistic is well conditioned: denominators have a floor far above rounding error, so that a spread of rounding
noise is no evidence. Batch size and padding change the last bits of a sum, and never the gate.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from models.forecast.arrays import AnyArray, lower_median, namespace
from models.forecast.path import Path

MOST_LAGS = 100
CLIP = 4.0
UNIT_ROOT_LEVEL = 12.0
OPENS_AT = 0.02
OPENS_OVER = 0.04
MARGIN = 0.002
# The size of the blocks of _lagged().
LANES = 16
# Below this share of the squared levels, the squared deviations of the levels are not known from sums.
LEAST_SPREAD = 1e-6
# After replaced outliers the gate asks for more structure.
OPENS_AT_TREATED = 0.04
# Rounding error alone makes a spread of a tiny share of the values' size: a spread below SMALLEST_SHARE counts as none.
SMALLEST_SHARE = 1e-6
# The same for the spread of steps, in path units: logarithms of two libraries differ by as much as 1e-13.
SMALLEST_SPREAD = 1e-8
# Bound of the Dickey-Fuller statistic per effective step. A regression fits a single jump without error and would show
# unlimited evidence; with the bound, up to four jumps are no evidence of reversion. For Gaussian noise about a fixed
# level the bound equals the statistic.
PER_STEP = 3.0
# Products of step and level are clipped at a multiple of the mean size, so that volumes with spikes keep the evidence
# of the other steps.
LARGEST_PRODUCT = 4.0
# Version 2 asks for more structure by LATER. It counts the autocorrelation at the first lags, and the pull of levels,
# only with evidence of reversion: from the squared Dickey-Fuller statistic REVERSION_LEVEL on, and fully from
# FULL_REVERSION above it. A short memory of steps says nothing of the far horizon (monthly bond yields).
FIRST_LAGS = 3
FULL_REVERSION = 8.0
REVERSION_LEVEL = 14.0
LATER = 0.02
# Lengths of Fourier transforms are multiples of BLOCK: fast, and few different lengths.
BLOCK = 128


def weight(path: Path, opens_at: float | AnyArray = OPENS_AT) -> AnyArray:
    """[B]: w = clip((S - a - 2/T) / .04, 0, 1) with S the evidence of autocorrelation, drift and mean reversion.

    ``opens_at`` is a, a number or [B].
    """
    return _opened(path, opens_at, exact_weight, UNIT_ROOT_LEVEL, OPENS_AT)


def weight_2(path: Path, opens_at: float | AnyArray = OPENS_AT) -> AnyArray:
    """[B]: the gate of `auto` version 2, never wider open than weight().

    The threshold of an autocorrelation grows where large steps cluster, since clusters make autocorrelations of
    independent signs larger (Diebold, 1986).
    """
    return _opened(path, opens_at, exact_weight_2, REVERSION_LEVEL, OPENS_AT + LATER)


def _opened(
    path: Path, opens_at: float | AnyArray, exact: Callable[..., AnyArray], level: float, least: float
) -> AnyArray:
    """[B]: the gate by ``exact``; on numpy of the rows in doubt alone, by ``level`` and ``least`` of doubtful()."""
    if not isinstance(path.step, np.ndarray):
        return exact(path, opens_at)
    found = np.zeros(len(path.step))
    rows = doubtful(path, level, least)
    if len(rows):
        found[rows] = exact(path.select(rows), opens_at if isinstance(opens_at, float) else opens_at[rows])
    return found


def exact_weight(path: Path, opens_at: float | AnyArray) -> AnyArray:
    """As weight(), without skipped rows."""
    excess, drift, reversion = _evidence(path)
    score = excess.sum(1) + drift - opens_at - 2 / path.count
    score = score + (reversion - UNIT_ROOT_LEVEL).clip(0) / path.count
    return (score / OPENS_OVER).clip(0, 1)


def exact_weight_2(path: Path, opens_at: float | AnyArray) -> AnyArray:
    """As weight_2(), without skipped rows."""
    excess, drift, reversion = _evidence(path, clustered=True)
    share = ((reversion - REVERSION_LEVEL) / FULL_REVERSION).clip(0, 1)
    score = excess[:, FIRST_LAGS:].sum(1) + share * excess[:, :FIRST_LAGS].sum(1) + drift
    score = score + (reversion - REVERSION_LEVEL).clip(0) / path.count
    return ((score - opens_at - LATER - 2 / path.count) / OPENS_OVER).clip(0, 1)


def _evidence(path: Path, *, clustered: bool = False) -> tuple[AnyArray, AnyArray, AnyArray]:
    """Of autocorrelation by lag [B, K], of drift [B], and the squared Dickey-Fuller statistic [B]."""
    lags, theta = _chance(path.count)
    gap, mean, variance, deviation = _spread(path)
    excess = _autocorrelation(path, gap, variance, lags, theta, clustered=clustered)
    return excess, (mean * mean / variance - theta).clip(0), _reversion(path, deviation, variance)


def _chance(count: AnyArray) -> tuple[AnyArray, AnyArray]:
    """The number of lags, and the squared autocorrelation that chance explains, both [B]."""
    xp = namespace(count)
    lags = xp.floor(count / 3).clip(max=MOST_LAGS)
    return lags, 2 * xp.log(lags) / count


def doubtful(path: Path, level: float, least: float) -> NDArray[np.int64]:
    """The rows whose gate may open, ascending; numpy alone. ``level`` and ``least`` are those of _may_open()."""
    step, mask = path.step, path.mask
    if mask is not None:
        found = _may_open(step, path.level, mask, path.count, _chance(path.count)[1], level, least)
    else:
        width = step.shape[1]
        chance = _chance_of(width)
        if len(step) == 1:
            return np.arange(int(_may_open(step[0], path.level[0], None, float(width), chance, level, least)))
        found = _may_open(step, path.level, None, float(width), chance, level, least)
    rows: NDArray[np.int64] = found.nonzero()[0]
    return rows


@lru_cache(maxsize=1 << 12)
def _chance_of(count: int) -> float:
    """The squared autocorrelation that chance explains, of one count."""
    return float(_chance(np.array([float(count)]))[1][0])


def _may_open(
    step: AnyArray,
    level: AnyArray,
    mask: AnyArray | None,
    count: float | AnyArray,
    theta: float | AnyArray,
    reverts_at: float,
    least: float,
) -> AnyArray:
    """Whether gates may open, bool [B], or of one row: false where the evidence is surely below ``least``; numpy alone.

    ``step`` and ``level`` are [B, W] and [B, W + 1], or of one row without padding; ``count`` and ``theta`` are [B] or
    a number. Reversion counts from the squared statistic ``reverts_at`` on.

    Only for skipping work, by half the digits in a fraction of the time. Every part of the evidence is at least that of
    _evidence(), and MARGIN is far above the rounding error of single precision. The sum of step_t L_(t-1) follows
    from sums: -(L_0^2 + sum of step^2) / 2. Of one row, statistics are numbers: Python's max() and float() take a tenth
    of numpy's time for arrays of one number.
    """
    width, one = step.shape[-1], step.ndim == 1
    larger, column = (max, float) if one else (np.maximum, _single_column)
    longest, middle = min(width // 3, MOST_LAGS), (width - 1) // 2
    first, total = level[..., 0], level.sum(-1)
    square, level_square = np.vecdot(step, step), np.vecdot(level, level)
    limit: AnyArray = theta
    floor: AnyArray = SMALLEST_SHARE**2 * count
    padded = np.zeros((*step.shape[:-1], -(-width // LANES) * LANES + longest), dtype=np.float32)
    values = padded[..., :width]
    values[:] = step
    if mask is None:
        ordered = values.copy()
        ordered.sort()
        values -= ordered[..., middle, None]
        ordered = abs(values)
        ordered.sort()
        robust = ordered[..., middle]
    else:
        mask = mask.astype(np.float32)
        values -= lower_median(values, mask, count)
        values *= mask
        robust = lower_median(abs(values), mask, count)[:, 0]
        total = total - (width - count) * first
        level_square = level_square - (width - count) * (first * first)
        limit, floor = np.asarray(theta)[:, None], floor[:, None]
    drift = first / count
    drift = drift * drift
    variance = square / count - drift + (SMALLEST_SHARE**2 * drift + SMALLEST_SPREAD**2)
    values *= column(1 / larger(1.4826 * robust, 0.1 * np.sqrt(variance)))
    values.clip(-CLIP, CLIP, out=values)
    values -= column(values.sum(-1) / count)
    if mask is not None:
        values *= mask
    products = _lagged(padded, longest)
    correlation = products[..., 1:] / (products[..., :1] + floor)
    excess = np.maximum(correlation * correlation - limit, 0)
    if mask is not None:
        excess *= np.arange(1, longest + 1) <= np.asarray(count)[:, None] / 3
    spread = level_square - total * total / count
    across = larger((first * first + square) / 2 - total * first / count, 0)
    explained = across * across / (spread + SMALLEST_SPREAD**2 * count)
    left = variance * count
    reversion = explained * (count - 2) / (abs(left - explained) + SMALLEST_SHARE**2 * left)
    evidence = excess.sum(-1) + larger(drift / variance - theta, 0) + (larger(reversion - reverts_at, 0) - 2) / count
    return ~((evidence <= least - MARGIN) & (spread >= LEAST_SPREAD * level_square))


def _single_column(numbers: AnyArray) -> AnyArray:
    """Numbers [B] as float32 [B, 1]."""
    return numbers.astype(np.float32)[:, None]


def _lagged(padded: AnyArray, longest: int) -> AnyArray:
    """[..., longest + 1]: as _products(), from matrix products of blocks; numpy alone.

    ``padded`` [..., n LANES + longest], the latest ``longest`` places zero.

    Entry [i, j] of the product of the blocks of LANES values with all values from the start t of each block on is the
    sum of v_(t + i) v_(t + j) over t: the diagonals add up to the sums by lag.
    """
    (*rows, width), (*row, size) = padded.shape, padded.strides
    blocks = ((width - longest) // LANES, longest + LANES)
    onward = np.ndarray((*rows, *blocks), padded.dtype, padded, 0, (*row, LANES * size, size)).copy()
    products = onward[..., :LANES].mT @ onward
    *row, line, _ = products.strides
    return np.ndarray((*rows, LANES, longest + 1), padded.dtype, products, 0, (*row, line + size, size)).sum(-2)


def reverting(path: Path) -> AnyArray:
    """[B]: the evidence of mean reversion, from 0 for none to 1."""
    _, _, variance, deviation = _spread(path)
    return ((_reversion(path, deviation, variance) - REVERSION_LEVEL) / FULL_REVERSION).clip(0, 1)


def _spread(path: Path) -> tuple[AnyArray, AnyArray, AnyArray, AnyArray]:
    """Steps less their median [B, W], their mean [B], their variance [B] with a floor, and steps less their mean."""
    xp, count = namespace(path.step), path.count
    median = lower_median(path.step, path.mask, count)
    gap = path.masked(path.step - median)
    mean = -path.level[:, 0] / count
    deviation = path.masked(gap - (mean[:, None] - median))
    floor = (SMALLEST_SHARE * mean) ** 2 + SMALLEST_SPREAD**2
    return gap, mean, xp.linalg.vecdot(deviation, deviation) / count + floor, deviation


def _reversion(path: Path, deviation: AnyArray, variance: AnyArray) -> AnyArray:
    """[B]: the squared Dickey-Fuller statistic, bounded by PER_STEP for each effective step."""
    before = path.masked(path.level[:, :-1])
    before = path.masked(before - (before.sum(1) / path.count)[:, None])
    found = _dickey_fuller(deviation, before, variance, path.count)
    effective = _effective_steps(deviation * before, path.count)
    return namespace(found).minimum(found, PER_STEP * effective)


def _autocorrelation(
    path: Path, gap: AnyArray, variance: AnyArray, lags: AnyArray, theta: AnyArray, *, clustered: bool = False
) -> AnyArray:
    """[B, K]: squared autocorrelation beyond chance by lag, on robustly scaled ``gap`` (step less its median).

    ``clustered``: chance is larger where large steps cluster.
    """
    xp, width = namespace(path.step), path.step.shape[1]
    robust = 1.4826 * lower_median(abs(gap), path.mask, path.count)
    spread = xp.maximum(robust, 0.1 * xp.sqrt(variance)[:, None])
    clipped = (gap * (1 / spread)).clip(-CLIP, CLIP)
    clipped -= (clipped.sum(1) / path.count)[:, None]
    clipped = path.masked(clipped)
    longest = min(width // 3, MOST_LAGS)
    products = _products(clipped, longest)
    floor = SMALLEST_SHARE**2 * path.count[:, None]
    correlation = products[:, 1:] / (products[:, :1] + floor)
    limit = theta[:, None]
    if clustered:
        common = _products(clipped * clipped, longest)[:, 1:]
        inflated = common * path.count[:, None] / (products[:, :1] + floor) ** 2
        limit = limit * inflated.clip(1)
    excess = (correlation * correlation - limit).clip(0)
    if path.mask is not None:
        excess = excess * (xp.arange(1, longest + 1, device=lags.device) <= lags[:, None])
    return excess


def _products(values: AnyArray, longest: int) -> AnyArray:
    """[B, longest + 1]: the sums of products of ``values`` [B, W] at the lags from 0."""
    xp, size = namespace(values), -(-(values.shape[1] + longest) // BLOCK) * BLOCK
    spectrum = xp.fft.rfft(values, size)
    return xp.fft.irfft(spectrum * spectrum.conj(), size)[:, : longest + 1]


def _dickey_fuller(deviation: AnyArray, before: AnyArray, variance: AnyArray, count: AnyArray) -> AnyArray:
    """The squared t-statistic of the steps on the demeaned level ``before`` the steps where negative, else zero."""
    dot = namespace(deviation).linalg.vecdot
    explained = dot(deviation, before).clip(max=0) ** 2 / (dot(before, before) + SMALLEST_SPREAD**2 * count)
    total = variance * count
    found: AnyArray = explained * (count - 2) / ((total - explained).clip(0) + SMALLEST_SHARE**2 * total)
    return found


def _effective_steps(products: AnyArray, count: AnyArray) -> AnyArray:
    """[B]: the effective number of ``products`` [B, W], (sum c)^2 / sum c^2 after clipping at LARGEST_PRODUCT."""
    dot = namespace(products).linalg.vecdot
    bound = (LARGEST_PRODUCT * abs(products).sum(1) / count)[:, None]
    products = products.clip(-bound, bound)
    return products.sum(1) ** 2 / (dot(products, products) + SMALLEST_SPREAD**4 * count)
