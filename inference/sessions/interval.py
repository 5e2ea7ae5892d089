"""The check of a session's 80% forecast interval against the next bar's close.

Owns the newest interval of a session, one bar ahead, until the bar arrives. metrics.py counts the results.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# The levels of the interval whose nominal coverage is answers.NOMINAL_COVERAGE.
LOWER, UPPER = 0.1, 0.9


class Interval:
    """The newest interval. Every interval is checked once; later corrections of the bar are ignored."""

    __slots__ = ("_lower", "_sequence", "_upper", "model")

    def __init__(self) -> None:
        self.model = ("", "")
        """Name and version of the model that gave the interval."""
        self._sequence = -1
        self._lower = self._upper = 0.0

    def expect(
        self, sequence: int, levels: Sequence[float], quantiles: NDArray[np.float64], model: tuple[str, str] = ("", "")
    ) -> None:
        """Keep the interval of bar `sequence` from `quantiles` [levels]; ignored unless both levels are present."""
        if LOWER in levels and UPPER in levels and sequence > self._sequence:
            self._sequence, self.model = sequence, model
            self._lower, self._upper = float(quantiles[levels.index(LOWER)]), float(quantiles[levels.index(UPPER)])

    def meet(self, sequence: int, close: float) -> bool | None:
        """Whether the bar's close is inside the bar's interval; None for an unknown interval or a second check."""
        if sequence != self._sequence:
            return None
        self._sequence = -1
        return self._lower <= close <= self._upper
