"""Directional movement, true range, bands and regression over [rows, bars].

Each result starts at the first bar with a value in TA-Lib. Functions take inputs and parameters, and return outputs, in
TA-Lib's order.
"""

import torch
from torch import Tensor

from models.indicators.kernels import average, recurrence, window
from models.indicators.kernels.ratio import ratio


def true_range(high: Tensor, low: Tensor, close: Tensor) -> Tensor:
    """TRANGE."""
    before = close[:, :-1]
    return torch.maximum(high[:, 1:], before) - torch.minimum(low[:, 1:], before)


def average_true_range(high: Tensor, low: Tensor, close: Tensor, period: int) -> Tensor:
    """ATR."""
    return average.wilder(true_range(high, low, close), period)


def normalized_average_true_range(high: Tensor, low: Tensor, close: Tensor, period: int) -> Tensor:
    """NATR; with a period of 1 TA-Lib returns the true range, not normalized."""
    if period == 1:
        return true_range(high, low, close)
    return 100 * ratio(average_true_range(high, low, close, period), close[:, period:])


def plus_directional(high: Tensor, low: Tensor, close: Tensor, period: int) -> Tensor:
    """PLUS_DI."""
    plus, _ = _movements(high, low)
    return _directional(plus, true_range(high, low, close), period)


def minus_directional(high: Tensor, low: Tensor, close: Tensor, period: int) -> Tensor:
    """MINUS_DI."""
    _, minus = _movements(high, low)
    return _directional(minus, true_range(high, low, close), period)


def directional_index(high: Tensor, low: Tensor, close: Tensor, period: int) -> Tensor:
    """DX."""
    # The true range cancels out, because +DI and -DI have the same divisor.
    plus, minus = (_accumulated(movement, period) for movement in _movements(high, low))
    return 100 * ratio((plus - minus).abs(), plus + minus)


def average_directional_index(high: Tensor, low: Tensor, close: Tensor, period: int) -> Tensor:
    """ADX."""
    return average.wilder(directional_index(high, low, close, period), period)


def standard_deviation(close: Tensor, period: int, deviations: float) -> Tensor:
    """STDDEV."""
    return window.variance(close, period).sqrt_() * deviations


def bollinger(close: Tensor, period: int, up: float, down: float, kind: int) -> tuple[Tensor, Tensor, Tensor]:
    """BBANDS: upper, middle, lower."""
    middle = average.of_kind(close, period, kind)
    deviation = window.variance(close, period).sqrt_()
    deviation = deviation[:, deviation.shape[1] - middle.shape[1] :]
    return middle + up * deviation, middle, middle - down * deviation


def linear_regression(close: Tensor, period: int) -> Tensor:
    """LINEARREG: the last point of the least-squares line through each window."""
    # With centred positions, the slope is the covariance divided by the variance of the positions.
    plain, ranked = window.weighted(close, period)
    centre = (period - 1) / 2
    slope = (ranked - centre * plain) * (12 / (period * (period**2 - 1)))
    return plain / period + slope * centre


def _movements(high: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
    """+DM and -DM per bar: the larger move beyond the previous bar counts, the smaller is 0; equal moves are both 0."""
    up, down = high.diff(), -low.diff()
    plus = torch.where((up > 0) & (up > down), up, 0.0)
    minus = torch.where((down > 0) & (down > up), down, 0.0)
    return plus, minus


def _directional(movement: Tensor, reach: Tensor, period: int) -> Tensor:
    if period == 1:
        # TA-Lib leaves out the smoothing and the factor of 100.
        return ratio(movement, reach)
    return 100 * ratio(_accumulated(movement, period), _accumulated(reach, period))


def _accumulated(x: Tensor, period: int) -> Tensor:
    """Wilder's running sum y += x - y / period, seeded with the sum of period - 1 bars; starts a bar after the seed."""
    return recurrence.constant(x[:, period - 2 :], 1 - 1 / period, first=x[:, : period - 1].sum(1))[:, 1:]
