"""The gate: how much structure a series shows beyond a random walk, in [0, 1].

Owns the test for structure alone. On prices the gate stays shut, so that prices never pay for the autoregression.

Every statistic is well conditioned: denominators have a floor far above rounding error, so that a spread of rounding
noise is no evidence. Batch size and padding change the last bits of a sum, and never the gate.
"""

from models.forecast.arrays import AnyArray, holds, lower_median, namespace
from models.forecast.path import Path

MOST_LAGS = 100
CLIP = 4.0
UNIT_ROOT_LEVEL = 12.0
OPENS_AT = 0.02
OPENS_OVER = 0.04
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
# Lengths of Fourier transforms are multiples of BLOCK: fast, and few different lengths.
BLOCK = 128


def weight(path: Path, opens_at: float | AnyArray = OPENS_AT) -> AnyArray:
    """[B]: w = clip((S - a - 2/T) / .04, 0, 1) with S the evidence of autocorrelation, drift and mean reversion.

    ``opens_at`` is a, a number or [B].
    """
    xp, count = namespace(path.step), path.count
    lags = xp.floor(count / 3).clip(max=MOST_LAGS)
    theta = 2 * xp.log(lags) / count
    median = lower_median(path.step, path.mask, count)
    gap = path.masked(path.step - median)
    mean = -path.level[:, 0] / count
    deviation = path.masked(gap - (mean[:, None] - median))
    floor = (SMALLEST_SHARE * mean) ** 2 + SMALLEST_SPREAD**2
    variance = xp.linalg.vecdot(deviation, deviation) / count + floor
    score = _autocorrelation(path, gap, variance, lags, theta)
    score = score + (mean * mean / variance - theta).clip(0)
    score = score - opens_at - 2 / count
    before = path.masked(path.level[:, :-1])
    before = path.masked(before - (before.sum(1) / count)[:, None])
    reversion = _dickey_fuller(deviation, before, variance, count)
    highest = score + (reversion - UNIT_ROOT_LEVEL).clip(0) / count
    if holds(highest <= 0):
        return xp.zeros_like(highest)
    reversion = xp.minimum(reversion, PER_STEP * _effective_steps(deviation * before, count))
    return ((score + (reversion - UNIT_ROOT_LEVEL).clip(0) / count) / OPENS_OVER).clip(0, 1)


def _autocorrelation(path: Path, gap: AnyArray, variance: AnyArray, lags: AnyArray, theta: AnyArray) -> AnyArray:
    """The sum over lags of squared autocorrelation beyond chance, on robustly scaled ``gap`` (step less its median)."""
    xp, width = namespace(path.step), path.step.shape[1]
    robust = 1.4826 * lower_median(abs(gap), path.mask, path.count)
    spread = xp.maximum(robust, 0.1 * xp.sqrt(variance)[:, None])
    clipped = (gap * (1 / spread)).clip(-CLIP, CLIP)
    clipped -= (clipped.sum(1) / path.count)[:, None]
    clipped = path.masked(clipped)
    longest = min(width // 3, MOST_LAGS)
    size = -(-(width + longest) // BLOCK) * BLOCK
    spectrum = xp.fft.rfft(clipped, size)
    products = xp.fft.irfft(spectrum * spectrum.conj(), size)
    floor = SMALLEST_SHARE**2 * path.count[:, None]
    correlation = products[:, 1 : longest + 1] / (products[:, :1] + floor)
    excess = (correlation * correlation - theta[:, None]).clip(0)
    if path.mask is not None:
        excess = excess * (xp.arange(1, longest + 1, device=lags.device) <= lags[:, None])
    return excess.sum(1)


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
