"""Names of columns as vendors and libraries write them.

Owns the mapping from names to fields of a bar. A symbol may look like such a name (C, O, T, V, LOW and OPEN are listed
companies), so a single match means little: bars.py decides from all names together.
"""

import re
from collections.abc import Hashable, Iterable
from functools import lru_cache

BAR_COLUMNS = ("open", "high", "low", "close", "volume")

_FIELDS = {
    "open": ("open", "open price", "opening price", "px open"),
    "high": ("high", "high price", "px high"),
    "low": ("low", "low price", "px low"),
    "close": ("close", "close price", "closing price", "close/last", "px last"),
    "volume": ("volume", "vol", "tick volume", "tickvol", "px volume"),
    "adjusted close": ("adj close", "adjclose", "adj. close", "adjusted close"),
    "time": ("time", "timestamp", "date", "datetime", "ds", "open time", "trade date"),
    "symbol": ("symbol", "ticker", "tic", "unique id"),
}
_BY_NAME = {name: field for field, names in _FIELDS.items() for name in names}
# Polygon and others: only with all of o, h, l and c, in lower case.
_LETTERS = {"o": "open", "h": "high", "l": "low", "c": "close", "v": "volume", "t": "time"}
_DECORATION = re.compile(r"^\d+[a-z]?\. *|[<>]")


@lru_cache(maxsize=4096)
def field_of(name: Hashable) -> str:
    """The field of a column's name: one of BAR_COLUMNS, "adjusted close", "time" or "symbol"; "" for none."""
    if not isinstance(name, str):
        return ""
    return _BY_NAME.get(" ".join(_DECORATION.sub("", name.strip().lower()).replace("_", " ").split()), "")


def fields_of(names: Iterable[Hashable]) -> dict[Hashable, str]:
    """The fields of a table's columns, for columns with a field."""
    names = list(names)
    found = {name: field for name in names if (field := field_of(name))}
    if {"o", "h", "l", "c"} <= set(names):
        found |= {name: _LETTERS[name] for name in names if isinstance(name, str) and name in _LETTERS}
    return found


def are_bars(fields: Iterable[str]) -> bool:
    """Whether columns of these fields are the bars of one instrument, even if the close is not among them."""
    prices = set(fields) & {*BAR_COLUMNS, "adjusted close"}
    certain = bool(prices & {"close", "adjusted close"}) and len(prices) > 1
    return certain or {"high", "low"} <= prices or len(prices) > 2
