"""Moving averages over [rows, bars]; each result starts at the first bar with a value in TA-Lib.

Owns TA-Lib's averages and seeds. Bars before the first value are cut off, not NaN, so that averages can be chained.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from torch import Tensor

from models.indicators.kernels import recurrence, window
from models.indicators.kernels.ratio import ratio

_KAMA_SLOW, _KAMA_FAST = 2 / (30 + 1), 2 / (2 + 1)


def simple(x: Tensor, period: int) -> Tensor:
    """SMA."""
    return window.total(x, period) / period


def seeded(x: Tensor, period: int, weight: float) -> Tensor:
    """y += weight * (x - y), started with the mean of the first `period` bars."""
    return recurrence.constant(x[:, period - 1 :], 1 - weight, weight, x[:, :period].mean(1))


def exponential(x: Tensor, period: int) -> Tensor:
    """EMA."""
    return seeded(x, period, 2 / (period + 1))


def wilder(x: Tensor, period: int) -> Tensor:
    """Wilder's smoothing, as in RSI and ATR."""
    return seeded(x, period, 1 / period)


def linear(x: Tensor, period: int) -> Tensor:
    """WMA."""
    plain, ranked = window.weighted(x, period)
    return (plain + ranked) / (period * (period + 1) / 2)


def double_exponential(x: Tensor, period: int) -> Tensor:
    """DEMA."""
    once = exponential(x, period)
    twice = exponential(once, period)
    return 2 * once[:, period - 1 :] - twice


def triple_exponential(x: Tensor, period: int) -> Tensor:
    """TEMA."""
    once = exponential(x, period)
    twice = exponential(once, period)
    thrice = exponential(twice, period)
    return 3 * (once[:, 2 * (period - 1) :] - twice[:, period - 1 :]) + thrice


def adaptive(x: Tensor, period: int) -> Tensor:
    """KAMA, seeded with the bar before the first value."""
    if period == 1:
        return x
    path = window.total(x.diff().abs_(), period)
    change = x[:, period:] - x[:, :-period]
    efficiency = ratio(change.abs(), path, 1.0).clamp_(max=1.0)
    weight = (efficiency * (_KAMA_FAST - _KAMA_SLOW) + _KAMA_SLOW).square_()
    step = weight * x[:, period:]
    step[:, 0] += (1 - weight[:, 0]) * x[:, period - 1]
    return recurrence.varying(1 - weight, step)


KINDS: Final[Mapping[int, Callable[[Tensor, int], Tensor]]] = MappingProxyType(
    {0: simple, 1: exponential, 2: linear, 3: double_exponential, 4: triple_exponential, 6: adaptive}
)
"""The averages by TA-Lib's number of the kind."""


def of_kind(x: Tensor, period: int, kind: int) -> Tensor:
    """The moving average with TA-Lib's number `kind`, one of KINDS."""
    return KINDS[kind](x, period)
