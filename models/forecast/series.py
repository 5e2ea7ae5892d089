"""What a forecaster takes and gives: one series in, one forecast out.

Owns the two records. Checking that values are finite and within the limits belongs to the caller, at the edge.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.warning import AnswerWarning

Array = NDArray[np.float64]


class Series(NamedTuple):
    """One item: ``values`` float64 [T], contiguous, oldest first; ``levels`` strictly increasing in (0, 1)."""

    values: Array
    horizon: int
    levels: tuple[float, ...]


class Forecast(NamedTuple):
    """The answer for one series, in the series' own units.

    Attributes:
        point: the median path, float64 [horizon].
        quantiles: float64 [horizon, levels], C-contiguous, never decreasing along the levels.
        gate: the weight in [0, 1] of the structured model (autoregression or foundation model) against the random walk.
        logs: whether the model worked on logarithms.
        context: how many of the latest values were used.
        coverage: share of past origins of this series whose value one horizon later fell in the central 80% interval;
            NaN when there was no room for any.
        coverage_count: how many such origins. Their targets don't overlap.
        warnings: doubts about the series or the answer; none for clean data.
    """

    point: Array
    quantiles: Array
    gate: float
    logs: bool
    context: int
    coverage: float
    coverage_count: int
    warnings: tuple[AnswerWarning, ...] = ()
