"""The table from TA-Lib's names to kernels, and running one call over a batch.

Owns the decision between kernel and TA-Lib, and the NaN warm-up before the results.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from models.indicators.kernels import average, oscillator, parabolic, trend, volume
from models.indicators.program import Call

Kernel = Callable[..., Tensor | tuple[Tensor, ...]]
"""Takes the inputs [rows, bars] and the parameters in TA-Lib's order; returns outputs [rows, bars - lookback]."""

KERNELS: Mapping[str, Kernel] = MappingProxyType(
    {
        "AD": volume.accumulation,
        "ADOSC": volume.accumulation_oscillator,
        "ADX": trend.average_directional_index,
        "APO": oscillator.price_oscillator,
        "AROON": oscillator.aroon,
        "ATR": trend.average_true_range,
        "BBANDS": trend.bollinger,
        "CCI": oscillator.commodity_channel,
        "DEMA": average.double_exponential,
        "DX": trend.directional_index,
        "EMA": average.exponential,
        "KAMA": average.adaptive,
        "LINEARREG": trend.linear_regression,
        "MA": average.of_kind,
        "MACD": oscillator.macd,
        "MFI": volume.money_flow,
        "MINUS_DI": trend.minus_directional,
        "MOM": oscillator.momentum,
        "NATR": trend.normalized_average_true_range,
        "OBV": volume.on_balance,
        "PLUS_DI": trend.plus_directional,
        "PPO": oscillator.percentage_price_oscillator,
        "ROC": oscillator.rate_of_change,
        "RSI": oscillator.rsi,
        "SAR": parabolic.stop_and_reverse,
        "SMA": average.simple,
        "STDDEV": trend.standard_deviation,
        "STOCH": oscillator.stochastic,
        "STOCHF": oscillator.fast_stochastic,
        "STOCHRSI": oscillator.stochastic_rsi,
        "TEMA": average.triple_exponential,
        "TRANGE": trend.true_range,
        "TRIX": oscillator.trix,
        "ULTOSC": oscillator.ultimate,
        "VWAP": volume.volume_weighted_from_start,
        "VWMA": volume.volume_weighted,
        "WILLR": oscillator.williams,
        "WMA": average.linear,
    }
)


_SEQUENTIAL = frozenset({"SAR"})
_SEQUENTIAL_PAYS_FROM = 16_384
"""Rows above which a kernel with a loop over bars is faster than TA-Lib. Such a kernel costs about twenty launches of
5 us per bar, for any number of rows; TA-Lib costs about 5 ns per bar and row. An estimate, not measured on a GPU."""


def supports(call: Call) -> bool:
    """Whether a kernel can compute the call: a kernel exists, and supports the call's kinds of moving average."""
    kinds = (
        value
        for value, parameter in zip(call.values, call.function.parameters, strict=True)
        if parameter.moving_average
    )
    return call.function.name in KERNELS and all(int(kind) in average.KINDS for kind in kinds)


def pays(call: Call, rows: int) -> bool:
    """Whether a kernel can compute the call, and is faster than TA-Lib for this number of rows."""
    return supports(call) and (rows >= _SEQUENTIAL_PAYS_FROM or call.function.name not in _SEQUENTIAL)


def compute(call: Call, inputs: Sequence[Tensor], out: Tensor) -> None:
    """Compute a call over inputs [rows, bars] float64 into out [rows, outputs, bars], NaN during warm-up."""
    bars = out.shape[2]
    out[:, :, : call.lookback] = torch.nan
    if bars <= call.lookback:
        return
    values = (
        int(value) if parameter.integer else value
        for value, parameter in zip(call.values, call.function.parameters, strict=True)
    )
    results = KERNELS[call.function.name](*inputs, *values)
    for index, result in enumerate((results,) if isinstance(results, Tensor) else results):
        out[:, index, call.lookback :] = result
