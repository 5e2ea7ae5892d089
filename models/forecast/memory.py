"""The memory of the steps from one to the next: how much faster or slower than a random walk's the deviation grows.

Owns the autocorrelation at the first lag, shrunk to zero where chance may explain it, and the growth that follows from
it. Monthly means of daily values (Working, 1960) and indices of assets that trade seldom have steps that continue the
step before, prices that jump between bid and ask (Roll, 1984) have steps that take it back. The gate opens for none of
these: one step tells nothing of the far horizon but its width.
"""

from functools import lru_cache
from typing import Any

import numpy as np

from models.cache import cache_of_device
from models.forecast.arrays import AnyArray, Device, dot, holds, namespace, put
from models.forecast.path import Path
from models.forecast.student import LONGEST_HORIZON

# Of an autocorrelation the share 1 - CHANCE / t^2 stays, as of a drift in autoregression.py. The variance in t is that
# of the products of steps (White, 1980), so that clusters of large steps and single outliers are no evidence.
CHANCE = 4.0
# Of the variance of a random walk, the least share.
LEAST_GROWTH = 0.25
# Steps below this size, in path units, may be rounding noise, and have no memory.
SMALLEST_STEP = 1e-6


def excess(path: Path, squares: AnyArray) -> AnyArray | None:
    """[B, 1]: twice the autocorrelation of successive steps, shrunk; None where all are known to be zero.

    The excess of the variance over many steps, relative to a random walk's. ``squares`` [B, W]: of the steps.
    """
    xp, step = namespace(path.step), path.step
    products = dot(step[:, 1:], step[:, :-1])
    evidence = products * products - CHANCE * dot(squares[:, 1:], squares[:, :-1])
    if holds(evidence <= 0):
        return None
    total = dot(step, step) + SMALLEST_STEP**2 * path.count
    found = xp.where(evidence > 0, 2 * evidence / (products * total), 0.0)
    return found.clip(LEAST_GROWTH - 1)[:, None]


def growth(excess: AnyArray, steps: int) -> AnyArray:
    """[B, steps]: the deviation over 1 to ``steps`` steps by ``excess`` of excess(), relative to a random walk's."""
    return namespace(excess).sqrt(1 + excess * _pairs(excess.device)[:steps])


def growth_over(excess: AnyArray, horizon: Any) -> AnyArray:
    """[B, 1]: as growth(), over ``horizon`` steps, a number or int64 [B]."""
    # From the table, as in growth(): a torch quotient of integers is float32.
    pairs = _pairs(excess.device)[horizon - 1]
    return namespace(excess).sqrt(1 + excess * (pairs if isinstance(horizon, int) else pairs[:, None]))


@cache_of_device(lru_cache(maxsize=8))
def _pairs(device: Device) -> AnyArray:
    """[LONGEST_HORIZON]: the pairs of successive steps among h steps, for each step."""
    return put(1 - 1 / np.arange(1.0, LONGEST_HORIZON + 1), device)
