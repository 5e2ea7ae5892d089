"""How far back a value looks: over the lookback of its call, or over all earlier bars.

Owns the list of functions with unbounded memory. Lookbacks are TA-Lib's, see functions.py.
"""

from models.indicators.program import Call

_UNBOUNDED = (
    "AD ADOSC ADX ADXR ATR CMO CUMSUM CVI DEMA DX EFI EMA ERI HA HT_DCPERIOD HT_DCPHASE HT_PHASOR HT_SINE "
    "HT_TRENDLINE HT_TRENDMODE KAMA KC MACD MACDFIX MAMA MASSI MAXINDEX MININDEX MINMAXINDEX MINUS_DI MINUS_DM NATR "
    "NVI OBV PLUS_DI PLUS_DM PVI PVT RMA RSI RVI SAR SAREXT SMI STOCHRSI SUPERTREND T3 TEMA TRIX TSI VWAP WAD ZLEMA"
)
UNBOUNDED = frozenset(_UNBOUNDED.split())
"""Functions with values that may depend on all earlier bars, for any parameters. MAXINDEX, MININDEX and MINMAXINDEX
depend on earlier bars when two bars are equal."""
_BOUNDED_AVERAGES = frozenset((0.0, 2.0, 5.0))
"""SMA, WMA and TRIMA. A function with any other kind of moving average has unbounded memory."""


def bounded(call: Call) -> bool:
    """Whether the call's newest value depends only on the last lookback + 1 bars."""
    averages = (
        value
        for value, parameter in zip(call.values, call.function.parameters, strict=True)
        if parameter.moving_average
    )
    return call.function.name not in UNBOUNDED and all(kind in _BOUNDED_AVERAGES for kind in averages)
