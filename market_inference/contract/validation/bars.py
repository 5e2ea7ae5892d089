"""The rule between the prices of one bar: low <= open, close <= high.

Owns the rule, its check over columns of many bars and over the values of one bar, and the text of its violation. Every
check of prices uses this file: the fast check and the explaining check of panels, and a session's check of its bars.
A column that is absent takes no part.
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
    """A bar whose price `lower` exceeds its price `upper`."""

    lower: str
    upper: str
    bar: int
    description: str


def ordered(opened: Prices, high: Prices, low: Prices, close: Prices) -> bool:
    """Whether all bars obey ORDER: arrays of one shape, without NaN. Two comparisons come to the five of ORDER."""
    below = np.minimum(opened, close) < low
    above = np.maximum(opened, close) > high
    return not (np.count_nonzero(below) or np.count_nonzero(above))


def first_disorder(columns: Mapping[str, Prices]) -> Disorder | None:
    """The first pair of ORDER that a bar of the columns [bars] breaks, at its first bar."""
    for lower, upper in ORDER:
        if lower in columns and upper in columns:
            above = columns[lower] > columns[upper]
            if above.any():
                bar = int(np.argmax(above))
                return _disorder(lower, upper, bar, float(columns[lower][bar]), float(columns[upper][bar]))
    return None


def disorder_of(bar: Mapping[str, float]) -> Disorder | None:
    """The first pair of ORDER that one bar breaks. Without numpy: an array per price would cost ten times as much."""
    for lower, upper in ORDER:
        if lower in bar and upper in bar and bar[lower] > bar[upper]:
            return _disorder(lower, upper, 0, bar[lower], bar[upper])
    return None


def _disorder(lower: str, upper: str, bar: int, low: float, high: float) -> Disorder:
    return Disorder(lower, upper, bar, f"{lower} must not exceed {upper} (got {low:g} > {high:g})")
