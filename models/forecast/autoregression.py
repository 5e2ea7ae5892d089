"""Ridge autoregression on the steps and the level (`ridge_ar`): structure beyond the random walk.

Owns fit, iteration and the backtest of one fit. Rows of different lengths share a batch: short rows have zero columns
and zero weights without effect. Sums over an axis are matrix products: on numpy, einsum would take several times as
long.
"""

from typing import NamedTuple

from models.forecast.arrays import (
    AnyArray,
    gather,
    namespace,
    pad_left,
    per_row,
    running_max,
    running_min,
    whole,
    windows,
)
from models.forecast.path import Path
from models.forecast.volatility import LEAST_STEPS, SMALLEST_SIGMA

MOST_LAGS, LEAST_LAGS = 64, 4
CLIP = 5.0
AGEING = 0.995
PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
LEAST_FREEDOM = 0.05
# Losses within this share are equal, and the strongest penalty wins: rounding must not choose.
TIE = 1e-9
DECAYS = (0.97, 0.99, 1.0)
LARGEST_RESPONSE = 5.0
# One less the sum of the lags is from SMALLEST_MEMORY on.
SMALLEST_MEMORY = 0.05
# Forecast steps are bounded in units of the series' own: an explosive fit would overflow within a year.
LARGEST_STEP = 1e3
MOST_ORIGINS = 64
# Elements of one design tensor; a fit of more rows is split to bound the memory.
DESIGN = 1 << 22


class Fit(NamedTuple):
    """Autoregressions of b paths: y = drift + lags . (recent y - drift) + pull * (level - centre), y = step / scale.

    lags: [b, p], oldest lag first. pull, drift, centre, scale: [b]. error: [b, W], leave-one-out residuals of
    y, zero where ``known`` [b, W] is false.
    """

    lags: AnyArray
    pull: AnyArray
    drift: AnyArray
    centre: AnyArray
    scale: AnyArray
    error: AnyArray
    known: AnyArray


def _divide(top: AnyArray, bottom: AnyArray) -> AnyArray:
    xp = namespace(bottom)
    return top / xp.where(bottom > 0, bottom, xp.ones_like(bottom))


def _times(matrix: AnyArray, vector: AnyArray) -> AnyArray:
    """[b, n]: the products of ``matrix`` [b, n, m] and ``vector`` [b, m]."""
    return (matrix @ vector[:, :, None])[:, :, 0]


def scaled(path: Path, scale: AnyArray) -> AnyArray:
    """[b, W]: steps in units of ``scale`` [b], outliers clipped."""
    return _divide(path.step, scale[:, None]).clip(-CLIP, CLIP)


