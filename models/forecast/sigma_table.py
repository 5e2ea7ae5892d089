"""The pooled table of volatility: sigma over a horizon from ten features of the steps, the same for every series.

Owns the features, the deviations now and at past origins, and the tails of `auto` version 2. The constants stand in
sigma_table.json and come from training/forecast/sigma_table.py; nothing is fitted at run time.

    sigma_h = s exp(clip(a0 + b0.f + (a1 + b1.f) ln h / ln 24, +-1.5)) sqrt(h) m_h

s is the volatility of volatility.py without widening, m_h the growth by memory.py. The features f are free of scale:
logarithms of volatilities with other memories over s, the newest steps over s (volatility rises after losses), and the
newest step.
"""

import json
import math
from collections.abc import Sequence
from functools import lru_cache
from operator import attrgetter
from pathlib import Path as FilePath
from statistics import NormalDist
from typing import Any

import numpy as np

from models.cache import cache_of_device, sized_cache
from models.forecast import memory, student
from models.forecast.arrays import AnyArray, Device, at_least, dot, holds, namespace, put
from models.forecast.path import Path
from models.forecast.season import Season
from models.forecast.volatility import (
    DECAYS,
    LARGEST_PRODUCT,
    LEAST_STEPS,
    SMALLEST_SHARE,
    SMALLEST_SIGMA,
    Backtest,
    Origins,
    discounted,
    origins,
    power_of_two,
    room,
)

FILE = FilePath(__file__).with_name("sigma_table.json")
# Squares: one with a long memory, and the three decays of s. Sizes: one decay. Short memories reach back TAPS steps.
SQUARES = (0.999, *DECAYS)
SIZES = (0.94,)
TAPS, QUICK, LEAN = 8, 0.7, 0.8
FEATURES = 7
# The place of the mean size among the features.
SIZE = 4
# Series with this share of steps that are not zero, such as closes, are as those of the fit.
MOVING = 0.8
LARGEST_LOG = 4.0
LARGEST_EXPONENT = 1.5
# Horizons are compared on a logarithmic scale with 24 steps as unit; beyond LONGEST the factor stays.
UNIT, LONGEST = 24.0, 48.0


@lru_cache(maxsize=1)
def constants() -> dict[str, Any]:
    """`now` [8]: a0, b0; `growth` [8]: a1, b1; `levels` [n], and for these levels `tails` [n, 2]."""
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


@cache_of_device(lru_cache(maxsize=8))
def _coefficients(device: Device) -> AnyArray:
    """[2, 8]: intercept and slopes, for a horizon of one step and for the growth over the horizon."""
    return put(np.array([constants()["now"], constants()["growth"]]), device)


def scale(horizon: Any) -> Any:
    """ln h / ln 24, at most that of LONGEST; numpy alone."""
    return np.log(np.minimum(horizon, LONGEST)) / math.log(UNIT)


@cache_of_device(lru_cache(maxsize=512))
def _ahead(steps: int, device: Device) -> tuple[AnyArray, AnyArray]:
    """scale(h) and sqrt(h) for ``steps`` ahead, both [H]."""
    horizon = np.arange(1.0, steps + 1)
    return put(scale(horizon), device), put(np.sqrt(horizon), device)


@lru_cache(maxsize=512)
def _at(horizon: int) -> tuple[float, float]:
    """scale(h) and sqrt(h) of one horizon."""
    return float(scale(horizon)), math.sqrt(horizon)


@cache_of_device(sized_cache(16 << 20, attrgetter("nbytes")))
def edges(levels: tuple[float, ...], device: Device) -> AnyArray:
    """Float64 [LONGEST_HORIZON, len(levels)]: the edges of the band in units of sigma_h, symmetric."""
    plain = student.table(levels, "cpu")
    normal = NormalDist()
    known = [normal.inv_cdf(level) for level in constants()["levels"]]
    score = np.abs([normal.inv_cdf(level) for level in levels])
    first, growth = (np.interp(score, known, column) for column in np.transpose(constants()["tails"]))
    factor = np.exp(first + growth * scale(np.arange(1.0, student.LONGEST_HORIZON + 1))[:, None])
    return put(np.maximum.accumulate(plain * factor, axis=1), device)


