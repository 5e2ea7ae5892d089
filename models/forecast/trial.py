"""The trial of a structured model by its own errors at past origins, against the last value.

Owns what the errors say of the gate and of the bands. The gate looks for structure in the whole context; structure that
does not last, such as growth that ends, makes forecasts worse than the last value.
"""

from typing import NamedTuple

from models.forecast import student
from models.forecast.arrays import AnyArray, gather, holds, namespace, per_row
from models.forecast.path import Path
from models.forecast.volatility import LEAST_STEPS, Backtest

# The gate closes from LOSES_AT on, over CLOSES_OVER, by the ratio of mean absolute errors to those of the last value.
# Few origins tell little: the limit is larger by DOUBT over their number. The trial's fit knows the older half of the
# context alone, and of a short half its errors are far larger than those of the fit on all of the context: the limit is
# larger by SHORT over the steps of the half.
LOSES_AT, CLOSES_OVER, DOUBT, SHORT = 1.1, 0.3, 2.0, 20.0
# The bands are widened where errors over their deviations are larger on average: .8 for the normal distribution. Few
# origins and a short half count as for the gate.
NARROW_AT, NARROW_DOUBT = 1.0, 1.5
WIDEST, LARGEST_ERROR = 4.0, 8.0
# The oldest origin counts e^-FADING of the newest: growth that ends is over at the newest origins.
FADING = 2.0
SMALLEST_WEIGHT = 1e-9
# Where the last value is exactly right at many steps (none below the first share, all from the second on), such as the
# zero of counts that are mostly zero, no forecast has smaller absolute errors. The structure then loses only where the
# losses of the quantiles at LEVELS are larger, too.
EXACT = (0.2, 0.3)
LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)
# In path units: errors of rounding are none.
SMALLEST_ERROR = 1e-8


class Trial(NamedTuple):
    """``share`` [b] of the gate that stays, from 0 to 1; ``width`` [b], the factor of the deviations, from 1."""

    share: AnyArray
    width: AnyArray


def judge(path: Path, test: Backtest, horizon: AnyArray, median: AnyArray, deviation: AnyArray) -> Trial:
    """The trial of forecasts ``median`` and ``deviation`` [b, O, H] after the origins of ``test``, in path units.

    Steps from 1 to ``horizon`` (int64 [b]) count. Origins lie one horizon apart: every value counts once.
    """
    xp, (rows, origins, steps) = namespace(median), median.shape
    ahead = xp.arange(1, steps + 1, device=median.device)
    ends = per_row(test.ends, median)
    place = (ends[:, :, None] + ahead).clip(max=path.level.shape[1] - 1)
    target = gather(path.level, place.reshape(rows, -1)).reshape(place.shape)
    age = xp.arange(origins - 1, -1, -1, dtype=xp.float64, device=median.device)
    real = 1.0 + 0 * median[:, :, 0] if test.real is None else test.real * 1.0
    weight = real * xp.exp(-FADING / real.sum(1).clip(1)[:, None] * age)
    known = weight.sum(1) ** 2 / (weight * weight).sum(1).clip(SMALLEST_WEIGHT)
    weight = weight[:, :, None] * (ahead <= horizon[:, None])[:, None, :]
    total = weight.sum((1, 2)).clip(SMALLEST_WEIGHT)
    error = abs(target - median)
    start = gather(path.level, ends)[:, :, None]
    last = abs(target - start)
    ratio = (weight * error).sum((1, 2)) / ((weight * last).sum((1, 2)) + SMALLEST_ERROR * total)
    least, full = EXACT
    exact = (((weight * (last == 0)).sum((1, 2)) / total - least) / (full - least)).clip(0, 1) * ~path.logs
    if not holds(exact == 0):
        walk = test.sigma[:, :, None] * xp.sqrt(ahead / horizon[:, None])[:, None, :]
        ours, theirs = (weight * _loss(target, median, deviation)), (weight * _loss(target, start, walk))
        other = ours.sum((1, 2)) / (theirs.sum((1, 2)) + SMALLEST_ERROR * total)
        ratio = ratio - exact * (ratio - other).clip(0)
    doubt = 1 / known.clip(1)
    short = SHORT / (path.count / 2).clip(LEAST_STEPS)
    limit = LOSES_AT + DOUBT * doubt + short
    share = 1 - ((ratio - limit) / CLOSES_OVER).clip(0, 1)
    size = (weight * (error / deviation).clip(max=LARGEST_ERROR)).sum((1, 2)) / total
    return Trial(share, (size / (NARROW_AT + NARROW_DOUBT * doubt + short)).clip(1, WIDEST))


def _loss(target: AnyArray, median: AnyArray, deviation: AnyArray) -> AnyArray:
    """[b, O, H]: the mean pinball loss at LEVELS of the bands around ``median``."""
    xp, edges = namespace(target), student.table(LEVELS, target.device)
    total = 0 * target
    for column, level in enumerate(LEVELS):
        gap = target - median - deviation * edges[: target.shape[2], column]
        total = total + xp.maximum(level * gap, (level - 1) * gap)
    return total / len(LEVELS)
