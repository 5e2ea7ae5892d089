"""Suspected splits of one series of prices: one step with the ratio of a split among steps of unchanged size.

Owns the test alone. A split is reported and never corrected: a real crash can have the same ratio.
"""

import math
from typing import NamedTuple

import numpy as np

from models.forecast.profile import Profile
from models.forecast.series import Array

RATIOS = (1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 15.0, 20.0, 25.0, 50.0)
# Largest distance of a step from the ratio of a split: the price also moves on the day of the split.
TOLERANCE = 0.02
# From LARGE on few true moves have the size, and the tolerance grows with the deviation of the moves.
LARGE, LARGE_TOLERANCE, DEVIATIONS = 5.0, 0.06, 3.0
# Least size of a split in robust deviations.
LEAST_DEVIATIONS = 8.0
# Across a split the median size of steps changes by less than a factor of 3; across many a crash by more.
LARGEST_CHANGE = 3.0
# Sizes before and after are compared from 5 steps on.
LEAST_STEPS = 5
# A split is so many times the median of the NEAREST moves on each side: a line that starts near zero has larger and
# larger moves towards the start, one of them with the ratio of a split.
LEAST_APART, NEAREST = 4.0, 5


class Split(NamedTuple):
    """``ratio`` new shares for an old one, below 1 for a reverse split, ``bars_ago`` bars before the newest."""

    ratio: float
    bars_ago: int


def find(profile: Profile) -> Split | None:
    """The newest suspected split; None for a series with values <= 0."""
    if not profile.logs or profile.deviation is None or profile.peak == math.inf:
        return None
    limit = LEAST_DEVIATIONS * profile.deviation
    if profile.peak <= limit:
        return None
    size = np.abs(profile.steps)
    for place in np.flatnonzero(size > limit)[::-1].tolist():
        ratio = ratio_of(-float(profile.steps[place]), DEVIATIONS * profile.deviation)
        before, after = size[:place], size[place + 1 :]
        if ratio and _alike(before, after) and _apart(float(size[place]), before, after):
            return Split(ratio, len(size) - 1 - place)
    return None


def ratio_of(fall: float, tolerance: float = LARGE_TOLERANCE) -> float | None:
    """The split ratio of a logarithmic fall; none where the fall has no split's size.

    ``tolerance`` is for ratios from LARGE on, within limits.
    """
    ratio = min(RATIOS, key=lambda known: abs(abs(fall) - math.log(known)))
    allowed = min(max(tolerance, TOLERANCE), LARGE_TOLERANCE) if ratio >= LARGE else TOLERANCE
    if abs(abs(fall) - math.log(ratio)) > allowed:
        return None
    return ratio if fall > 0 else 1 / ratio


def _apart(size: float, before: Array, after: Array) -> bool:
    """Whether a step of ``size`` is far larger than the moves next to it; false with few moves before it."""
    earlier = before[before > 0][-NEAREST:]
    near = np.concatenate([earlier, after[after > 0][:NEAREST]])
    return len(earlier) == NEAREST and size > LEAST_APART * float(np.median(near))


def _alike(before: Array, after: Array) -> bool:
    """Whether steps have about one size before and after; true where there are too few to compare."""
    if min(len(before), len(after)) < LEAST_STEPS:
        return True
    earlier, later = np.median(before), np.median(after)
    return bool(later <= LARGEST_CHANGE * earlier and earlier <= LARGEST_CHANGE * later)
