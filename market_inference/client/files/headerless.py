"""Names for the columns of a table without a header: Binance klines, MetaTrader 4, Kraken, ccxt, date and price.

Owns the known orders of columns. An order is accepted only if every row fits: high is the largest and low the smallest
price. Where several orders fit and would give different bars, the user decides.
"""

import re
from collections.abc import Sequence

from market_inference.client.files.error import FileError
from market_inference.client.files.instants import looks_like_clock, looks_like_epoch, looks_like_time

_ORDERS = (
    ("open", "high", "low", "close"),
    ("open", "close", "high", "low"),
    ("low", "high", "open", "close"),
)
"""Most vendors; Bitfinex; Coinbase."""
_KLINES = ("open time", "open", "high", "low", "close", "volume", "close time")
_OPTION = (
    "the file has no header line; give --columns time=1,open=2,high=3,low=4,close=5 with the numbers of the columns"
)


def columns(rows: Sequence[Sequence[str]], values: Sequence[Sequence[float]]) -> list[str]:
    """Names for the columns. `values`: the rows as numbers, NaN for other cells. Raises FileError."""
    width = len(rows[0])
    leading = _leading(rows)
    if width in (11, 12) and leading == ["time"] and looks_like_epoch(rows[0][0]) and looks_like_epoch(rows[0][6]):
        return [*_KLINES, *[f"column {at}" for at in range(8, width + 1)]]
    rest = width - len(leading)
    if rest == 1:
        return [*leading, "close"]
    if rest < 4:
        raise FileError(_OPTION)
    prices = [row[len(leading) : len(leading) + 4] for row in values]
    fitting = {order: _arranged(prices, order) for order in _ORDERS if _fits(prices, order)}
    if not fitting:
        raise FileError(_OPTION)
    if len({str(arranged) for arranged in fitting.values()}) > 1:
        raise FileError(f"several orders of columns fit; {_OPTION}")
    order = next(iter(fitting))
    names = [*leading, *order]
    after = len(names)
    if after < width:
        volume = after
        if after + 1 < width and all(min(p) <= row[after] <= max(p) for p, row in zip(prices, values, strict=True)):
            names.append("vwap")
            volume += 1
        names.append("volume")
    return [*names, *[f"column {at + 1}" for at in range(len(names), width)]]


def _leading(rows: Sequence[Sequence[str]]) -> list[str]:
    """The names of the columns before the prices: a time, a date and a time of day, or nothing."""
    first = [row[0] for row in rows]
    dated = all(
        looks_like_time(cell) or looks_like_epoch(cell) or re.fullmatch(r"(19|20)\d{6}", cell) for cell in first
    )
    if not dated:
        return []
    if len(rows[0]) > 2 and all(":" in row[1] and looks_like_clock(row[1]) for row in rows):
        return ["date", "time"]
    return ["time"]


def _fits(prices: Sequence[Sequence[float]], order: Sequence[str]) -> bool:
    high, low = order.index("high"), order.index("low")
    return all(row[high] >= max(row) and row[low] <= min(row) for row in prices if all(x == x for x in row))


def _arranged(prices: Sequence[Sequence[float]], order: Sequence[str]) -> list[list[float]]:
    places = [order.index(name) for name in ("open", "high", "low", "close")]
    return [[row[at] for at in places] for row in prices]
