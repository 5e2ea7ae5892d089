"""Likely faults that are not replaced: a value in another unit, with a lost decimal point, or a fill value.

Owns the search. An isolated fault between good values is an outlier (outliers.py). At the newest values, or where the
series stays at the new level, only later values tell a fault from news: the finding is a warning alone.
"""

import math
from typing import NamedTuple

import numpy as np

from models.forecast import outliers
from models.forecast.profile import Profile
from models.forecast.series import Array

# Earnings, crashes of a currency and jumps of a volatility index are smaller steps, and small beside their own
# series' moves.
LEAST_FACTOR = 3.0
# For a series that hardly ever moves, such as a policy rate.
LEAST_FACTOR_UNKNOWN = 10.0
# The steps before the step in question.
LEAST_STEPS = 5
# Values of sources for "missing". A price below zero of another size, such as oil's in 2020, may be true.
FILLS = (0.0, -1.0, -9.0, -99.0, -999.0, -9999.0, -99999.0)
# So far from the size of the value before, minus the value is a changed sign.
SAME_SIZE = 0.1
# How many newest values may be fill values.
NEWEST = 5


class Fault(NamedTuple):
    """``ratio`` of a value to the one before, ``bars_ago`` bars before the newest; the ``value``."""

    ratio: float
    bars_ago: int
    value: float


def find(values: Array, profile: Profile) -> Fault | None:
    """The newest likely fault of ``values`` [T]."""
    place = _filled(values, profile)
    if place is None and profile.logs and profile.peak > math.log(LEAST_FACTOR):
        place = _jumped(profile)
    if place is None:
        return None
    return Fault(float(values[place] / values[place - 1]), len(values) - 1 - place, float(values[place]))


def _filled(values: Array, profile: Profile) -> int | None:
    """The first of the newest values with a fill value or a changed sign, in a positive series with small moves."""
    place = len(values) - NEWEST + int(np.argmax(values[-NEWEST:] <= 0))
    value, before = float(values[place]), float(values[place - 1])
    if value > 0 or values[:place].min() <= 0:
        return None
    deviation = profile.deviation or outliers.FEW_MOVES
    # Of a path without logarithms the unit is the largest size.
    size = 1.0 if profile.logs else before / float(np.abs(values).max())
    if outliers.LOG_LIMIT * deviation > size:
        return None
    return place if value in FILLS or abs(value + before) <= SAME_SIZE * before else None


def _jumped(profile: Profile) -> int | None:
    """The newest value with a step too large for news."""
    deviation = profile.deviation
    if deviation is None:
        limit = math.log(LEAST_FACTOR_UNKNOWN)
    else:
        limit = max(math.log(LEAST_FACTOR), outliers.LOG_LIMIT * deviation)
    size = np.abs(profile.steps)
    found = np.flatnonzero((size > limit) & (size < math.inf))
    return int(found[-1]) + 1 if len(found) and found[-1] >= LEAST_STEPS else None
