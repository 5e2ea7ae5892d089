"""Running sums of TA-Lib: the bars at which a call must start afresh, so that no earlier bar spoils a value.

Owns the list of functions with running sums, and the search for the bars at which to start afresh. TA-Lib adds the
newest bar to a sum and subtracts the oldest. A far larger bar takes the digits of the other bars with it: after a bar
of 1e300 a sum of prices is 0 for the rest of the series, although the large bar has left the window. A call split at
such bars into several calls of TA-Lib has the same values as a call for every window alone.
"""

import math
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.indicators.memory import bounded
from models.indicators.program import Call

_SUMMING = frozenset(
    (
        *("AC", "ACCBANDS", "ADR", "AO", "APO", "BBANDS", "BETA", "CMF", "CMOU", "COPPOCK", "CORREL", "DPO", "ER"),
        *("HMA", "MA", "MACDEXT", "MFI", "PPO", "PVO", "QSTICK", "RVOL", "SMA", "STDDEV", "SUM", "TRIMA", "ULTOSC"),
        *("VAR", "VORTEX", "VWMA", "WMA"),
    )
)
"""Functions with values of a window's bars alone, but with sums over all bars so far. Candlestick patterns have running
sums, too."""
_INNER: Final[Mapping[str, Callable[..., tuple[int, ...]]]] = {
    "ULTOSC": lambda *periods: periods,
    "COPPOCK": lambda average, *_: (average - 1,),
    "MFI": lambda period: (period - 1,),
}
"""The lookbacks of sums over fewer bars than the call's window, by the parameters of the function."""
_CANDLES = "Pattern Recognition"
_SQUARING = frozenset(("BBANDS", "BETA", "CORREL", "STDDEV", "VAR"))
"""Functions with sums of squares or of products: a bar r times as large counts r * r times as much."""
MOST_STARTS = 64
"""A call with more starts is refused: no market makes such bars."""
RATIO = 1e4
"""A bar spoils the sums of a window with values so many times smaller. A sum after a smaller bar has a relative error
below 1e-11. The error of a difference of two sums is larger: the relative error of a variance is the error of the sums
times mean**2 / variance. Closes with changes of 1% have a factor of 1e4, and a VAR with an error up to 1e-7.
"""
SQUARED_RATIO = math.sqrt(RATIO)
"""RATIO of functions with sums of squares: for the same error of the sum, the bars may differ by the root of RATIO."""


class SpoiltSumsError(ValueError):
    """The bars vary too much and too often for running sums.

    `ratio`: the exceeded ratio of the sizes of neighbouring windows.
    """

    def __init__(self, ratio: float = RATIO) -> None:
        super().__init__(f"more than {MOST_STARTS} changes of size by {ratio:g} times")
        self.ratio = ratio


def is_summing(call: Call) -> bool:
    """Whether bars before the window could spoil the values of a call."""
    if call.last_only or not bounded(call):
        return False
    return call.function.name in _SUMMING or call.function.group == _CANDLES


def ratio_of(call: Call) -> float:
    """The largest ratio of an earlier bar to a window's values at which the sums of the call keep their digits."""
    return SQUARED_RATIO if call.function.name in _SQUARING else RATIO


def within_ratio(low: float, high: float, ratio: float = RATIO) -> bool:
    """Whether a column from `low` to `high` spoils no sum."""
    if low > 0.0:
        return high <= ratio * low
    return high < 0.0 and low >= ratio * high


def lookbacks(call: Call) -> set[int]:
    """The lookbacks of the call and of its shorter sums: a bar leaves a shorter sum before the call's window."""
    inner = _INNER.get(call.function.name)
    return {call.lookback, *(inner(*map(int, call.values)) if inner is not None else ())}


def fresh_starts(columns: Sequence[NDArray[np.float64]], lookbacks: Set[int], ratio: float = RATIO) -> list[int]:
    """The bars, ascending, at which a call over columns [T] starts afresh. Raises SpoiltSumsError.

    No bar before the longest lookback is a start, so that a start is right for all sums with these lookbacks.
    """
    longest = max(lookbacks)
    if longest + 1 >= len(columns[0]):
        return []
    found: set[int] = set()
    for sizes in map(np.abs, columns):
        for lookback in lookbacks:
            found.update(start for start in _starts(sizes, lookback, ratio) if start >= longest)
    if len(found) > MOST_STARTS:
        raise SpoiltSumsError(ratio)
    return sorted(found)


def _starts(sizes: NDArray[np.float64], lookback: int, ratio: float) -> list[int]:
    positive = sizes[sizes > 0.0]
    if not len(positive) or positive.max() <= ratio * positive.min():
        return []
    largest = _window_maxima(sizes, lookback + 1)
    found: list[int] = []
    first = 0
    while len(found) <= MOST_STARTS:
        # The largest bar in the sums since the last start.
        met = np.maximum.accumulate(sizes[first:])[lookback:]
        spoilt = (met > ratio * largest[first:]) & (largest[first:] > 0.0)
        place = int(spoilt.argmax())
        if not spoilt[place]:
            break
        first += place
        found.append(first + lookback)
    return found


def _window_maxima(sizes: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """The maximum of each window of `width` bars [T - width + 1].

    Source: van Herk, "A fast algorithm for local minimum and maximum filters on rectangular and octagonal kernels"
    (1992): the maxima from the start and from the end of blocks of `width`.
    """
    bars = len(sizes)
    blocks = -(-bars // width)
    padded = np.zeros(blocks * width)
    padded[:bars] = sizes
    block = padded.reshape(blocks, width)
    from_start = np.maximum.accumulate(block, axis=1).ravel()
    from_end = np.maximum.accumulate(block[:, ::-1], axis=1)[:, ::-1].ravel()
    count = bars - width + 1
    return np.maximum(from_end[:count], from_start[width - 1 : width - 1 + count])
