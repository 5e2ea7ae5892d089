"""Quantiles of the unit-variance Student t, with tails thinning out over the horizon.

Owns the table of band edges in units of sigma, for all embedded forecasters and any level in (0, 1), without scipy.
"""

import math
from functools import lru_cache
from operator import attrgetter

import numpy as np

from models.cache import cache_of_device, sized_cache
from models.forecast.arrays import AnyArray, Device, put
from models.forecast.series import Array

LONGEST_HORIZON = 365

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)
# Quantiles are smooth in the degrees of freedom: 24 Chebyshev points carry all horizons to 1e-12.
_POINTS = 24


def degrees_of_freedom(horizon: Array) -> Array:
    """nu = min(4 + 4 ln h / ln 48, 30), for horizons in steps."""
    return np.minimum(4 + 4 * np.log(horizon) / math.log(48), 30.0)


def quantile(level: float, freedom: Array) -> Array:
    """The quantile of Student's t at ``level`` in (0, 1) for all ``freedom`` (>= 4), exact to about 1e-12.

    With t = sqrt(nu) cot(phi) the tail probability is an integral of sin^(nu - 1) from 0 to phi, and
    Gauss-Legendre nodes give the integral to machine precision; Newton's method in log(phi) inverts the integral, also
    far out in the tail.
    """
    tail = min(level, 1 - level)
    if tail == 0.5:
        return np.zeros_like(freedom)
    log_beta = np.array([math.lgamma(v / 2) - math.lgamma((v + 1) / 2) for v in freedom]) + 0.5 * math.log(math.pi)
    target = math.log(tail) + log_beta
    nodes, power = (_NODES + 1) / 2, freedom - 1
    log_phi = np.minimum((target + np.log(freedom)) / freedom, math.log(math.pi / 2))
    for _ in range(50):
        phi = np.exp(log_phi)
        sine = np.sin(phi[:, None] * nodes)
        log_mass = np.log(phi / 2 * (np.power(sine / sine[:, -1:], power[:, None]) @ _WEIGHTS)) + power * np.log(
            sine[:, -1]
        )
        slope = np.exp(log_phi + power * np.log(np.sin(phi)) - log_mass)
        step = (log_mass - target) / slope
        log_phi = np.minimum(log_phi - step, math.log(math.pi / 2))
        if np.abs(step).max() < 1e-15:
            break
    return math.copysign(1.0, level - 0.5) * np.sqrt(freedom) / np.tan(np.exp(log_phi))


@lru_cache(maxsize=4096)
def _column(level: float) -> Array:
    """The band's edge at ``level`` in units of sigma * sqrt(h), float64 [LONGEST_HORIZON]."""
    freedom = degrees_of_freedom(np.arange(1.0, LONGEST_HORIZON + 1))
    angles = (np.arange(_POINTS) + 0.5) * math.pi / _POINTS
    low, high = freedom[0], freedom[-1]
    points = (low + high) / 2 + (high - low) / 2 * np.cos(angles)
    signs = np.where(np.arange(_POINTS) % 2, -1.0, 1.0) * np.sin(angles)
    gaps = freedom[:, None] - points
    hit = np.abs(gaps) < 1e-13
    kernel = np.where(hit.any(1, keepdims=True), hit, signs / np.where(hit, 1.0, gaps))
    unit = kernel @ (quantile(level, points) * np.sqrt((points - 2) / points)) / kernel.sum(1)
    return np.asarray(unit)


@cache_of_device(sized_cache(16 << 20, attrgetter("nbytes")))
def table(levels: tuple[float, ...], device: Device) -> AnyArray:
    """Float64 [LONGEST_HORIZON, len(levels)] on ``device``: the band's edges in units of sigma * sqrt(h)."""
    edges = np.stack([_column(level) for level in levels], axis=1)
    # Levels closer to each other than the rounding of Newton's method may swap.
    return put(np.maximum.accumulate(edges, axis=1), device)
