"""The rule between the prices of one bar: low <= open, close <= high, but for the rounding of adjusted prices.

Owns the rule, the check over columns of many bars, the check of a single bar, and the text of a violation. Both checks
of panels (fast.py, explain.py) use this file, and so does a live session for every bar. Absent columns take no part.
"""

from collections.abc import Mapping
from functools import reduce
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


def ordered(prices: Mapping[str, Prices]) -> bool:
    """Whether all bars obey ORDER: arrays of equal shape, without NaN; `close` is one of them."""
    middle = [prices[name] for name in ("open", "close") if name in prices]
    # The lowest and the highest of open and close: two comparisons amount to the five of ORDER.
    low, high = prices.get("low"), prices.get("high")
    if (low is None or not np.count_nonzero(reduce(np.minimum, middle) < low)) and (
        high is None or not np.count_nonzero(reduce(np.maximum, middle) > high)
    ):
        return True
    pairs = ((prices.get(lower), prices.get(upper)) for lower, upper in ORDER)
    return not any(_above(lower, upper).any() for lower, upper in pairs if lower is not None and upper is not None)


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
