"""Mean reversion: the level as an Ornstein-Uhlenbeck process, sampled at every step.

Owns fit and forecast. L_t = m + b (L_{t-1} - m) + e (Uhlenbeck and Ornstein, 1930), b by
least squares with the weights of the autoregression.
"""

from typing import NamedTuple

from models.forecast import autoregression
from models.forecast.arrays import AnyArray, gather, namespace
from models.forecast.autoregression import AGEING, early_steps
from models.forecast.path import Path
from models.forecast.volatility import SMALLEST_SIGMA

# A level that comes back more slowly is a random walk within a year.
SLOWEST = 0.999
SMALLEST_SPREAD = 1e-300


class Reversion(NamedTuple):
    """Processes of b paths: ``speed`` b, ``mean`` m, both [b]; ``error`` [b, W] of all steps, ``known`` bool [b, W]."""

    speed: AnyArray
    mean: AnyArray
    error: AnyArray
    known: AnyArray


def fit(path: Path) -> Reversion:
    """Fit every path."""
    xp, known = namespace(path.step), _known(path)
    width = path.step.shape[1]
    weight = known * AGEING ** xp.arange(width - 1, -1, -1, dtype=xp.float64, device=path.step.device)
    weight = weight / weight.sum(1)[:, None]
    before, after = path.level[:, :-1], path.level[:, 1:]
    origin, target = (weight * before).sum(1)[:, None], (weight * after).sum(1)[:, None]
    gap = before - origin
    spread = (weight * gap * gap).sum(1).clip(SMALLEST_SPREAD)
    speed = ((weight * gap * (after - target)).sum(1) / spread).clip(0, SLOWEST)
    mean = origin[:, 0] + (target - origin)[:, 0] / (1 - speed)
    return Reversion(speed, mean, _errors(path, speed, mean), known)


def early(path: Path) -> Reversion:
    """The fit on the older half of the context, with the errors of all steps."""
    found = fit(path.without(early_steps(path)))
    return found._replace(error=_errors(path, found.speed, found.mean), known=_known(path))


def _known(path: Path) -> AnyArray:
    age = namespace(path.step).arange(path.step.shape[1] - 1, -1, -1, device=path.step.device)
    return age < path.count[:, None]


def _errors(path: Path, speed: AnyArray, mean: AnyArray) -> AnyArray:
    gap = path.level - mean[:, None]
    return gap[:, 1:] - speed[:, None] * gap[:, :-1]


def forecast(found: Reversion, path: Path, ends: AnyArray, steps: int) -> tuple[AnyArray, AnyArray]:
    """Median and deviation [b, O, steps] after columns ``ends`` (int64 [b, O]) of path.level."""
    xp = namespace(path.step)
    ahead = xp.arange(1, steps + 1, dtype=xp.float64, device=path.step.device)
    kept = found.speed[:, None] ** ahead
    gap = gather(path.level, ends) - found.mean[:, None]
    median = found.mean[:, None, None] + gap[:, :, None] * kept[:, None, :]
    growth = xp.sqrt((1 - kept * kept) / (1 - found.speed * found.speed)[:, None])
    sigma = autoregression.sigma(found.error, found.known, ends)
    return median, (sigma[:, :, None] * growth[:, None, :]).clip(SMALLEST_SIGMA)
