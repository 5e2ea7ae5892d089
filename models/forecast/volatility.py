"""The random walk with exponentially weighted volatility (`vol_rw`), and the backtest inside the context.

Owns sigma of the model, now and at past origins. Tails come from student.py, units from path.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter

import numpy as np

from models.cache import sized_cache
from models.forecast.arrays import AnyArray, Device, columns, namespace, put
from models.forecast.path import Path

DECAYS = (0.94, 0.97, 0.99)
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


@lru_cache(maxsize=8)
def _decays(device: Device) -> AnyArray:
    return put(np.array(DECAYS)[:, None, None], device)


@lru_cache(maxsize=32)
def _powers(size: int, device: Device) -> AnyArray:
    """lambda^age for the ages size - 1 to 0, [3, size]."""
    return put(np.array(DECAYS)[:, None] ** np.arange(size - 1.0, -1.0, -1.0), device)


def _size(width: int) -> int:
    """The least power of two that holds ``width`` steps; the cached arrays serve all contexts up to it."""
    return max(1 << (width - 1).bit_length(), BLOCK)


def _fade(width: int, device: Device) -> AnyArray:
    """lambda^age for the ages width - 1 to 0, [3, width]: the weight of every step at the end of the path."""
    size = _size(width)
    return _powers(size, device)[:, size - width :]


@lru_cache(maxsize=8)
def _inside(device: Device) -> AnyArray:
    """[3, 32, 32]: the weight of every step of a block at later places of the block."""
    gap = np.arange(BLOCK) - np.arange(BLOCK)[:, None]
    return put(np.where(gap >= 0, np.array(DECAYS)[:, None, None] ** np.maximum(gap, 0), 0.0), device)


@sized_cache(32 << 20, attrgetter("nbytes"))
def _weights(size: int, horizon: int, most: int, device: Device) -> AnyArray:
    """[3, size, most + 1]: the weight of every step in the sums until the latest columns one horizon apart."""
    behind = np.arange(size)[:, None] < np.arange(size - most * horizon, size + 1, horizon)
    return put(np.where(behind, _powers(size, "cpu")[:, :, None], 0.0), device)


@lru_cache(maxsize=1024)
def _columns(width: int, horizon: int, most: int, device: Device) -> tuple[AnyArray, AnyArray]:
    """The latest columns one horizon apart, int64 [1, most + 1], and the sum of all weights there, [3, 1, most + 1]."""
    ends = np.arange(width - most * horizon, width + 1, horizon)[None]
    return put(ends, device), put(_mass(_fade(width, "cpu")[:, ends - 1], np.array([float(width)])), device)


def _mass(weight: AnyArray, count: AnyArray) -> AnyArray:
    """[3, B, O]: lambda^age + ... + lambda^(count - 1), given ``weight`` lambda^age [3, B, O] and ``count`` [B]."""
    decay = _decays(count.device)
    return (weight - decay ** count[:, None]) / (1 - decay)


def _mean_squares(path: Path, ends: AnyArray) -> AnyArray:
    """[3, B, O]: the discounted means of the squared steps before columns ``ends`` (int64 [1 or B, O]) of path.level.

    Inside blocks the sums are a matrix product. Sums of whole blocks are weighted at the end of the path, and
    add up; for contexts of up to ten thousand points the weights stay far above the smallest float64.
    """
    xp, device, (rows, width) = namespace(path.step), path.step.device, path.step.shape
    padding = -width % BLOCK
    squares = xp.zeros((rows, padding + width), dtype=xp.float64, device=device)
    squares[:, padding:] = path.step * path.step
    inside = (squares.reshape(-1, BLOCK) @ _inside(device)).reshape(len(DECAYS), rows, -1)
    fade = _fade(padding + width, device)
    blocks = inside[:, :, BLOCK - 1 :: BLOCK] * fade[:, None, BLOCK - 1 :: BLOCK]
    before = xp.zeros_like(blocks)
    before[:, :, 1:] = blocks[:, :, :-1].cumsum(2)
    row, place = xp.arange(rows, device=device)[:, None], ends + (padding - 1)
    weight = columns(fade, place)
    sums = columns(inside.reshape(len(DECAYS), -1), row * (padding + width) + place) * weight
    sums += columns(before.reshape(len(DECAYS), -1), row * blocks.shape[2] + place // BLOCK)
    return sums / _mass(weight, path.count)


def _sigma(path: Path, mean: AnyArray) -> AnyArray:
    """[B, O]: per-step volatility, the mean over three half-lives, from mean squares [3, B, O] (RiskMetrics, 1996)."""
    xp = namespace(mean)
    rms = xp.sqrt(xp.linalg.vecdot(path.step, path.step) / path.count)
    smallest = (SMALLEST_SHARE * rms).clip(SMALLEST_SIGMA)
    return xp.maximum(xp.sqrt(mean).sum(0) * (WIDENING / len(DECAYS)), smallest[:, None])


@lru_cache(maxsize=1 << 14)
def room(points: int, horizon: int) -> int:
    """The number of past origins one horizon apart, without overlap of targets."""
    return min(max((points - 1 - LEAST_STEPS) // horizon, 0), MOST_ORIGINS)


@dataclass(frozen=True, slots=True)
class Backtest:
    """The random walk's sigma now and at past origins of B rows, and the path one horizon after the origins.

    Attributes:
        now: [B], per step, at the end of each path.
        ends: int64 [1 or B, O], the origins as columns of path.level; one row for a batch of equal rows.
        start: [B, O], path.level there.
        target: [B, O], path.level one horizon later.
        sigma: [B, O], over the whole horizon.
        real: [B, O], false where there is no origin; None for a full array.
    """

    now: AnyArray
    ends: AnyArray
    start: AnyArray
    target: AnyArray
    sigma: AnyArray
    real: AnyArray | None


def backtest(path: Path, horizon: AnyArray, counts: Sequence[int], every: int | None = None) -> Backtest:
    """The latest ``counts`` origins of every row, one ``horizon`` (int64 [B]) apart.

    ``every`` is the common horizon of all rows, if known.
    """
    xp, device, (rows, width), most = namespace(path.step), path.step.device, path.step.shape, max(counts)
    if every is not None and min(counts) == most:
        every = min(every, width)
        level, real = path.level[:, width - most * every :: every], None
        ends, mean = _alike(path, every, most)
    else:
        order = xp.arange(most, -1, -1, device=device)
        known = order <= put(np.array(counts), device)[:, None]
        ends = xp.where(known, width - order * horizon[:, None], width)
        level, real = path.level[xp.arange(rows, device=device)[:, None], ends], known[:, :-1]
        mean = _mean_squares(path, ends)
    sigma, reach = _sigma(path, mean), xp.sqrt(horizon)[:, None]
    return Backtest(sigma[:, -1], ends[:, :-1], level[:, :-1], level[:, 1:], sigma[:, :-1] * reach, real)


def _alike(path: Path, horizon: int, most: int) -> tuple[AnyArray, AnyArray]:
    """The columns of ``most`` origins and the end, [1, most + 1], and _mean_squares() there."""
    device, width = path.step.device, path.step.shape[1]
    ends, mass = _columns(width, horizon, most, device)
    size = _size(width)
    all_origins = room(size + 1, horizon)
    if path.mask is not None or size * (all_origins + 1) > LARGEST_PRODUCT:
        return ends, _mean_squares(path, ends)
    weights = _weights(size, horizon, all_origins, device)[:, size - width :, all_origins - most :]
    return ends, (path.step * path.step) @ weights / mass
