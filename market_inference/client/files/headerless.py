"""Names for the columns of a table without a header: Binance klines, MetaTrader 4, Kraken, ccxt, date and price.

Owns the known orders of columns. An order is accepted only if every row fits: high is the largest and low the smallest
price. Where several orders fit and would give different bars, opens that continue the closes before decide, or
the user.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, TypeAlias

from market_inference.client.files import instants
from market_inference.client.files.error import FileError
from market_inference.client.files.instants import looks_like_clock, looks_like_epoch, looks_like_time

_Order: TypeAlias = tuple[str, str, str, str]
_ORDERS: Final[Sequence[_Order]] = (
    ("open", "high", "low", "close"),
    ("open", "close", "high", "low"),
    ("close", "open", "high", "low"),
    ("low", "high", "open", "close"),
)
"""Most vendors; Bitfinex; Investing.com; Coinbase."""
_KLINES = ("open time", "open", "high", "low", "close", "volume", "close time")
_OPTION = (
    "the file has no header line; give --columns time=1,open=2,high=3,low=4,close=5 with the numbers of the columns"
)
# Steps that choose an order, at least, and how many times as large the gaps are in every other order. So at most one in
# 10,000 random walks with gaps of any size is read in the wrong order.
_LEAST_STEPS = 10
_CLEARLY = 2.0


def columns(
    rows: Sequence[Sequence[str]], values: Sequence[Sequence[float]], date_format: str | None = None
) -> list[str]:
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
    order = _decided(fitting, [" ".join(row[: len(leading)]) for row in rows], date_format)
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


def _decided(fitting: dict[_Order, list[list[float]]], times: Sequence[str], date_format: str | None) -> _Order:
    """The order whose opens continue the closes before. Raises FileError where no order clearly does."""
    distinct = {str(bars): order for order, bars in reversed(fitting.items())}
    if len(distinct) == 1:
        return next(iter(fitting))
    newest_first = False
    if times[0]:
        read = instants.read(times, range(1, len(times) + 1), date_format).instants
        newest_first = bool(read[0] > read[-1])
    gaps = sorted((_gaps(fitting[order], newest_first=newest_first), order) for order in distinct.values())
    (least, order), (second, _) = gaps[:2]
    if len(times) <= _LEAST_STEPS or not _CLEARLY * least < second:
        raise FileError(f"several orders of columns fit; {_OPTION}")
    return order


def _gaps(bars: Sequence[Sequence[float]], *, newest_first: bool) -> float:
    """The sum of the distances between the opens and the closes before."""
    steps = [abs(later[0] - earlier[3]) for earlier, later in pairwise(bars[::-1] if newest_first else bars)]
    return sum(step for step in steps if step == step)
