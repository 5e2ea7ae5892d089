"""Suspected splits of one series of prices: one step with the ratio of a split among steps of unchanged size.

Owns the test alone. A split is reported and never corrected: a real crash can have the same ratio.
"""

import math
from typing import NamedTuple

import numpy as np

from models.forecast.profile import Profile
from models.forecast.series import Array

RATIOS = (2.0, 3.0, 4.0, 5.0, 10.0, 20.0, 1.5)
# Largest distance of a step from the ratio of a split: the price also moves on the day of the split.
TOLERANCE = 0.02
# Least size of a split in robust deviations.
LEAST_DEVIATIONS = 8.0
# Across a split the median size of steps changes by less than a factor of 3; across many a crash by more.
LARGEST_CHANGE = 3.0
# Sizes before and after are compared from 5 steps on.
LEAST_STEPS = 5


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
        ratio = ratio_of(-float(profile.steps[place]))
        if ratio and _alike(size[:place], size[place + 1 :]):
            return Split(ratio, len(size) - 1 - place)
    return None


def ratio_of(fall: float) -> float | None:
    """The split ratio of a logarithmic fall; none where the fall has no split's size."""
    for ratio in RATIOS:
        if abs(abs(fall) - math.log(ratio)) <= TOLERANCE:
            return ratio if fall > 0 else 1 / ratio
    return None


def _alike(before: Array, after: Array) -> bool:
    """Whether steps have about one size before and after; true where there are too few to compare."""
    if min(len(before), len(after)) < LEAST_STEPS:
        return True
    earlier, later = np.median(before), np.median(after)
    return bool(later <= LARGEST_CHANGE * earlier and earlier <= LARGEST_CHANGE * later)
