"""The gate: how much structure a series shows beyond a random walk, in [0, 1].

Owns that test alone. It is built to stay shut on prices, so that they never pay for the autoregression.
"""

from models.forecast.arrays import AnyArray, lower_median, namespace
from models.forecast.path import Path

MOST_LAGS = 100
CLIP = 4.0
UNIT_ROOT_LEVEL = 12.0
OPENS_AT = 0.02
OPENS_OVER = 0.04
# Fourier transforms are this multiple of steps long: fast sizes, and few of them.
BLOCK = 128


def weight(path: Path) -> AnyArray:
    """[B]: w = clip((S - .02 - 2/T) / .04, 0, 1) with S the evidence of autocorrelation, drift and mean reversion."""
    xp, count = namespace(path.step), path.count
    lags = xp.floor(count / 3).clip(max=MOST_LAGS)
    theta = 2 * xp.log(lags) / count
    mean = -path.level[:, 0] / count
    deviation = path.masked(path.step - mean[:, None])
    variance = xp.linalg.vecdot(deviation, deviation) / count
    score = _autocorrelation(path, variance, lags, theta)
    score = score + (mean * mean * _inverse(variance) - theta).clip(0)
    score = score + (_dickey_fuller(path, deviation, variance) - UNIT_ROOT_LEVEL).clip(0) / count
    return ((score - OPENS_AT - 2 / count) / OPENS_OVER).clip(0, 1)


def _inverse(size: AnyArray) -> AnyArray:
    """1 / size, and zero where ``size`` is: a constant shows no structure."""
    return namespace(size).where(size > 0, 1 / size, 0.0)


def _autocorrelation(path: Path, variance: AnyArray, lags: AnyArray, theta: AnyArray) -> AnyArray:
    """The sum over lags of squared autocorrelation beyond chance, on robustly scaled steps (lower medians)."""
    xp, width = namespace(path.step), path.step.shape[1]
    gap = path.step - lower_median(path.step, path.mask, path.count)
    robust = 1.4826 * lower_median(abs(gap), path.mask, path.count)
    spread = xp.maximum(robust, 0.1 * xp.sqrt(variance)[:, None])
    gap *= _inverse(spread)
    clipped = path.masked(gap.clip(-CLIP, CLIP))
    clipped -= (clipped.sum(1) / path.count)[:, None]
    clipped = path.masked(clipped)
    longest = min(width // 3, MOST_LAGS)
    size = -(-(width + longest) // BLOCK) * BLOCK
    spectrum = xp.fft.rfft(clipped, size)
    products = xp.fft.irfft(spectrum * spectrum.conj(), size)
    correlation = products[:, 1 : longest + 1] * _inverse(products[:, :1])
    excess = (correlation * correlation - theta[:, None]).clip(0)
    if path.mask is not None:
        excess = excess * (xp.arange(1, longest + 1, device=lags.device) <= lags[:, None])
    return excess.sum(1)


def _dickey_fuller(path: Path, deviation: AnyArray, variance: AnyArray) -> AnyArray:
    """The squared t-statistic of the steps on the demeaned level before them where negative, else zero."""
    xp, dot = namespace(path.step), namespace(path.step).linalg.vecdot
    before = path.masked(path.level[:, :-1])
    before = path.masked(before - (before.sum(1) / path.count)[:, None])
    product = dot(deviation, before)
    explained = product * product * _inverse(dot(before, before))
    residual = (variance * path.count - explained).clip(0)
    return xp.where(product < 0, explained * _inverse(residual) * (path.count - 2), 0.0)
