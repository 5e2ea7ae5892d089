"""The structured models behind the gate: the autoregression alone, or mixed with mean reversion (`auto` version 2).

Owns the mixture. The two models fail on different series: the autoregression carries seasons and short memory, and its
bands are too wide on noisy levels; the Ornstein-Uhlenbeck process carries nothing but a level that comes back. The
errors inside the context choose the shares.
"""

from collections.abc import Callable
from typing import NamedTuple

from models.forecast import autoregression, gate, reversion
from models.forecast.arrays import AnyArray, namespace, per_row, whole
from models.forecast.autoregression import Fit
from models.forecast.path import Path
from models.forecast.reversion import Reversion

# The share of mean reversion is LARGEST_SHARE r / (1 + r), with r the ratio of squared mean errors to this power. The
# errors are one step ahead and say little of far horizons, so that the autoregression keeps a part.
POWER = 10.0
LARGEST_SHARE = 0.6
# Mean over root mean square of errors, at which the deviation is not narrowed: .71 for the Student t with 4 degrees of
# freedom, .80 for the normal distribution. The autoregression fits many lags, and its bands are too wide more often.
FULL_WIDTH, FULL_WIDTH_REVERTING = 0.86, 0.80
# Near steps have the heaviest tails in student.py, whose 80% edge lies inside that of the normal distribution: the
# deviation at step h of normal errors is larger by the share NEAR / h^FASTER, that of heavy-tailed errors is not. The
# share grows over NEAR_TAILS by the mean over root mean square of errors.
NEAR, FASTER, NEAR_TAILS = 0.2, 1.3, (0.68, 0.80)
NARROWEST = 0.7
# Mean errors in path units: both models without an error share the forecast.
SMALLEST_ERROR = 1e-12


class Structure(NamedTuple):
    """A structured model: its forecast as predict(), and its forecasts at past origins as backtest().

    ``judged``: the model works on the natural scale of scale.py, and the errors at past origins judge it (trial.py).
    """

    predict: Callable[[Path, int], tuple[AnyArray, AnyArray]]
    backtest: Callable[[Path, AnyArray, int], tuple[AnyArray, AnyArray]]
    judged: bool = False


def predict(path: Path, steps: int) -> tuple[AnyArray, AnyArray]:
    """The mixture's median path and deviation, both [b, steps] in path units."""
    pull = gate.reverting(path)
    fitted, reverting = autoregression.fit(path, pull), reversion.fit(path)
    end = whole(0 * path.count)[:, None] + path.step.shape[1]
    sigma = autoregression.sigma(fitted.error, fitted.known, end)
    first = autoregression.iterate(fitted, path, end, sigma, steps)
    second = reversion.forecast(reverting, path, end, steps)
    median, deviation = _mixed(fitted, reverting, first, second, pull)
    return median[:, 0], deviation[:, 0]


def backtest(path: Path, ends: AnyArray, steps: int) -> tuple[AnyArray, AnyArray]:
    """The mixture at past origins, as autoregression.backtest()."""
    origins = per_row(ends, path.step)
    pull = gate.reverting(path)
    fitted, error, known = autoregression.early(path, pull)
    reverting = reversion.early(path)
    first = autoregression.iterate(fitted, path, origins, autoregression.sigma(error, known, origins), steps)
    second = reversion.forecast(reverting, path, origins, steps)
    return _mixed(fitted._replace(error=error, known=known), reverting, first, second, pull)


def _mixed(
    fitted: Fit,
    reverting: Reversion,
    first: tuple[AnyArray, AnyArray],
    second: tuple[AnyArray, AnyArray],
    pull: AnyArray,
) -> tuple[AnyArray, AnyArray]:
    """Median and deviation [b, O, H]: the mean of the two models' quantiles, weighted by their errors.

    Without evidence of reversion (``pull`` [b] zero), the level has no part.
    """
    mean, tails = _errors(fitted.error * fitted.scale[:, None], fitted.known)
    other, other_tails = _errors(reverting.error, fitted.known)
    width = (tails / FULL_WIDTH).clip(NARROWEST, 1.0)
    other_width = (other_tails / FULL_WIDTH_REVERTING).clip(NARROWEST, 1.0)
    ratio = (mean / (mean + other)) ** (2 * POWER)
    share = (LARGEST_SHARE * pull * ratio / (ratio + (other / (mean + other)) ** (2 * POWER)))[:, None, None]
    median = (1 - share) * first[0] + share * second[0]
    deviation = (1 - share) * width[:, None, None] * first[1] + share * other_width[:, None, None] * second[1]
    xp = namespace(deviation)
    ahead = xp.arange(1, deviation.shape[2] + 1, dtype=xp.float64, device=deviation.device)
    least, full = NEAR_TAILS
    near = NEAR * ((tails - least) / (full - least)).clip(0, 1)
    return median, deviation * (1 + near[:, None, None] * ahead**-FASTER)


def _errors(error: AnyArray, known: AnyArray) -> tuple[AnyArray, AnyArray]:
    """The mean size of errors, and the mean size over the root mean square, both [b]: heavy tails make it small."""
    xp, count = namespace(error), known.sum(1)
    mean = (abs(error) * known).sum(1) / count + SMALLEST_ERROR
    return mean, mean / (xp.sqrt((error * error * known).sum(1) / count) + SMALLEST_ERROR)


AUTOREGRESSION = Structure(autoregression.predict, autoregression.backtest)
MIXED = Structure(predict, backtest, judged=True)