def backtest(
    path: Path,
    horizon: AnyArray,
    counts: Sequence[int],
    steps: int,
    every: int | None = None,
    season: Season | None = None,
) -> Backtest:
    """As volatility.backtest(), with the deviations of the table; ``season`` spreads them over the phases."""
    xp, device = namespace(path.step), path.step.device
    found = origins(path, horizon, counts, every)
    calm = path if season is None else season.calmed(path)
    squares = calm.step * calm.step
    sigma, features = measures(calm, squares, found)
    weights = _coefficients(device)
    exponents = weights[:, 1:] @ features + weights[:, :1]
    growth, root = _ahead(steps, device)
    if season is not None:
        root = xp.sqrt(season.ahead[:, :steps])
    spread = sigma[:, -1:] * xp.exp(_clipped(exponents[:, 0, -1:] + exponents[:, 1, -1:] * growth)) * root
    if found.every is None:
        growth, root = (column[horizon - 1][:, None] for column in _ahead(student.LONGEST_HORIZON, device))
    else:
        growth, root = _at(found.every)
    if season is not None:
        root = xp.sqrt(season.between(found.ends[:, :-1], horizon))
    excess = memory.excess(calm, squares)
    if excess is not None:
        spread *= memory.growth(excess, steps)
        root = root * memory.growth_over(excess, horizon if found.every is None else found.every)
    moving = _moving(path)
    if moving is not None and season is not None:
        # The factors of the phases know where the steps are zero.
        moving = xp.where(season.known[:, None], 1.0, moving)
    if moving is not None:
        ahead = xp.arange(1, steps + 1, dtype=xp.float64, device=device)
        spread *= _widened(moving, ahead)
        root = root * _widened(moving, horizon[:, None])
    over = sigma[:, :-1] * xp.exp(_clipped(exponents[:, 0, :-1] + exponents[:, 1, :-1] * growth)) * root
    return Backtest(spread, found.ends[:, :-1], found.level[:, :-1], found.level[:, 1:], over, found.real)


def _moving(path: Path) -> AnyArray | None:
    """[B, 1]: the share of steps that are not zero over MOVING, at most 1; None where all are known to be 1."""
    if path.still <= (1 - MOVING) * LEAST_STEPS:
        return None
    share = ((path.step != 0).sum(1) + 1) / (MOVING * (path.count + 1))
    return None if holds(share >= 1) else share.clip(max=1)[:, None]


def _widened(moving: AnyArray, horizon: AnyArray) -> AnyArray:
    """[B, H]: the factor of the deviation over ``horizon`` steps, by ``moving`` of _moving().

    The feature of the mean size is small where most steps are zero, and means calm there to the table, fitted on series
    that move at every step. Over few steps, of which most are zero, the narrow band is right.
    """
    xp = namespace(moving)
    return xp.exp(-constants()["now"][1 + SIZE] * xp.log(moving) * (1 - xp.exp(-MOVING * moving * horizon)))


def _clipped(exponent: AnyArray) -> AnyArray:
    return exponent.clip(-LARGEST_EXPONENT, LARGEST_EXPONENT)


def measures(path: Path, squares: AnyArray, found: Origins) -> tuple[AnyArray, AnyArray]:
    """s per step [B, O + 1], and the features [B, 7, O + 1], at the origins and at the end of the path.

    ``squares`` [B, W]: of the steps.
    """
    xp = namespace(path.step)
    means = _means(path, squares, found)
    rms = xp.sqrt(dot(path.step, path.step) / path.count)
    smallest = at_least(SMALLEST_SHARE * rms, SMALLEST_SIGMA)
    sigma = xp.maximum(xp.sqrt(means[:, 2:5]).sum(1) * (1 / len(DECAYS)), smallest[:, None])
    inverse = (1 / sigma)[:, None]
    # The mean of sizes takes the place of the squares with the longest memory of s, which is no feature.
    means[:, 4] = means[:, 5] * means[:, 5]
    # A mean of zero has the logarithm minus infinity, which the limit replaces.
    means[:, :5] = xp.log(means[:, :5] * (inverse * inverse)).clip(-LARGEST_LOG, LARGEST_LOG)
    means[:, 5:7] = means[:, 6:] * inverse
    return sigma, means[:, :FEATURES]


