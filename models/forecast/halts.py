"""Halts: runs of equal values in a series that moves otherwise, such as a suspended stock or a feed that stopped.

Owns finding the runs and the series without them. In a halt prices are unknown, not calm: its zero steps say nothing of
the volatility. In a series that trades seldom equal values are the rule, and stay. So do zeros: volumes at night and an
empty stock are known.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.forecast.arrays import host
from models.forecast.path import Path
from models.forecast.series import Array
from models.forecast.volatility import LEAST_STEPS

# A run has this many zero steps or more.
LEAST_RUN = 4
# Runs that chance makes in fewer series than this share, from the zero steps outside the run, are halts.
CHANCE = 0.01


def candidates(path: Path) -> Sequence[int]:
    """The rows that may have a halt: somewhere LEAST_RUN steps in a row are zero. Waits for the device."""
    zero = path.step == 0
    if path.mask is not None:
        zero = zero & (path.mask > 0)
    pairs = zero[:, 1:] & zero[:, :-1]
    found: list[int] = host((pairs[:, 2:] & pairs[:, :-2]).any(1)).nonzero()[0].tolist()
    return found


def moving(values: Array) -> NDArray[np.int64] | None:
    """The positions in ``values`` [T] without the zero steps of halts, ascending.

    None where there is no halt, or too little is left for a forecast.
    """
    zero = values[1:] == values[:-1]
    around = np.zeros(len(zero) + 2, dtype=bool)
    around[1:-1] = zero
    edges = np.flatnonzero(around[1:] != around[:-1])
    starts, sizes = edges[::2], edges[1::2] - edges[::2]
    outside = zero.sum() - sizes
    share = (outside + 1) / (len(zero) - sizes + 2)
    halted = (sizes >= LEAST_RUN) & (len(zero) * share**sizes < CHANCE) & (values[starts] != 0)
    if not halted.any() or len(values) - sizes[halted].sum() <= LEAST_STEPS:
        return None
    kept = np.ones(len(values), dtype=bool)
    for start, size in zip(starts[halted].tolist(), sizes[halted].tolist(), strict=True):
        kept[start + 1 : start + 1 + size] = False
    return np.flatnonzero(kept)
