"""Roles of columns by the names in a header: the names of vendors, brokers and libraries.

Owns the table of names. A name is compared without case, punctuation and leading numbers ("4. close" is "close").
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from market_inference.client.files.error import FileError

_NAMES: Mapping[str, tuple[str, ...]] = {
    "time": (
        "datetime",
        "date time",
        "timestamp",
        "date",
        "time",
        "open time",
        "gmt time",
        "local time",
        "utc time",
        "trade date",
        "trading date",
        "trading day",
        "observation date",
        "candle begin time",
        "window start",
        "ts event",
        "exchange date",
        "start time",
        "begin",
        "datum",
        "fecha",
        "data",
        "日付",
        "unix",
        "unix time",
        "unix timestamp",
        "epoch",
        "t",
        "ts",
        "ds",
        "period start",
        "day",
        "dt",
        "日期",
        "交易日期",
    ),
    "open": (
        "open",
        "o",
        "opening price",
        "open price",
        "openprice",
        "px open",
        "first",
        "eröffnung",
        "eröffn",
        "erster",
        "otwarcie",
        "abertura",
        "aper",
        "始値",
        "apertura",
        "ouverture",
        "开盘",
        "开盘价",
    ),
    "high": (
        "high",
        "h",
        "high price",
        "highprice",
        "day high",
        "px high",
        "max",
        "hoch",
        "tageshoch",
        "najwyższy",
        "najwyzszy",
        "massimo",
        "max price",
        "高値",
        "máximo",
        "plus haut",
        "最高",
        "最高价",
    ),
    "low": (
        "low",
        "l",
        "low price",
        "lowprice",
        "day low",
        "px low",
        "min",
        "tief",
        "tagestief",
        "najniższy",
        "najnizszy",
        "minimo",
        "min price",
        "安値",
        "mínimo",
        "plus bas",
        "最低",
        "最低价",
    ),
    "close": (
        "close",
        "c",
        "close last",
        "closing price",
        "close price",
        "closeprice",
        "px last",
        "last",
        "last price",
        "price",
        "settle",
        "settlement price",
        "value",
        "y",
        "schluss",
        "schlusskurs",
        "zamknięcie",
        "zamkniecie",
        "chiusura",
        "ultimo",
        "fechamento",
        "ltp",
        "終値",
        "zuletzt",
        "schlußkurs",
        "cierre",
        "último",
        "clôture",
        "dernier",
        "收盘",
        "收盘价",
    ),
    "adjusted": ("adj close", "adjclose", "adjusted close", "adj close price", "close adj", "close adjusted"),
    "volume": (
        "volume",
        "v",
        "vol",
        "px volume",
        "total volume",
        "total trade quantity",
        "shares traded",
        "trading volume",
        "volumen",
        "wolumen",
        "volume traded",
        "no of shares",
        "total traded quantity",
        "ttl trd qnty",
        "出来高",
        "umsatz",
        "base volume",
        "tickvol",
        "tick volume",
        "成交量",
    ),
    "symbol": ("symbol", "ticker", "ts code", "unique id", "instrument", "tic", "stock code", "股票代码"),
}
_ROLE_OF = {name: (role, rank) for role, names in _NAMES.items() for rank, name in enumerate(names)}
_NUMBERED = re.compile(r"^\d+[a-z]?\.\s*")
_CURRENCY = re.compile(r"(?<!\s)\s*+\((usd|eur|gbp|jpy|chf|cny|usdt|btc)\)$")


@dataclass(frozen=True, slots=True)
class Roles:
    """Column numbers (from 0) by role. `undecided`: roles with several possible columns, by the names of these."""

    columns: Mapping[str, int]
    undecided: Mapping[str, tuple[str, ...]]


def plain(name: str) -> str:
    """A column's name without case, numbering, brackets and punctuation."""
    text = _NUMBERED.sub("", name.strip().lower())
    text = _CURRENCY.sub("", text)
    return " ".join(re.sub(r"[^\w]+|_+", " ", text).split())


def role(name: str) -> str | None:
    """The role that a name stands for."""
    found = _ROLE_OF.get(plain(name))
    return found[0] if found else None


def assign(names: Sequence[str], given: Mapping[str, str | int]) -> Roles:
    """The column of every role; `given` decides first. Raises FileError for a given column that does not exist."""
    columns = {wanted: find(names, column, f"--columns {wanted}=") for wanted, column in given.items()}
    taken = set(columns.values())
    ranked: dict[str, list[tuple[int, int]]] = {}
    for at, name in enumerate(names):
        found = _ROLE_OF.get(plain(name))
        if found and at not in taken and found[0] not in columns:
            ranked.setdefault(found[0], []).append((found[1], at))
    undecided: dict[str, tuple[str, ...]] = {}
    for wanted, places in ranked.items():
        best = min(places)[0]
        equal = [at for rank, at in places if rank == best]
        if wanted == "time":
            columns["time"] = equal[0]
            if len(places) > 1 and "clock" not in columns:
                _add_clock(names, columns, [at for _, at in places])
        elif len(equal) == 1:
            columns[wanted] = equal[0]
        else:
            undecided[wanted] = tuple(f"{names[at]} (column {at + 1})" for at in equal)
    if "volume" not in columns and "volume" not in undecided:
        _add_volume(names, columns, undecided, taken)
    return Roles(columns, undecided)


def find(names: Sequence[str], wanted: str | int, option: str = "") -> int:
    """The place of a column given by name (in any case) or by number from 1. Raises FileError."""
    text = str(wanted).strip()
    exact = [at for at, name in enumerate(names) if name.strip() == text]
    matching = exact or [at for at, name in enumerate(names) if name.strip().lower() == text.lower()]
    matching = matching or [at for at, name in enumerate(names) if name and plain(name) == plain(text)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        places = " and ".join(str(at + 1) for at in matching)
        raise FileError(f"{option}{text}: the columns {places} have this name; give the number of the column")
    if text.isdecimal() and 1 <= int(text) <= len(names):
        return int(text) - 1
    raise FileError(f"{option}{text}: no column {text!r}; there are {listed(names)}")


def listed(names: Sequence[str]) -> str:
    """The names of columns for a message; a column without a name by number."""
    shown = [name.strip().lower() or f"column {at + 1}" for at, name in enumerate(names)]
    return ", ".join(shown[:20]) + (", ..." if len(shown) > 20 else "")


def _add_clock(names: Sequence[str], columns: dict[str, int], places: list[int]) -> None:
    """A column `Time` beside a column `Date` may hold the time of day; the reader of times decides by the cells."""
    by_name = {plain(names[at]): at for at in places}
    if "date" in by_name and "time" in by_name:
        columns["time"], columns["clock"] = by_name["date"], by_name["time"]


def _add_volume(
    names: Sequence[str], columns: dict[str, int], undecided: dict[str, tuple[str, ...]], taken: set[int]
) -> None:
    """A column such as `Volume BTC`. With several (`Volume BTC`, `Volume USD`), the choice is the user's."""
    places = [at for at, name in enumerate(names) if at not in taken and plain(name).startswith(("volume ", "vol "))]
    if len(places) == 1:
        columns["volume"] = places[0]
    elif places:
        undecided["volume"] = tuple(f"{names[at]} (column {at + 1})" for at in places)
