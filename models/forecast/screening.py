"""The suspect rows of a batch: a reversed or split-like step far above the others, or equal newest values.

Owns a cheap test that passes nearly all clean rows by. answer_warnings.py examines suspect rows.
"""

import math
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from models.forecast import faults, outliers, splits
from models.forecast.answer_warnings import LEAST_STALE
from models.forecast.arrays import AnyArray, at_most, host
from models.forecast.path import Path

# A step is suspect above a multiple of the mean step: a single outlier of 20 deviations reaches 17 mean steps from 60
# steps on. In a short series an outlier is a large part of the mean, so that a share of the sum is the limit.
LARGEST_ROUGHNESS = 14.0
LARGEST_PART = 0.2
LARGEST_NEWS = math.log(faults.LEAST_FACTOR)


def suspects(path: Path) -> Sequence[int]:
    """The suspect rows, ascending. Waits for the device."""
    limit = at_most(LARGEST_ROUGHNESS / path.count, LARGEST_PART) * path.distance
    rough, stale = path.peak > limit, path.level[:, -LEAST_STALE] == 0
    rows: list[int] = host(rough | stale).nonzero()[0].tolist()
    return [row for row in rows if stale[row] or not path.logs[row] or _reverses(path.step[row], float(limit[row]))]


def _reverses(step: AnyArray, limit: float) -> bool:
    """Whether a step of ``step`` [W] above ``limit`` is taken back within a short run, or has the size of a fault."""
    step = host(step)
    for place in np.flatnonzero(abs(step) > limit).tolist():
        jump, *after = step[place : place + 1 + outliers.LONGEST_RUN].tolist()
        sums = accumulate(after, initial=jump)
        if abs(jump) > LARGEST_NEWS or splits.ratio_of(-jump) or any(abs(total) < abs(jump) / 2 for total in sums):
            return True
    return False
