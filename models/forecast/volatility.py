"""The random walk with exponentially weighted volatility (`vol_rw`), and its backtest inside the context.

Owns sigma and coverage of that model. Tails come from student.py, units from path.py.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch

from models.forecast.path import BLOCK, Path

DECAYS = (0.94, 0.97, 0.99)
# A sigma read from so few steps is itself uncertain; this much wider, the bands hold what they promise out of sample.
WIDENING = 1.05
# Bands never vanish: a constant series keeps a millionth of its size per step, one that went quiet a thousandth of its
# past volatility.
SMALLEST_SIGMA = 1e-6
SMALLEST_SHARE = 1e-3
# An origin needs this many steps behind it, the contract's shortest series; more than a year of them tells nothing new.
LEAST_STEPS = 29
MOST_ORIGINS = 250


@lru_cache(maxsize=8)
def _decays(device: torch.device) -> torch.Tensor:
    return torch.tensor(DECAYS, dtype=torch.float64, device=device)


@lru_cache(maxsize=32)
def _weights(width: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """lambda^age of each step, [W, 3], and the sum of the first n of them, [W + 1, 3] (1 for n = 0)."""
    age = torch.arange(width - 1, -1, -1, dtype=torch.float64, device=device)[:, None]
    decay = _decays(device)
    count = torch.arange(1, width + 1, dtype=torch.float64, device=device)[:, None]
    mass = torch.cat([torch.ones_like(decay)[None], (1 - decay**count) / (1 - decay)])
    return decay**age, mass


@lru_cache(maxsize=32)
def _scan(width: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The matrices of a blocked scan: inside blocks [32, 3 * 32], across blocks [3, n, n], and the fade [32, 3]."""
    decay = _decays(device)[:, None, None]
    place = torch.arange(BLOCK, device=device)
    gap = place[None, :] - place[:, None]
    inside = torch.where(gap >= 0, decay ** gap.clamp(min=0), 0.0)
    block = torch.arange(width // BLOCK, device=device)
    behind = block[None, :] - block[:, None] - 1
    across = torch.where(behind >= 0, decay ** (BLOCK * behind.clamp(min=0)), 0.0)
    return inside.permute(1, 0, 2).reshape(BLOCK, -1), across, (decay[:, 0] ** (place + 1)).T.contiguous()


def _mean_sigma(power: torch.Tensor, mass: torch.Tensor) -> torch.Tensor:
    """The widened mean of the decays' sigmas from discounted sums ``power`` [..., 3] and their weights' ``mass``."""
    return WIDENING / len(DECAYS) * (power / mass).sqrt().sum(-1)


def floor(path: Path) -> torch.Tensor:
    """[B]: the smallest sigma that a band may have, in path units."""
    rms = (path.step.square().sum(1) / path.count).sqrt()
    return (SMALLEST_SHARE * rms).clamp(min=SMALLEST_SIGMA)


def sigma(path: Path) -> torch.Tensor:
    """[B]: per-step volatility at the end of each path, the mean over three half-lives (RiskMetrics, 1996)."""
    weights, mass = _weights(path.step.shape[1], path.step.device)
    return torch.maximum(_mean_sigma(path.step.square() @ weights, mass[path.count.long()]), floor(path))


def past_sigma(path: Path, ends: torch.Tensor) -> torch.Tensor:
    """[B, O]: sigma as it was after the step at column ``ends`` - 1 (int64 [B, O], in 1..W)."""
    rows, width = path.step.shape
    inside, across, fade = _scan(width, path.step.device)
    blocks = width // BLOCK
    local = (path.step.square().view(-1, BLOCK) @ inside).view(rows, blocks, len(DECAYS), BLOCK)
    carried = torch.einsum("bnk,knm->bmk", local[..., -1], across)
    block = torch.div(ends - 1, BLOCK, rounding_mode="floor")
    place = ends - 1 - BLOCK * block
    row = torch.arange(rows, device=ends.device)[:, None]
    power = local[row, block, :, place] + carried[row, block] * fade[place]
    mass = _weights(width, path.step.device)[1][path.count.long()[:, None] - (width - ends)]
    return torch.maximum(_mean_sigma(power, mass), floor(path)[:, None])


def room(points: int, horizon: int) -> int:
    """How many past origins one horizon apart a series has; their targets never overlap."""
    return min(max((points - 1 - LEAST_STEPS) // horizon, 0), MOST_ORIGINS)


@dataclass(frozen=True, slots=True)
class Backtest:
    """Past origins of B rows: ``ends`` (int64 [B, O], columns of path.level), with ``targets`` one horizon later.

    Where ``real`` is false there is no origin. ``sigma`` [B, O] is the random walk's over the whole horizon.
    """

    ends: torch.Tensor
    targets: torch.Tensor
    real: torch.Tensor
    sigma: torch.Tensor


def backtest(path: Path, horizon: torch.Tensor, number: torch.Tensor, most: int) -> Backtest:
    """The latest ``number`` origins of each row, one horizon apart (both int64 [B]); ``most`` is the largest number."""
    width = path.step.shape[1]
    order = torch.arange(1, most + 1, device=horizon.device)
    real = order <= number[:, None]
    ends = torch.where(real, width - order * horizon[:, None], width)
    targets = torch.where(real, ends + horizon[:, None], width)
    return Backtest(ends, targets, real, past_sigma(path, ends) * horizon[:, None].sqrt())