def fit(path: Path, pull: AnyArray | None = None) -> Fit:
    """Fit every path, with its own penalty by closed-form leave-one-out.

    ``pull`` [b], from 0 to 1, scales the regressor of the level; None for 1. Without evidence of reversion the pull of
    the level is spurious: least squares find one on every random walk.
    """
    xp, device, (rows, width) = namespace(path.step), path.step.device, path.step.shape
    count = path.count
    lag_count = xp.floor(count / 4).clip(LEAST_LAGS, MOST_LAGS)
    most = min(MOST_LAGS, max(width // 4, LEAST_LAGS))
    scale = xp.sqrt(xp.linalg.vecdot(path.step, path.step) / count)
    y = scaled(path, scale)

    oldest = path.level[:, 0]
    before = path.level[:, :-1] - oldest[:, None]
    mean_rise = before.sum(1) / count
    level_mean = oldest + mean_rise
    gap = path.masked(before - mean_rise[:, None])
    level_deviation = xp.sqrt(xp.linalg.vecdot(gap, gap) / count)
    standing = _divide(gap, level_deviation[:, None])
    if pull is not None:
        standing = standing * pull[:, None]
        level_deviation = _divide(level_deviation, pull)

    used = xp.arange(most, 0, -1, device=device) <= lag_count[:, None]
    design = xp.empty((rows, width - most, most + 1), dtype=xp.float64, device=device)
    design[:, :, :most] = windows(y, most)[:, :-1] * used[:, None, :]
    design[:, :, most] = standing[:, most:]
    target = y[:, most:]
    age = xp.arange(width - most - 1, -1, -1, dtype=xp.float64, device=device)
    recent = age < (count - lag_count)[:, None]
    weight = recent * AGEING**age
    share = weight / weight.sum(1)[:, None]
    design_mean = _times(design.mT, share)
    target_mean = (share * target).sum(1)
    root = xp.sqrt(weight)
    x = (design - design_mean[:, None, :]) * root[:, :, None]
    r = (target - target_mean[:, None]) * root

    values, vectors = xp.linalg.eigh(x.mT @ x)
    projected = _times(vectors.mT, _times(x.mT, r))
    penalty = xp.asarray(PENALTIES, dtype=xp.float64, device=device) * lag_count[:, None] / 4
    shrink = 1 / (values.clip(0)[:, None, :] + penalty[:, :, None])
    rotated = x @ vectors
    fitted = (shrink * projected[:, None, :]) @ rotated.mT
    hat = shrink @ (rotated * rotated).mT + share[:, None, :]
    missed = (r[:, None, :] - fitted) / (1 - hat).clip(LEAST_FREEDOM)
    best = _last_smallest((missed * missed).sum(2))
    row = xp.arange(rows, device=device)
    slope = _times(vectors, shrink[row, best] * projected)

    slope_of_level = _divide(slope[:, -1], level_deviation)
    centre = level_mean + design_mean[:, -1] * level_deviation
    error, known = pad_left(_divide(missed[row, best], root), most), pad_left(recent, most)
    lags, mean, variance = slope[:, :-1], *_moments(y, path)
    if pull is not None:
        settled = target_mean - (design_mean[:, :-1] * lags).sum(1)
        mean, variance = _settled(mean, variance, settled, lags, error, known)
    return Fit(lags, slope_of_level, _drift(mean, variance, count), centre, scale, error, known)


def _last_smallest(losses: AnyArray) -> AnyArray:
    """[b]: the last column of ``losses`` [b, K] with the smallest loss up to TIE."""
    xp = namespace(losses)
    near = losses <= (1 + TIE) * xp.amin(losses, 1)[:, None]
    order = xp.arange(losses.shape[1], device=losses.device)
    return xp.amax(near * (order + 1), 1) - 1


def _moments(y: AnyArray, path: Path) -> tuple[AnyArray, AnyArray]:
    """The mean and the variance of y, [b]."""
    mean = y.sum(1) / path.count
    gap = path.masked(y - mean[:, None])
    return mean, namespace(y).linalg.vecdot(gap, gap) / path.count


def _settled(
    mean: AnyArray, variance: AnyArray, constant: AnyArray, lags: AnyArray, error: AnyArray, known: AnyArray
) -> tuple[AnyArray, AnyArray]:
    """The mean of y, and the variance of one y behind the mean, both [b], by the autoregression where it knows better.

    The steps of a season and of noise about a level take each other back: their sum moves far less than independent
    steps of their size would, and a trend beside them is certain. The autoregression's own mean is its ``constant``
    [b] over one less the sum of the lags, with the errors over the same. A swing that fades has a mean of steps far
    from it: the swing's start, and no trend. So has a season that ends at another phase than it began.
    """
    memory = (1 - lags.sum(1)).clip(SMALLEST_MEMORY)
    count = known.sum(1)
    own = (error * error * known).sum(1) / count / memory**2
    gap = constant / memory - mean
    share = (variance / (own + count * gap * gap).clip(1e-300) - 1).clip(0, 1)
    return mean + share * gap, variance + share * (own - variance)


def _drift(mean: AnyArray, variance: AnyArray, count: AnyArray) -> AnyArray:
    """[b]: ``mean``, shrunk by its t-statistic; zero below t = 2."""
    found: AnyArray = mean * (1 - 4 * variance / (count * mean * mean).clip(1e-300)).clip(0)
    return found


def sigma(error: AnyArray, known: AnyArray, ends: AnyArray) -> AnyArray:
    """[b, O]: the mean over DECAYS of the discounted root mean square of ``error`` [b, W] before columns ``ends``."""
    xp = namespace(error)
    age = ends[:, :, None] - 1 - xp.arange(error.shape[1], dtype=xp.float64, device=error.device)
    known = known[:, None, :] & (age >= 0)
    age, squares = age.clip(0), error * error
    total = xp.zeros(ends.shape, dtype=xp.float64, device=error.device)
    for decay in DECAYS:
        weight = known * decay**age
        total = total + xp.sqrt(_times(weight, squares) / weight.sum(2))
    return total / len(DECAYS)


def iterate(fitted: Fit, path: Path, ends: AnyArray, error_sigma: AnyArray, steps: int) -> tuple[AnyArray, AnyArray]:
    """Forecasts from columns ``ends`` (int64 [b, O]) of path.level: median and deviation [b, O, steps] in path units.

    One recursion carries the forecasts and, in the last lane, the response of the level to a unit shock.
    """
    xp, device = namespace(path.step), path.step.device
    rows, lags = fitted.lags.shape
    lanes = ends.shape[1] + 1
    scale = fitted.scale[:, None]
    memory = xp.zeros((rows, lanes, lags + steps), dtype=xp.float64, device=device)
    window = (ends[:, :, None] - xp.arange(lags, 0, -1, device=device)).clip(0)
    recent = gather(scaled(path, fitted.scale), window.reshape(rows, -1)).reshape(window.shape)
    weights, pull = fitted.lags[:, :, None], fitted.pull[:, None]
    memory[:, :-1, :lags] = recent - fitted.drift[:, None, None]
    memory[:, -1, lags - 1] = 1.0
    forecast = xp.arange(lanes, device=device) < lanes - 1
    drift = forecast * fitted.drift[:, None]
    centre = forecast * fitted.centre[:, None]
    level = xp.concat([gather(path.level, ends), scale], 1)
    levels = xp.empty((rows, lanes, steps + 1), dtype=xp.float64, device=device)
    levels[:, :, 0] = level
    for step in range(steps):
        value = (memory[:, :, step : step + lags] @ weights)[:, :, 0] + pull * (level - centre)
        value = value.clip(-LARGEST_STEP, LARGEST_STEP)
        memory[:, :, lags + step] = value
        level = level + scale * (value + drift)
        levels[:, :, step + 1] = level
    median = _within_reach(levels[:, :-1, 1:], path, ends)
    bound = LARGEST_RESPONSE * scale
    response = levels[:, -1, :-1].clip(-bound, bound)
    deviation = error_sigma[:, :, None] * xp.sqrt((response * response).cumsum(1))[:, None, :]
    return median, deviation.clip(SMALLEST_SIGMA)


def _within_reach(median: AnyArray, path: Path, ends: AnyArray) -> AnyArray:
    """``median`` [b, O, H] clamped to the range until ``ends``, extended by half of the range on both sides."""
    low = gather(running_min(path.level), ends)[:, :, None]
    high = gather(running_max(path.level), ends)[:, :, None]
    slack = (high - low) / 2
    return median.clip(low - slack, high + slack)


def predict(path: Path, steps: int) -> tuple[AnyArray, AnyArray]:
    """The median path and its standard deviation, both [b, steps] in path units."""
    fitted = fit(path)
    end = whole(0 * path.count)[:, None] + path.step.shape[1]
    median, deviation = iterate(fitted, path, end, sigma(fitted.error, fitted.known, end), steps)
    return median[:, 0], deviation[:, 0]


def rows_at_once(width: int) -> int:
    """How many paths of ``width`` steps may be fitted together."""
    return max(1, DESIGN // (width * (MOST_LAGS + 1)))


def room(points: int, horizon: int) -> int:
    """The number of past origins, one horizon apart, after the part of a series fitted by backtest()."""
    steps = points - 1
    return min(max(steps - max(-(-steps // 2), LEAST_STEPS), 0) // horizon, MOST_ORIGINS)


def backtest(path: Path, ends: AnyArray, steps: int) -> tuple[AnyArray, AnyArray]:
    """Median and deviation, [b, O, steps], after past ``ends``.

    ``ends`` (int64 [1 or b, O]) are columns in the latest half of path.level. The coefficients are from the older half
    alone: one fit serves all origins. Sigma follows the errors up to the origin, as in predict().
    """
    origins = per_row(ends, path.step)
    fitted, error, known = early(path)
    return iterate(fitted, path, origins, sigma(error, known, origins), steps)


def early_steps(path: Path) -> AnyArray:
    """[b]: how many of the latest steps the fit on the older half leaves out."""
    fitted_on = namespace(path.step).ceil(path.count / 2).clip(LEAST_STEPS)
    return whole((path.count - fitted_on).clip(0))


def early(path: Path, pull: AnyArray | None = None) -> tuple[Fit, AnyArray, AnyArray]:
    """The fit on the older half, and its residuals of all steps, as error and known of Fit."""
    xp, left_out = namespace(path.step), early_steps(path)
    older = fit(path.without(left_out), pull)
    width = path.step.shape[1]
    y = scaled(path, older.scale)
    lags = older.lags.shape[1]
    recent = windows(pad_left(y, lags), lags)[:, :-1]
    reverting = _times(recent - older.drift[:, None, None], older.lags)
    expected = older.drift[:, None] + reverting + older.pull[:, None] * (path.level[:, :-1] - older.centre[:, None])
    place = xp.arange(width, device=y.device)
    late = place >= width - left_out[:, None]
    shift = (place + left_out[:, None]).clip(max=width - 1)
    cut = width - older.error.shape[1]
    error = xp.where(late, y - expected, gather(pad_left(older.error, cut), shift))
    known = xp.where(late, place >= width - path.count[:, None], gather(pad_left(older.known, cut), shift))
    return older, error, known
