"""Oscillators and rates of change over [rows, bars]; each result starts at the first bar with a value in TA-Lib.

Functions take inputs and parameters, and return outputs, in TA-Lib's order.
"""

import torch
from torch import Tensor

from models.indicators.kernels import average, window
from models.indicators.kernels.ratio import negligible, place, ratio

# TA-Lib treats a slow average below this value as zero.
_ZERO = 1e-14


def rsi(close: Tensor, period: int) -> Tensor:
    """RSI."""
    change = close.diff()
    gain = average.wilder(change.clamp(min=0), period)
    path = average.wilder(change.abs_(), period)
    return 100 * ratio(gain, path)


def fast_stochastic(
    high: Tensor, low: Tensor, close: Tensor, fastk: int, fastd: int, kind: int
) -> tuple[Tensor, Tensor]:
    """STOCHF."""
    raw = _place_in_range(high, low, close, fastk)
    smooth = average.of_kind(raw, fastd, kind)
    return _last(raw, smooth), smooth


def stochastic(
    high: Tensor, low: Tensor, close: Tensor, fastk: int, slowk: int, slowk_kind: int, slowd: int, slowd_kind: int
) -> tuple[Tensor, Tensor]:
    """STOCH."""
    smooth = average.of_kind(_place_in_range(high, low, close, fastk), slowk, slowk_kind)
    smoother = average.of_kind(smooth, slowd, slowd_kind)
    return _last(smooth, smoother), smoother


def stochastic_rsi(close: Tensor, period: int, fastk: int, fastd: int, kind: int) -> tuple[Tensor, Tensor]:
    """STOCHRSI."""
    strength = rsi(close, period)
    return fast_stochastic(strength, strength, strength, fastk, fastd, kind)


def williams(high: Tensor, low: Tensor, close: Tensor, period: int) -> Tensor:
    """WILLR."""
    top, bottom = window.highest(high, period), window.lowest(low, period)
    return -100 * place(close[:, period - 1 :], top, bottom)


def commodity_channel(high: Tensor, low: Tensor, close: Tensor, period: int) -> Tensor:
    """CCI."""
    typical = (high + low + close) / 3
    mean = average.simple(typical, period)
    bars = mean.shape[1]
    # The mean changes with every window, so the deviation needs one pass per bar of the window.
    deviation = torch.zeros_like(mean)
    for offset in range(period):
        deviation += (typical[:, offset : offset + bars] - mean).abs_()
    deviation /= period
    distance, scale = typical[:, period - 1 :] - mean, mean.abs()
    undefined = negligible(distance, scale) | negligible(deviation, scale)
    return torch.where(undefined, 0.0, distance / (0.015 * deviation))


def ultimate(high: Tensor, low: Tensor, close: Tensor, first: int, second: int, third: int) -> Tensor:
    """ULTOSC."""
    before = close[:, :-1]
    bottom = torch.minimum(low[:, 1:], before)
    pressure = close[:, 1:] - bottom
    reach = torch.maximum(high[:, 1:], before) - bottom
    short, middle, long = (
        ratio(window.total(pressure, period), window.total(reach, period)) for period in sorted((first, second, third))
    )
    return 100 * (4 * _last(short, long) + 2 * _last(middle, long) + long) / 7


def momentum(close: Tensor, period: int) -> Tensor:
    """MOM."""
    return close[:, period:] - close[:, :-period]


def rate_of_change(close: Tensor, period: int) -> Tensor:
    """ROC."""
    before = close[:, :-period]
    return 100 * (ratio(close[:, period:], before, 1.0) - 1)


def trix(close: Tensor, period: int) -> Tensor:
    """TRIX."""
    smooth = close
    for _ in range(3):
        smooth = average.exponential(smooth, period)
    return rate_of_change(smooth, 1)


def macd(close: Tensor, fast: int, slow: int, signal: int) -> tuple[Tensor, Tensor, Tensor]:
    """MACD."""
    fast, slow = min(fast, slow), max(fast, slow)
    # The seed of the fast average ends at the first value of the slow average, so the fast average skips early bars.
    quick, calm = average.exponential(close[:, slow - fast :], fast), average.exponential(close, slow)
    line = quick - calm
    smooth = average.exponential(line, signal)
    line = _last(line, smooth)
    return line, smooth, line - smooth


def price_oscillator(close: Tensor, fast: int, slow: int, kind: int) -> Tensor:
    """APO."""
    quick, calm = _fast_and_slow(close, fast, slow, kind)
    return quick - calm


def percentage_price_oscillator(close: Tensor, fast: int, slow: int, kind: int) -> Tensor:
    """PPO."""
    quick, calm = _fast_and_slow(close, fast, slow, kind)
    return torch.where(calm.abs() < _ZERO, 0.0, 100 * ratio(quick - calm, calm))


def aroon(high: Tensor, low: Tensor, period: int) -> tuple[Tensor, Tensor]:
    """AROON: down, up."""
    down = window.bars_since_highest(-low, period + 1)
    up = window.bars_since_highest(high, period + 1)
    return 100 * (period - down) / period, 100 * (period - up) / period


def _place_in_range(high: Tensor, low: Tensor, close: Tensor, period: int) -> Tensor:
    """The position of the close between the window's low (0) and high (100)."""
    top, bottom = window.highest(high, period), window.lowest(low, period)
    return 100 * place(close[:, period - 1 :], bottom, top)


def _fast_and_slow(close: Tensor, fast: int, slow: int, kind: int) -> tuple[Tensor, Tensor]:
    """The fast and the slow average, from the first value of the slow average."""
    calm = average.of_kind(close, max(fast, slow), kind)
    return _last(average.of_kind(close, min(fast, slow), kind), calm), calm


def _last(x: Tensor, like: Tensor) -> Tensor:
    """The last bars of x, as many as `like` has."""
    return x[:, x.shape[1] - like.shape[1] :]
