"""One series as a path of moves on a robust scale: the ground of the searches for outliers and splits.

Owns the choice of logarithms for these searches and the scale. The path that forecasts work on is path.py's.
"""

from dataclasses import dataclass

import numpy as np

from models.forecast.series import Array

# A series with at least this share of positive values is measured in logarithms.
POSITIVE_SHARE = 0.95
# With fewer moves than this there is no scale to read.
LEAST_MOVES = 6
NORMAL_MEDIAN = 1.4826


@dataclass(frozen=True, slots=True)
class Profile:
    """The moves of one series of T values.

    Attributes:
        path: [T], logarithms, minus infinity where a value is not positive; or the values over their largest size.
        logs: whether the path is logarithmic.
        steps: [T - 1], its differences; not finite beside a value that is not positive.
        deviation: the robust standard deviation of the moves, which are the steps that are not zero; none for too few.
        peak: the largest size of a step, infinite beside a value that is not positive.
    """

    path: Array
    logs: bool
    steps: Array
    deviation: float | None
    peak: float


def make_profile(values: Array) -> Profile:
    """The profile of ``values`` [T]."""
    least = values.min()
    logs = bool(least > 0 or (values > 0).mean() >= POSITIVE_SHARE)
    with np.errstate(all="ignore"):
        path = np.log(values.clip(min=0)) if logs else values / (max(-least, values.max()) or 1.0)
        steps = path[1:] - path[:-1]
        size = np.abs(steps)
        moves = size[(size > 0) & (size < np.inf)]
    middle = len(moves) // 2
    deviation = NORMAL_MEDIAN * float(np.partition(moves, middle)[middle]) if len(moves) >= LEAST_MOVES else None
    peak = float(size.max())
    return Profile(path, logs, steps, deviation, peak if peak == peak else float("inf"))
