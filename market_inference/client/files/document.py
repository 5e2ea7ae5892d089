"""Tables in JSON: records, rows, columns, and objects by date, at any depth of a document.

Owns the forms of Alpha Vantage, Polygon, Yahoo, Finnhub, Twelve Data, Kraken, Binance, ccxt, Tushare and pandas.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from market_inference.client.files import names
from market_inference.client.files.error import FileError
from market_inference.client.files.grid import Grid, check_size
from market_inference.client.files.instants import looks_like_time

_MESSAGES = ("Error Message", "Note", "Information", "error", "message", "msg", "detail")
_SYMBOLS = ("symbol", "ticker", "2. symbol", "2. digital currency code", "pair")
_PREFERRED = ("prices", "ohlc", "ohlcv", "candles", "bars")
"""Keys that decide between tables of equal length, such as CoinGecko's `prices` and `market_caps`."""
_DEPTH = 8
_MOST_EMPTY = 1 << 16
_SPARSEST = 8
"""Cells of a table with records for each value; smaller tables (_MOST_EMPTY) may hold fewer values."""


def read(text: str) -> tuple[Grid, str]:
    """The table in a JSON document or in JSON lines, and the symbol in the document or "". Raises FileError."""
    document = _loaded(text)
    found = list(_tables(document, 0, ""))
    usable = [(key, grid) for key, grid in found if grid.headerless or any(names.role(name) for name in grid.names)]
    if not usable:
        message = _message(document)
        raise FileError(f"the JSON holds no bars{f'; the service said: {message[:200]}' if message else ''}")
    if len(usable) > 1:
        largest = max(len(grid.rows) for _, grid in usable)
        best = [(key, grid) for key, grid in usable if len(grid.rows) == largest]
        usable = [(key, grid) for key, grid in best if key in _PREFERRED] if len(best) > 1 else best
        if len(usable) != 1:
            raise FileError("the JSON holds several tables; save the bars of one instrument")
    grid = usable[0][1]
    grid.details["format"] = "JSON"
    return grid, _symbol(document)


def _loaded(text: str) -> Any:
    check_size(text.count("{") + text.count("["), text.count(","))
    try:
        return _parsed(text)
    except RecursionError:
        raise FileError("the JSON is nested too deeply") from None
    except ValueError as error:
        records = [line for line in text.splitlines() if line.strip()]
        try:
            if len(records) > 1:
                return [_parsed(line) for line in records]
        except (ValueError, RecursionError):
            pass
        raise FileError(f"not valid JSON: {error}") from None


def _parsed(text: str) -> Any:
    """JSON with numbers as text, so that digits are kept."""
    return json.loads(text, parse_float=str, parse_int=str, parse_constant=str)


def _tables(value: Any, depth: int, key: str) -> Iterator[tuple[str, Grid]]:
    """All tables in a value, with the key of each in the object around."""
    if depth > _DEPTH:
        return
    if isinstance(value, list) and value:
        if all(isinstance(one, dict) for one in value):
            if any(
                names.role(key) not in (None, "symbol") and not isinstance(one, list | dict)
                for key, one in value[0].items()
            ):
                yield key, _of_records(value)
                return
        elif _rows(value):
            yield key, _of_rows(value)
            return
        for one in value:
            yield from _tables(one, depth + 1, key)
    elif isinstance(value, dict):
        grid = _of_object(value)
        if grid is not None:
            yield key, grid
            return
        for name, one in value.items():
            yield from _tables(one, depth + 1, name)


def _rows(value: Sequence[Any]) -> bool:
    return all(isinstance(one, list) and len(one) >= 2 for one in value) and not any(
        isinstance(cell, list | dict) for one in value for cell in one
    )


