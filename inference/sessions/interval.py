"""Whether the next bar falls where a session's forecast said it would, four times out of five.

Owns one session's newest interval, one bar ahead, until the bar that it is about arrives. Who counts the outcomes is
metrics.py's.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# The tails of the interval whose nominal coverage is skeleton.NOMINAL_COVERAGE.
LOWER, UPPER = 0.1, 0.9


class Interval:
    """The last interval that was forecast; each is checked once, and later corrections of its bar change nothing."""

    __slots__ = ("_lower", "_sequence", "_upper")

    def __init__(self) -> None:
        self._sequence = -1
        self._lower = self._upper = 0.0

    def expect(self, sequence: int, levels: Sequence[float], quantiles: NDArray[np.float64]) -> None:
        """Keep the interval for bar `sequence`: `quantiles` [levels]. There is none without both tails."""
        if LOWER in levels and UPPER in levels and sequence > self._sequence:
            self._sequence = sequence
            self._lower, self._upper = float(quantiles[levels.index(LOWER)]), float(quantiles[levels.index(UPPER)])

    def meet(self, sequence: int, close: float) -> bool | None:
        """Whether the bar's close is inside, None when its interval is not known or was met before."""
        if sequence != self._sequence:
            return None
        self._sequence = -1
        return self._lower <= close <= self._upper
