"""The rule between the prices of one bar: low <= open, close <= high, but for the rounding of adjusted prices.

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
TOLERANCE: Final = 8 * 2.0**-52
"""Prices adjusted by a factor round differently: a pair out of order by this share of the larger price is in order."""


class Disorder(NamedTuple):
    """A bar with the price `lower` above the price `upper`."""

    lower: str
    upper: str
    bar: int
    description: str


def ordered(opened: Prices, high: Prices, low: Prices, close: Prices) -> bool:
    """Whether all bars obey ORDER: arrays of equal shape, without NaN. Two comparisons amount to the five of ORDER."""
    lowest, highest = np.minimum(opened, close), np.maximum(opened, close)
    if not (np.count_nonzero(lowest < low) or np.count_nonzero(highest > high)):
        return True
    return not (_above(low, lowest).any() or _above(highest, high).any())


def _above(lower: Prices, upper: Prices) -> NDArray[np.bool_]:
    """The bars with the price `lower` above the price `upper` by more than TOLERANCE."""
    with np.errstate(over="ignore"):
        found: NDArray[np.bool_] = lower - upper > TOLERANCE * np.maximum(np.abs(lower), np.abs(upper))
    return found


def first_disorder(columns: Mapping[str, Prices]) -> Disorder | None:
    """The first pair of ORDER broken by the columns [bars], at the first bar that breaks the pair."""
    for lower, upper in ORDER:
        if lower in columns and upper in columns:
            above = _above(columns[lower], columns[upper])
            if above.any():
                bar = int(np.argmax(above))
                return _disorder(lower, upper, bar, float(columns[lower][bar]), float(columns[upper][bar]))
    return None


def disorder_of(bar: Mapping[str, float]) -> Disorder | None:
    """The first pair of ORDER broken by a single bar. Plain floats: numpy would take ten times as long."""
    for lower, upper in ORDER:
        if lower in bar and upper in bar and bar[lower] > bar[upper]:
            low, high = bar[lower], bar[upper]
            if low - high > TOLERANCE * max(abs(low), abs(high)):
                return _disorder(lower, upper, 0, low, high)
    return None


def _disorder(lower: str, upper: str, bar: int, low: float, high: float) -> Disorder:
    return Disorder(lower, upper, bar, f"{lower} must not exceed {upper} (got {_digits(low)} > {_digits(high)})")


def _digits(price: float) -> str:
    """All digits of a price, so that the two prices of a violation never look equal."""
    return repr(float(price)).removesuffix(".0")
