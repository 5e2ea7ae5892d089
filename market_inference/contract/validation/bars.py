"""The rule between the prices of one bar: low <= open, close <= high.

Owns the rule, the check over columns of many bars, the check of a single bar, and the text of a violation. Both checks
of panels (fast.py, explain.py) use this file, and so does a live session for every bar. Absent columns take no part.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Prices: TypeAlias = NDArray[np.float64]

PRICES: Final = ("open", "high", "low", "close")
ORDER: Final = (("low", "open"), ("low", "close"), ("open", "high"), ("close", "high"), ("low", "high"))
"""Pairs of prices (lower, upper) with lower <= upper in every bar."""
REASON: Final = "ohlc_order"


class Disorder(NamedTuple):
    """A bar with the price `lower` above the price `upper`."""

    lower: str
    upper: str
    bar: int
    description: str


def ordered(opened: Prices, high: Prices, low: Prices, close: Prices) -> bool:
    """Whether all bars obey ORDER: arrays of equal shape, without NaN. Two comparisons amount to the five of ORDER."""
    below = np.minimum(opened, close) < low
    above = np.maximum(opened, close) > high
    return not (np.count_nonzero(below) or np.count_nonzero(above))


def first_disorder(columns: Mapping[str, Prices]) -> Disorder | None:
    """The first pair of ORDER broken by the columns [bars], at the first bar that breaks the pair."""
    for lower, upper in ORDER:
        if lower in columns and upper in columns:
            above = columns[lower] > columns[upper]
            if above.any():
                bar = int(np.argmax(above))
                return _disorder(lower, upper, bar, float(columns[lower][bar]), float(columns[upper][bar]))
    return None


def disorder_of(bar: Mapping[str, float]) -> Disorder | None:
    """The first pair of ORDER broken by a single bar. Plain floats: numpy would take ten times as long."""
    for lower, upper in ORDER:
        if lower in bar and upper in bar and bar[lower] > bar[upper]:
            return _disorder(lower, upper, 0, bar[lower], bar[upper])
    return None


def _disorder(lower: str, upper: str, bar: int, low: float, high: float) -> Disorder:
    return Disorder(lower, upper, bar, f"{lower} must not exceed {upper} (got {low:g} > {high:g})")