def _means(path: Path, squares: AnyArray, found: Origins) -> AnyArray:
    """[B, 8, O + 1]: means of squares (the newest 8, four decays), of sizes, of the newest 8 steps; the newest step."""
    xp, step, (rows, width) = namespace(path.step), path.step, path.step.shape
    device, most = step.device, found.ends.shape[1] - 1
    if found.every is not None and path.mask is None:
        size = power_of_two(width)
        places = room(size + 1, found.every) + 1
        if size * places <= LARGEST_PRODUCT:
            weights = _weights(size, found.every, places - 1, device)[size - width :]
            sums = xp.empty((rows, 8 * places), dtype=xp.float64, device=device)
            sums[:, : 5 * places] = squares @ weights[:, : 5 * places]
            sums[:, 5 * places : 6 * places] = abs(step) @ weights[:, 5 * places : 6 * places]
            sums[:, 6 * places : 7 * places] = step @ weights[:, 6 * places :]
            means = sums.reshape(rows, 8, places)[:, :, places - 1 - most :]
            means[:, :7] *= _mass(width, found.every, most, device)
            means[:, 7] = step[:, width - most * found.every - 1 :: found.every]
            return means
    row = xp.arange(rows, device=device)[:, None, None]
    newest = step[row, found.ends[:, :, None] - xp.arange(TAPS, 0, -1, device=device)]
    taps = _taps(device)
    decayed = discounted(squares, path, SQUARES, found)
    sizes = discounted(abs(step), path, SIZES, found)
    near, lean = newest * newest @ taps[0], newest @ taps[1]
    means = xp.empty((rows, 8, most + 1), dtype=xp.float64, device=device)
    means[:, 0], means[:, 6], means[:, 7] = near, lean, newest[:, :, -1]
    means[:, 1:5], means[:, 5] = decayed.swapaxes(0, 1), sizes[0]
    return means


@cache_of_device(lru_cache(maxsize=8))
def _taps(device: Device) -> AnyArray:
    """[2, TAPS]: the weights of the newest squares and of the newest steps, oldest first; each sums to 1."""
    powers = np.array([QUICK, LEAN])[:, None] ** np.arange(TAPS - 1.0, -1.0, -1.0)
    return put(powers / powers.sum(1, keepdims=True), device)


@cache_of_device(sized_cache(32 << 20, attrgetter("nbytes")))
def _weights(size: int, horizon: int, most: int, device: Device) -> AnyArray:
    """[size, 7 (most + 1)]: the weights of steps before the latest columns one horizon apart.

    The newest squares, four decays of squares, sizes, and the newest steps.
    """
    age = np.arange(size - most * horizon, size + 1, horizon) - 1 - np.arange(size)[:, None]
    decays = np.array((*SQUARES, *SIZES))[:, None, None]
    faded = np.where(age >= 0, decays ** np.maximum(age, 0), 0.0)
    near = np.where((age >= 0) & (age < TAPS), _taps("cpu")[:, ::-1][:, age.clip(0, TAPS - 1)], 0.0)
    weights = np.concatenate([near[:1], faded, near[1:]]).swapaxes(0, 1)
    return put(np.ascontiguousarray(weights.reshape(size, -1)), device)


@cache_of_device(lru_cache(maxsize=1024))
def _mass(width: int, horizon: int, most: int, device: Device) -> AnyArray:
    """[7, most + 1]: what makes sums of weighted steps means, in the order of _weights()."""
    count = np.arange(width - most * horizon, width + 1, horizon)
    decays = np.array((*SQUARES, *SIZES))[:, None]
    whole = np.ones((1, len(count)))
    return put(np.concatenate([whole, (1 - decays) / (1 - decays**count), whole]), device)
