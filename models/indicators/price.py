"""The price of a TA-Lib call: measured units per bar, and per bar and period.

Owns the constants. A unit is about 10 ns of one CPU core: one bar of a simple function. Most functions take a constant
time per bar. Some functions read the whole window at every bar, always or in the worst case, and cost bars times
period. `python -m benchmarks.indicator_prices` measured the constants: the worst of rising, falling, constant, sawtooth
and random bars.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from models.indicators.functions import Function

_PER_BAR: Mapping[str, float] = MappingProxyType(
    {
        "CORREL": 6.0,
        "HT_DCPERIOD": 7.0,
        "HT_DCPHASE": 70.0,
        "HT_PHASOR": 6.0,
        "HT_SINE": 72.0,
        "HT_TRENDLINE": 8.0,
        "HT_TRENDMODE": 75.0,
        "IMI": 8.0,
        "MAMA": 7.0,
        "PERCENTILE": 4.0,
    }
)
"""Units per bar of functions above the cost of a simple function."""
_MAMA_KIND = 7.0
_PER_MAMA = 7.0
"""The costly kind of moving average, and the units per bar of this kind."""
_CANDLES = "Pattern Recognition"
_PER_CANDLE = 2.0


class _Rate(NamedTuple):
    parameters: tuple[str, ...]
    units: float


_PER_WINDOW: Mapping[str, _Rate] = MappingProxyType(
    {
        "AROON": _Rate(("timeperiod",), 0.14),
        "AROONOSC": _Rate(("timeperiod",), 0.14),
        "AVGDEV": _Rate(("timeperiod",), 0.17),
        "CCI": _Rate(("timeperiod",), 0.17),
        "DONCHIAN": _Rate(("timeperiod",), 0.17),
        "FRACTAL": _Rate(("leftbars", "rightbars"), 0.06),
        "IMI": _Rate(("timeperiod",), 0.14),
        "KDJ": _Rate(("fastk_period",), 0.17),
        "MAXINDEX": _Rate(("timeperiod",), 0.09),
        "MININDEX": _Rate(("timeperiod",), 0.09),
        "MINMAXINDEX": _Rate(("timeperiod",), 0.17),
        "PERCENTILE": _Rate(("timeperiod",), 0.065),
        "PERCENTRANK": _Rate(("timeperiod",), 0.011),
        "SMI": _Rate(("timeperiod",), 0.17),
        "STOCH": _Rate(("fastk_period",), 0.17),
        "STOCHF": _Rate(("fastk_period",), 0.17),
        "STOCHRSI": _Rate(("fastk_period",), 0.17),
        "VHF": _Rate(("timeperiod",), 0.085),
    }
)
"""Units per bar and bar of the window, of functions with a pass over the window at every bar."""


class Price(NamedTuple):
    """The cost of a call: `per_bar` units for every bar, and `per_window` units for every computed value."""

    per_bar: float
    per_window: float


def price(function: Function, values: tuple[float, ...]) -> Price:
    """The price of a function with parameter values in TA-Lib's order."""
    per_bar = _PER_BAR.get(function.name, _PER_CANDLE if function.group == _CANDLES else 1.0)
    named = {parameter.name: value for parameter, value in zip(function.parameters, values, strict=True)}
    kinds = (named[parameter.name] for parameter in function.parameters if parameter.moving_average)
    per_bar += _PER_MAMA * sum(kind == _MAMA_KIND for kind in kinds)
    rate = _PER_WINDOW.get(function.name)
    return Price(per_bar, rate.units * sum(named[name] for name in rate.parameters) if rate else 0.0)
