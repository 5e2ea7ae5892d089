"""One series as a path of moves on a robust scale, for the searches for outliers and splits.

Owns the choice of logarithms for the searches and the scale. The path of the forecasts is in path.py.
"""

from dataclasses import dataclass

import numpy as np

from models.forecast.series import Array

# From this share of positive values on, a series is measured in logarithms.
POSITIVE_SHARE = 0.95
# With fewer moves the scale is unknown.
LEAST_MOVES = 6
NORMAL_MEDIAN = 1.4826


@dataclass(frozen=True, slots=True)
class Profile:
    """The moves of one series of T values.

    Attributes:
        path: [T], logarithms, minus infinity for values <= 0; or the values over the largest size.
        logs: whether the path is logarithmic.
        steps: [T - 1], the differences of path; not finite beside values <= 0.
        deviation: the robust standard deviation of the moves (nonzero steps); None for too few moves.
        peak: the largest size of a step, infinite beside values <= 0.
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
