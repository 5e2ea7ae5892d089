"""A forecast: the median path, its quantiles, and how well the interval did before."""

from dataclasses import dataclass

import numpy as np

from market_inference.client.arrays import Floats
from market_inference.client.warning import AnswerWarning


@dataclass(frozen=True, slots=True)
class Coverage:
    """How well the central interval did in backtests inside the series itself.

    `nominal`: the share promised, 0.8. `measured`: the share observed, NaN without origins. `origins`: backtests behind
    it; few make it thin evidence.
    """

    nominal: float
    measured: float
    origins: int


@dataclass(frozen=True, slots=True, eq=False)
class Forecast:
    """The forecast of one series, in the series' own units.

    `point` [horizon] is the median path; `quantiles` [horizon, levels], and `levels` [levels] ascending. `gate`: the
    weight of the autoregressive part, 0 is a random walk with a volatility forecast. `logs`: the series was modelled
    in logarithms. `context`: values of the series that were used. `warnings`: doubts about the series or the answer,
    none for clean data.
    """

    symbol: str
    point: Floats
    quantiles: Floats
    levels: Floats
    coverage: Coverage
    gate: float
    logs: bool
    context: int
    model: str
    model_version: str
    request_id: str
    warnings: tuple[AnswerWarning, ...] = ()

    @property
    def horizon(self) -> int:
        """Steps ahead."""
        return len(self.point)

    def quantile(self, level: float) -> Floats:
        """The path [horizon] of one level that was asked for. Raises ValueError when it was not."""
        at = np.flatnonzero(np.isclose(self.levels, level, rtol=0, atol=1e-9))
        if not at.size:
            there = ", ".join(f"{known:g}" for known in self.levels)
            raise ValueError(
                f"no quantile {level:g} in this forecast (it has {there}); ask for it with quantiles=[...]"
            )
        return np.asarray(self.quantiles[:, at[0]], dtype=np.float64)

    def interval(self, share: float) -> tuple[Floats, Floats]:
        """Lower and upper path [horizon] of the central interval that holds `share`, such as 0.8.

        Raises ValueError when its two levels were not asked for.
        """
        if not 0 < share < 1:
            raise ValueError(f"share must lie strictly between 0 and 1, got {share:g}")
        return self.quantile((1 - share) / 2), self.quantile((1 + share) / 2)
