"""Isolated outliers of one series, such as a price in pence among pounds or a zero: found and replaced.

A Hampel identifier (Hampel, 1974): the distance to the median of seven neighbours, on a robust scale of the whole
series. Only reversed outliers are replaced: a lasting jump is news. Owns finding and replacing; screening.py
chooses the series to search.
"""

import numpy as np
from numpy.typing import NDArray

from models.forecast.profile import Profile
from models.forecast.series import Array

# The distance at which a value is an outlier, in robust deviations of the moves. Returns and spreads have
# heavy tails, negative values and frequent reversals, so that the limit is higher.
LOG_LIMIT = 20.0
PLAIN_LIMIT = 40.0
# The deviation of a positive series with too few moves for an estimate.
FEW_MOVES = 0.01
# Values on both sides of an outlier differ by at most CALM deviations. Around a real shock, such as the negative
# oil price of 2020, values differ by more.
CALM = 6.0
WINDOW = 7
LONGEST_RUN = WINDOW // 2
# A larger share of outliers belongs to the series and stays.
LARGEST_SHARE = 0.02


def find(profile: Profile) -> NDArray[np.int64]:
    """The positions of isolated outliers, ascending."""
    nowhere, path = np.empty(0, dtype=np.int64), profile.path
    deviation = profile.deviation or (FEW_MOVES if profile.logs else np.inf)
    limit = deviation * (LOG_LIMIT if profile.logs else PLAIN_LIMIT)
    if profile.peak <= limit:
        return nowhere
    far = ~(np.abs(path - _local_median(path)) <= limit)
    starts = np.flatnonzero(far & ~np.r_[False, far[:-1]])
    ends = np.flatnonzero(far & ~np.r_[far[1:], False]) + 1
    found = [
        np.arange(start, end)
        for start, end in zip(starts, ends, strict=True)
        if end - start <= LONGEST_RUN
        and start > 0
        and end < len(path)
        and abs(path[end] - path[start - 1]) <= CALM * deviation
    ]
    positions = np.concatenate([nowhere, *found])
    return positions if len(positions) <= max(LONGEST_RUN, LARGEST_SHARE * len(path)) else nowhere


def _local_median(path: Array) -> Array:
    """[T]: the median of the WINDOW values around a position, of the first or last WINDOW near the ends."""
    inside = np.sort(np.lib.stride_tricks.sliding_window_view(path, WINDOW), axis=1)[:, WINDOW // 2]
    return np.pad(inside, WINDOW // 2, mode="edge")


def replaced(values: Array, positions: NDArray[np.int64], *, logs: bool) -> Array:
    """``values`` [T] with ``positions`` interpolated between the neighbours, geometrically with ``logs``."""
    kept = np.delete(np.arange(len(values)), positions)
    known = np.log(values[kept]) if logs else values[kept]
    filled = np.interp(positions, kept, known)
    treated = values.copy()
    treated[positions] = np.exp(filled) if logs else filled
    return treated
