"""Bars for live sessions in the client's form, and TA-Lib's values for the same bars."""

import numpy as np
import talib

HISTORY = 200
NAMES = ["RSI", "MACD", "BBANDS", "ATR", "SMA", "EMA", "STOCH", "OBV"]


def history(market, size=HISTORY):
    return {name: values[:size] for name, values in market.items()}


def bar(market, at):
    return {"time": at + 1, **{name: float(values[at]) for name, values in market.items()}}


def expected(market, last):
    """TA-Lib over the bars up to `last`."""
    upto = {name: values[: last + 1] for name, values in market.items()}
    high, low, close = upto["high"], upto["low"], upto["close"]
    macd, upper = talib.MACD(close), talib.BBANDS(close)
    return {
        "RSI": talib.RSI(close)[-1], "MACD.macd": macd[0][-1], "MACD.macdsignal": macd[1][-1],
        "BBANDS.upperband": upper[0][-1], "ATR": talib.ATR(high, low, close)[-1], "SMA": talib.SMA(close)[-1],
        "EMA": talib.EMA(close)[-1], "STOCH.slowk": talib.STOCH(high, low, close)[0][-1],
        "OBV": talib.OBV(close, upto["volume"])[-1],
    }  # fmt: skip


def assert_fresh(update, market, last):
    want = expected(market, last)
    np.testing.assert_allclose([update[name] for name in want], list(want.values()), rtol=1e-9)
