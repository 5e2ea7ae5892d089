"""Indicators of price and volume over [rows, bars].

Each result starts at the first bar with a value in TA-Lib. Functions take inputs and parameters in TA-Lib's order.
"""

import torch
from torch import Tensor

from models.indicators.kernels import recurrence, window
from models.indicators.kernels.ratio import negligible, ratio


def on_balance(close: Tensor, volume: Tensor) -> Tensor:
    """OBV."""
    signed = torch.cat([volume[:, :1], close.diff().sign_() * volume[:, 1:]], 1)
    return signed.cumsum(1)


def accumulation(high: Tensor, low: Tensor, close: Tensor, volume: Tensor) -> Tensor:
    """AD."""
    return (ratio((close - low) - (high - close), high - low) * volume).cumsum(1)


def accumulation_oscillator(high: Tensor, low: Tensor, close: Tensor, volume: Tensor, fast: int, slow: int) -> Tensor:
    """ADOSC: both averages are seeded with the accumulation of the first bar."""
    line = accumulation(high, low, close, volume)
    quick, calm = (_from_first(line, 2 / (period + 1)) for period in (fast, slow))
    return (quick - calm)[:, max(fast, slow) - 1 :]


def money_flow(high: Tensor, low: Tensor, close: Tensor, volume: Tensor, period: int) -> Tensor:
    """MFI."""
    typical = (high + low + close) / 3
    change, flow = typical.diff(), typical[:, 1:] * volume[:, 1:]
    flow = torch.where(negligible(change, typical[:, 1:] + typical[:, :-1]), 0.0, flow)
    inflow = window.total(torch.where(change > 0, flow, 0.0), period)
    both = window.total(flow, period)
    return 100 * ratio(inflow, both)


def volume_weighted(close: Tensor, volume: Tensor, period: int) -> Tensor:
    """VWMA; NaN, as in TA-Lib, for a window without volume."""
    if period == 1:
        return close
    return window.total(close * volume, period) / window.total(volume, period)


def volume_weighted_from_start(high: Tensor, low: Tensor, close: Tensor, volume: Tensor) -> Tensor:
    """VWAP, anchored at the panel's first bar."""
    typical = (high + low + close) / 3
    return ratio((typical * volume).cumsum(1), volume.cumsum(1))


def _from_first(x: Tensor, weight: float) -> Tensor:
    return recurrence.constant(x, 1 - weight, weight, x[:, 0])
