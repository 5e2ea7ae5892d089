"""Input and output of a forecaster: one series, one forecast.

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
    """The answer for one series, in the units of the series.

    Attributes:
        point: the median path, float64 [horizon].
        quantiles: float64 [horizon, levels], C-contiguous, never decreasing along the levels.
        gate: the weight in [0, 1] of the structured model (autoregression or foundation model) against the random walk.
        logs: whether the model worked on logarithms.
        context: how many of the latest values were used.
        coverage: share of past origins of the series with the value one horizon later inside the central 80% interval;
            NaN without origins.
        coverage_count: the number of such origins. The targets do not overlap.
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
