"""The random walk with exponentially weighted volatility (`vol_rw`), and the backtest inside the context.

Owns sigma of the model, now and at past origins, and the discounted means behind sigma. Tails come from student.py,
units from path.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import NamedTuple, TypeAlias

import numpy as np

from models.cache import cache_of_device, sized_cache
from models.forecast.arrays import AnyArray, Device, columns, namespace, put
from models.forecast.path import Path
from models.forecast.season import Season

Decays: TypeAlias = tuple[float, ...]
DECAYS: Decays = (0.94, 0.97, 0.99)
# A sigma of so few steps is uncertain; widened by 5%, the bands reach the nominal coverage out of sample.
WIDENING = 1.05
# Bands never vanish: a constant series keeps a millionth of its size per step, a halted series a tenth of the rms.
SMALLEST_SIGMA = 1e-6
SMALLEST_SHARE = 0.1
# An origin needs the steps of the contract's shortest series behind it; a year of origins is enough.
LEAST_STEPS = 29
MOST_ORIGINS = 250
# Length of a block: one matrix product gives the sums inside blocks, and the sums of whole blocks are added up.
BLOCK = 32
# Up to this size per decay, one product with a stored matrix is faster than sums by blocks.
LARGEST_PRODUCT = 1 << 14


@cache_of_device(lru_cache(maxsize=8))
def _decays(decays: Decays, device: Device) -> AnyArray:
    return put(np.array(decays)[:, None, None], device)


@cache_of_device(lru_cache(maxsize=32))
def _powers(decays: Decays, size: int, device: Device) -> AnyArray:
    """lambda^age for the ages size - 1 to 0, [K, size]."""
    return put(np.array(decays)[:, None] ** np.arange(size - 1.0, -1.0, -1.0), device)


def power_of_two(width: int) -> int:
    """The least power of two, from BLOCK, that holds ``width`` steps; the cached arrays serve all contexts up to it."""
    return max(1 << (width - 1).bit_length(), BLOCK)


def _fade(decays: Decays, width: int, device: Device) -> AnyArray:
    """lambda^age for the ages width - 1 to 0, [K, width]: the weight of every step at the end of the path."""
    size = power_of_two(width)
    return _powers(decays, size, device)[:, size - width :]


@cache_of_device(lru_cache(maxsize=8))
def _inside(decays: Decays, device: Device) -> AnyArray:
    """[K, 32, 32]: the weight of every step of a block at later places of the block."""
    gap = np.arange(BLOCK) - np.arange(BLOCK)[:, None]
    return put(np.where(gap >= 0, np.array(decays)[:, None, None] ** np.maximum(gap, 0), 0.0), device)


@cache_of_device(sized_cache(32 << 20, attrgetter("nbytes")))
def _weights(size: int, horizon: int, most: int, device: Device) -> AnyArray:
    """[3, size, most + 1]: the weight of every step in the sums until the latest columns one horizon apart."""
    behind = np.arange(size)[:, None] < np.arange(size - most * horizon, size + 1, horizon)
    return put(np.where(behind, _powers(DECAYS, size, "cpu")[:, :, None], 0.0), device)


@cache_of_device(lru_cache(maxsize=1024))
def _columns(decays: Decays, width: int, horizon: int, most: int, device: Device) -> tuple[AnyArray, AnyArray]:
    """The latest columns one horizon apart, int64 [1, most + 1], and the sum of all weights there, [K, 1, most + 1]."""
    ends = np.arange(width - most * horizon, width + 1, horizon)[None]
    mass = _mass(decays, _fade(decays, width, "cpu")[:, ends - 1], np.array([float(width)]))
    return put(ends, device), put(mass, device)


def _mass(decays: Decays, weight: AnyArray, count: AnyArray) -> AnyArray:
    """[K, B, O]: lambda^age + ... + lambda^(count - 1), given ``weight`` lambda^age [K, B, O] and ``count`` [B]."""
    decay = _decays(decays, count.device)
    return (weight - decay ** count[:, None]) / (1 - decay)


def _sigma(path: Path, mean: AnyArray) -> AnyArray:
    """[B, O]: per-step volatility, the mean over three half-lives, from mean squares [3, B, O] (RiskMetrics, 1996)."""
    xp = namespace(mean)
    rms = xp.sqrt(xp.linalg.vecdot(path.step, path.step) / path.count)
    smallest = (SMALLEST_SHARE * rms).clip(SMALLEST_SIGMA)
    return xp.maximum(xp.sqrt(mean).sum(0) * (WIDENING / len(DECAYS)), smallest[:, None])


@cache_of_device(lru_cache(maxsize=512))
def roots(steps: int, device: Device) -> AnyArray:
    """sqrt(h) for ``steps`` ahead, [H]: the growth of the deviation of a random walk."""
    return put(np.sqrt(np.arange(1.0, steps + 1)), device)


@lru_cache(maxsize=1 << 14)
def room(points: int, horizon: int) -> int:
    """The number of past origins one horizon apart, without overlap of targets."""
    return min(max((points - 1 - LEAST_STEPS) // horizon, 0), MOST_ORIGINS)


@dataclass(frozen=True, slots=True)
class Backtest:
    """The random walk's sigma now and at past origins of B rows, and the path one horizon after the origins.

    Attributes:
        spread: [B, H], at the end of each path, over 1 to H steps.
        ends: int64 [1 or B, O], the origins as columns of path.level; one row for a batch of equal rows.
        start: [B, O], path.level there.
        target: [B, O], path.level one horizon later.
        sigma: [B, O], over the whole horizon.
        real: [B, O], false where there is no origin; None for a full array.
    """

    spread: AnyArray
    ends: AnyArray
    start: AnyArray
    target: AnyArray
    sigma: AnyArray
    real: AnyArray | None


class Origins(NamedTuple):
    """The latest origins of every row, one horizon apart, and the end of the path as the last column.

    ``ends``: int64 [1 or B, O + 1], columns of path.level. ``level``: [B, O + 1], path.level there. ``real``: [B, O],
    false where there is no origin, None for a full array. ``every``: the common horizon of all rows, None for several.
    """

    ends: AnyArray
    level: AnyArray
    real: AnyArray | None
    every: int | None


def origins(path: Path, horizon: AnyArray, counts: Sequence[int], every: int | None = None) -> Origins:
    """The latest ``counts`` origins of every row, one ``horizon`` (int64 [B]) apart.

    ``every`` is the common horizon of all rows, if known.
    """
    xp, device, (rows, width), most = namespace(path.step), path.step.device, path.step.shape, max(counts)
    if every is not None and min(counts) == most:
        every = min(every, width)
        ends, _ = _columns(DECAYS, width, every, most, device)
        return Origins(ends, path.level[:, width - most * every :: every], None, every)
    order = xp.arange(most, -1, -1, device=device)
    known = order <= put(np.array(counts), device)[:, None]
    ends = xp.where(known, width - order * horizon[:, None], width)
    return Origins(ends, path.level[xp.arange(rows, device=device)[:, None], ends], known[:, :-1], None)


def discounted(values: AnyArray, path: Path, decays: Decays, found: Origins) -> AnyArray:
    """[K, B, O + 1]: the discounted means of ``values`` [B, W], one per step, before the origins and at the end.

    Values in padding are zero. ``decays``: from .94, so that no weight underflows.

    Inside blocks the sums are a matrix product. Sums of whole blocks are weighted at the end of the path, and
    add up; for contexts of up to ten thousand points the weights stay far above the smallest float64.
    """
    xp, device, (rows, width) = namespace(values), values.device, values.shape
    padding = -width % BLOCK
    padded = xp.zeros((rows, padding + width), dtype=xp.float64, device=device)
    padded[:, padding:] = values
    inside = (padded.reshape(-1, BLOCK) @ _inside(decays, device)).reshape(len(decays), rows, -1)
    fade = _fade(decays, padding + width, device)
    blocks = inside[:, :, BLOCK - 1 :: BLOCK] * fade[:, None, BLOCK - 1 :: BLOCK]
    before = xp.zeros(blocks.shape, dtype=xp.float64, device=device)
    before[:, :, 1:] = blocks[:, :, :-1].cumsum(2)
    row, place = xp.arange(rows, device=device)[:, None], found.ends + (padding - 1)
    weight = columns(fade, place)
    sums = columns(inside.reshape(len(decays), -1), row * (padding + width) + place) * weight
    sums += columns(before.reshape(len(decays), -1), row * blocks.shape[2] + place // BLOCK)
    if found.every is None or path.mask is not None:
        return sums / _mass(decays, weight, path.count)
    return sums / _columns(decays, width, found.every, found.ends.shape[1] - 1, device)[1]


def backtest(
    path: Path,
    horizon: AnyArray,
    counts: Sequence[int],
    steps: int,
    every: int | None = None,
    season: Season | None = None,
) -> Backtest:
    """The deviations over ``steps`` ahead, and over ``horizon`` (int64 [B]) from the latest ``counts`` origins.

    ``every`` is the common horizon of all rows, if known. ``season`` is not used.
    """
    found = origins(path, horizon, counts, every)
    sigma = _sigma(path, _mean_squares(path, found))
    spread = sigma[:, -1:] * roots(steps, path.step.device)
    over = sigma[:, :-1] * namespace(horizon).sqrt(horizon)[:, None]
    return Backtest(spread, found.ends[:, :-1], found.level[:, :-1], found.level[:, 1:], over, found.real)


def _mean_squares(path: Path, found: Origins) -> AnyArray:
    """[3, B, O + 1]: the discounted means of the squared steps before the origins."""
    squares = path.step * path.step
    width, most = path.step.shape[1], found.ends.shape[1] - 1
    if found.every is not None and path.mask is None:
        size = power_of_two(width)
        all_origins = room(size + 1, found.every)
        if size * (all_origins + 1) <= LARGEST_PRODUCT:
            weights = _weights(size, found.every, all_origins, path.step.device)
            _, mass = _columns(DECAYS, width, found.every, most, path.step.device)
            return squares @ weights[:, size - width :, all_origins - most :] / mass
    return discounted(squares, path, DECAYS, found)
