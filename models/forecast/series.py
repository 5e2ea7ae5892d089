"""Input and output of a forecaster: one series, one forecast; or a group of series, a forecast for each.

Owns the records. Checking that values are finite and within the limits belongs to the caller, at the edge.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.warning import AnswerWarning

Array = NDArray[np.float64]


class Covariates(NamedTuple):
    """Columns beside a series. ``past``: float64 [covariates, T], NaN for a missing value.

    ``future``: float64 [covariates, horizon], NaN for a value that is not known.
    """

    past: Array
    future: Array


class Series(NamedTuple):
    """One item: ``values`` float64 [T], contiguous, oldest first; ``levels`` strictly increasing in (0, 1).

    ``symbol`` selects the parameters of models with parameters per symbol. ``period``: values of one cycle of the
    volatility, 0 for none. ``covariates``: for models that take covariates. ``times``: int64 [T], ascending, the
    nanoseconds since the epoch from which the phases of the volatility are taken; None for none.
    """

    values: Array
    horizon: int
    levels: tuple[float, ...]
    symbol: str = ""
    period: int = 0
    covariates: Covariates | None = None
    times: NDArray[np.int64] | None = None

    @property
    def rows(self) -> int:
        """One for the series, and one for each covariate."""
        return 1 if self.covariates is None else 1 + len(self.covariates.past)


class Group(NamedTuple):
    """One item for models that take groups: series of one horizon that end together. The answer is a Forecast for each.

    A group is forecast in one piece: no batch divides the group, or mixes two groups.
    """

    members: tuple[Series, ...]


def members(item: Series | Group) -> tuple[Series, ...]:
    """The series of an item."""
    return item.members if isinstance(item, Group) else (item,)


class Phases(NamedTuple):
    """Coverage of the 80% interval one step ahead by phase, 0 for the phase of the newest value.

    ``measured``: float64 [period], NaN for a phase without origins. ``origins``: int64 [period]. ``ahead``: int64
    [horizon], the phases of the steps ahead, for a series with times; else they follow each other.
    """

    measured: Array
    origins: NDArray[np.int64]
    ahead: NDArray[np.int64] | None = None


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
        phases: the coverage by phase of a series with a period or times, else None.
    """

    point: Array
    quantiles: Array
    gate: float
    logs: bool
    context: int
    coverage: float
    coverage_count: int
    warnings: tuple[AnswerWarning, ...] = ()
    phases: Phases | None = None