def _of_object(value: Mapping[str, Any]) -> Grid | None:
    """A table in one object: columns, labelled rows, objects by date, or Yahoo's chart."""
    if isinstance(value.get("timestamp"), list) and isinstance(value.get("indicators"), dict):
        return _of_chart(value)
    for labels, rows in (("columns", "data"), ("fields", "items"), ("columns", "values")):
        if isinstance(value.get(labels), list) and isinstance(value.get(rows), list):
            index = value.get("index")
            grid = _of_rows(value[rows], [str(label) for label in value[labels]])
            if isinstance(index, list) and len(index) == len(grid.rows):
                grid.names.insert(0, "date")
                for row, cell in zip(grid.rows, index, strict=True):
                    row.insert(0, _text(cell))
            return grid
    members = list(value.values())
    if len(value) > 1 and all(isinstance(one, dict) for one in members) and _times(value):
        return _of_records([{"date": time, **one} for time, one in value.items()])
    if value and all(isinstance(one, dict) and one for one in members) and _times(members[0]):
        columns = {name: one for name, one in value.items() if names.role(name)}
        if columns:
            keys = list(members[0])
            _check_filled(len(keys) * len(columns), sum(map(len, columns.values())))
            return _of_records([{"date": key, **{n: one.get(key) for n, one in columns.items()}} for key in keys])
    lists = {
        name: one
        for name, one in value.items()
        if isinstance(one, list) and one and not isinstance(one[0], list | dict)
    }
    if sum(names.role(name) is not None for name in lists) >= 2:
        return _of_lists(lists)
    return None


def _times(value: Mapping[str, Any]) -> bool:
    keys = list(value)
    return bool(keys) and all(looks_like_time(key) or (key.isdigit() and len(key) >= 8) for key in (keys[0], keys[-1]))


def _of_chart(value: Mapping[str, Any]) -> Grid:
    quote = (value["indicators"].get("quote") or [{}])[0]
    adjusted = (value["indicators"].get("adjclose") or [{}])[0]
    lists = {name: one for name, one in {**quote, **adjusted}.items() if isinstance(one, list)}
    return _of_lists({"timestamp": value["timestamp"], **lists})


def _of_lists(columns: Mapping[str, Sequence[Any]]) -> Grid:
    lengths = {len(one) for one in columns.values()}
    if len(lengths) != 1:
        raise FileError("the columns in the JSON have different lengths")
    labels = list(columns)
    rows = [[_text(cell) for cell in row] for row in zip(*columns.values(), strict=True)]
    return Grid(labels, rows, list(range(1, len(rows) + 1)), typed=True)


def _of_records(records: Sequence[Mapping[str, Any]]) -> Grid:
    labels = list(dict.fromkeys(key for record in records for key in record))
    _check_filled(len(labels) * len(records), sum(map(len, records)))
    rows = [[_text(record.get(label)) for label in labels] for record in records]
    return Grid([str(label) for label in labels], rows, list(range(1, len(rows) + 1)), typed=True)


def _check_filled(cells: int, values: int) -> None:
    """Raises FileError for a large table of nearly empty cells: records of other names are the square of their text."""
    if cells > max(_MOST_EMPTY, _SPARSEST * values):
        raise FileError(f"the records in the JSON have few fields in common ({values} values in {cells} cells)")


def _of_rows(rows: Sequence[Sequence[Any]], labels: Sequence[str] | None = None) -> Grid:
    width = len(labels) if labels is not None else len(rows[0])
    for at, row in enumerate(rows, start=1):
        if len(row) != width:
            raise FileError(f"row {at} has {len(row)} fields, the others {width}")
    cells = [[_text(cell) for cell in row] for row in rows]
    grid = Grid(list(labels or [""] * width), cells, list(range(1, len(cells) + 1)), typed=True)
    grid.headerless = labels is None
    return grid


def _text(value: Any) -> str:
    return "" if value is None or isinstance(value, list | dict) else str(value)


def _symbol(document: Any) -> str:
    """A symbol in the document outside of the table, such as Polygon's `ticker`."""
    if isinstance(document, dict):
        for key, value in document.items():
            if key.lower() in _SYMBOLS and isinstance(value, str):
                return value
        for value in document.values():
            if isinstance(value, dict) and not _times(value) and (found := _symbol(value)):
                return found
            if isinstance(value, list) and len(value) == 1 and (found := _symbol(value[0])):
                return found
    return ""


def _message(document: Any) -> str:
    """The text with which a service answers instead of bars: a wrong symbol, a limit, a wrong key."""
    if isinstance(document, dict):
        for key in _MESSAGES:
            value = document.get(key)
            if isinstance(value, str) and value:
                return value
            if value:
                return json.dumps(value)
    return ""
