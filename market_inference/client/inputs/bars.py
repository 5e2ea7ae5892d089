"""Bars of instruments, from the data of users.

Owns the recognition of bars. One instrument: a mapping, a frame or rows with the columns open, high, low, close and
volume under any usual name, or the closes alone. Many instruments: a mapping of symbol to bars, a list of bars, a long
frame with a column of symbols, and yfinance's frame with two levels of columns.
"""

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import repeat
from typing import Any

import numpy as np

from market_inference.client.inputs import names
from market_inference.client.inputs.arguments import number, refuse
from market_inference.client.inputs.column import as_array, column
from market_inference.client.inputs.items import NO_SOURCE, Given, Panel, refuse_twins
from market_inference.client.inputs.names import BAR_COLUMNS
from market_inference.client.inputs.series import (
    SHORTEST,
    are_short_rows,
    by_symbol,
    has_nan,
    index_rows,
    is_flat,
    row_label,
)
from market_inference.client.inputs.table import Rows, Table, rows_of, table_of, take
from market_inference.client.inputs.times import are_times
from market_inference.errors import ArgumentError

FIELD = "bars"
ALL = frozenset(BAR_COLUMNS)
_DOUBLES = np.dtype(np.float64)


def panels(bars: Any, wanted: Collection[str] = ALL) -> Given[Panel]:
    """Bars of one instrument, or of many, with the wanted columns and the close.

    Raises ArgumentError.
    """
    if is_flat(bars):
        return Given((_closes(bars, "", "close"),), single=True)
    if type(bars) is dict and len(bars) <= len(ALL) and (plain := _plain([bars], ("",), wanted)) is not None:
        return Given(tuple(plain), single=True)
    table = table_of(bars)
    if table is not None and any(isinstance(name, tuple) for name in table.columns):
        return Given.of(_panel(part, symbol, wanted, shared=True) for symbol, part in _by_level(table))
    if table is not None and "symbol" in table.fields.values() and _has_prices(table):
        parts = list(by_symbol(table))
        return Given.of(_panel(part, symbol, wanted) for symbol, part in parts)
    if table is not None and _is_one(table, FIELD):
        return Given((_panel(table, table.symbol, wanted),), single=True)
    if table is not None:
        return Given.of(_of_symbols(table, wanted))
    members = _members(bars)
    if members is not None and (plain := _plain(members, repeat(""), wanted)) is not None:
        return Given.of(plain)
    if members is not None:
        return Given.of(_panel_of(one, "", f"{FIELD}[{at}]", wanted) for at, one in enumerate(members))
    return Given((_closes(bars, "", "close"),), single=True)


def _has_prices(table: Table) -> bool:
    fields = set(table.fields.values())
    return "close" in fields or names.are_bars(fields)


def _is_one(table: Table, where: str) -> bool:
    """Whether a table holds the bars of one instrument. Raises ArgumentError for bars without a close."""
    fields = set(table.fields.values())
    if "close" in fields:
        return True
    if not names.are_bars(fields):
        return False
    adjusted = table.named("adjusted close")
    way = f"; to use {adjusted!r}, rename it to 'close'" if adjusted is not None else ""
    raise ArgumentError(where, f"no column 'close'; there are {table.names}{way}")


def _of_symbols(table: Table, wanted: Collection[str]) -> Iterable[Panel]:
    """A mapping of symbol to bars, or a wide frame with the closes of a symbol in each column."""
    if not table.columns:
        raise ArgumentError(FIELD, "expected the bars of at least one instrument, got none")
    time = table.named("time")
    if table.index is None and time is None:
        if (plain := _plain(list(table.columns.values()), map(str, table.columns), wanted)) is not None:
            return plain
        return [_panel_of(one, str(name), str(name), wanted) for name, one in table.columns.items()]
    rest = table.without(time)
    rows = rows_of(table, FIELD)
    return [
        _kept({"close": _ordered(values, rows, str(name))}, str(name), rows, shared=len(rest.columns) > 1)
        for name, values in rest.columns.items()
    ]


def _by_level(table: Table) -> Iterable[tuple[str, Table]]:
    """The tables of a frame with columns (field, ticker) or (ticker, field), as made by yfinance."""
    columns = {name: values for name, values in table.columns.items() if isinstance(name, tuple)}
    for level in (0, 1):
        if columns and all(len(name) == 2 and names.field_of(name[level]) for name in columns):
            parts: dict[str, dict[Hashable, Any]] = {}
            refuse_twins([str(symbol) for symbol in {name[1 - level] for name in columns}])
            for name, values in columns.items():
                parts.setdefault(str(name[1 - level]), {})[name[level]] = values
            return [(symbol, replace(table, columns=part)) for symbol, part in parts.items()]
    raise ArgumentError(
        "columns",
        f"the columns have several levels, and none of them holds open, high, low, close and volume: {table.names}",
    )


def _members(values: Any) -> list[Any] | None:
    """The bars inside a list, or the rows of a 2-D array; None for one column of closes."""
    if isinstance(values, list | tuple):
        first: Any = values[0] if values else None
        nested = table_of(first) is not None or (not isinstance(first, str) and np.ndim(first) > 0)
        if nested and all(np.ndim(member) == 1 and len(member) == 1 for member in values):
            return None
        if not nested or not are_short_rows(values, SHORTEST):
            return list(values) if nested else None
        shape: tuple[int, ...] = (len(values), len(values[0]))
    else:
        shape = np.shape(values)
    if len(shape) < 2 or shape[1] == 1:
        return None
    raise ArgumentError(
        FIELD,
        f"shape {shape}: give the columns by name, such as "
        '{"open": a[:, 0], "high": a[:, 1], "low": a[:, 2], "close": a[:, 3]}, rows of time (epoch), open, high, low, '
        "close, volume, or a list of closes for many instruments",
    )


def _panel_of(bars: Any, symbol: str, where: str, wanted: Collection[str]) -> Panel:
    """The bars of one instrument among several."""
    table = None if is_flat(bars) else table_of(bars)
    if table is None:
        return _closes(bars, symbol, f"{where}.close")
    return _panel(table, symbol, wanted, where=where)


def _plain(members: Sequence[Any], symbols: Iterable[str], wanted: Collection[str]) -> list[Panel] | None:
    """The panels of the usual case, mappings of the same names to float64 arrays without missing values.

    None for any other data. A single pass over the arrays, since a universe has thousands of arrays.
    """
    first = members[0]
    fields = names.fields_of(first) if type(first) is dict else {}
    named = {field: name for name, field in fields.items()}
    if "close" not in named or len(named) < len(fields) or not ALL.issuperset(named):
        return None
    chosen = [
        (field, named[field]) for field in BAR_COLUMNS if field in named and (field == "close" or field in wanted)
    ]
    found = []
    for one, symbol in zip(members, symbols, strict=False):
        if type(one) is not dict or one.keys() != first.keys():
            return None
        columns = {field: one[name] for field, name in chosen}
        if any(type(values) is not np.ndarray or values.shape != columns["close"].shape for values in columns.values()):
            return None
        if any(values.dtype != _DOUBLES or values.ndim != 1 or has_nan(values) for values in columns.values()):
            return None
        found.append(Panel(columns, None, NO_SOURCE.named(symbol)))
    return found


def _panel(table: Table, symbol: str, wanted: Collection[str], *, shared: bool = False, where: str = "") -> Panel:
    """One instrument's table as a panel; `shared`: other instruments have the same rows."""
    prefix = where or symbol
    if not _is_one(table, prefix or FIELD):
        raise ArgumentError(prefix or FIELD, f"no column 'close'; there are {table.names}")
    if table.index is None and table.named("time") is None and isinstance(table.columns, Mapping):
        rows = index_rows(table.columns[table.named("close")], prefix, symbol)  # each column has its own index
    else:
        rows = rows_of(table, prefix, symbol)
    columns = {}
    for name, field in table.fields.items():
        if field in BAR_COLUMNS and (field == "close" or field in wanted):
            if field in columns:
                table.named(field)
            columns[field] = _ordered(table.columns[name], rows, f"{prefix}.{name}" if prefix else str(name))
    return _kept({name: columns[name] for name in BAR_COLUMNS if name in columns}, symbol, rows, shared=shared)


def _closes(values: Any, symbol: str, where: str) -> Panel:
    rows = index_rows(values, where, symbol)
    return _kept({"close": _ordered(values, rows, where)}, symbol, rows, shared=False)


def _ordered(values: Any, rows: Rows, where: str) -> Any:
    found = column(values, where)
    return found if rows.positions is None else found[rows.positions]


def _kept(columns: dict[str, Any], symbol: str, rows: Rows, *, shared: bool) -> Panel:
    """The bars of one instrument.

    In a table of several instruments, a row without any price of an instrument is no bar of the instrument, as on a
    holiday of the exchange. Other missing values are sent: the service refuses missing values.
    """
    source, instants = rows.source.named(symbol), rows.instants
    sizes = {name: len(values) for name, values in columns.items()}
    if len(set(sizes.values())) > 1:
        text = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise ArgumentError(symbol or FIELD, f"columns of different lengths: {text}")
    if not any(map(has_nan, columns.values())):
        return Panel(columns, instants, source)
    prices = [values for name, values in columns.items() if name != "volume"]
    absent = np.isnan(prices).all(axis=0)
    if shared and absent.any() and not absent.all():
        kept = np.flatnonzero(~absent)
        columns = {name: values[kept] for name, values in columns.items()}
        instants = None if instants is None else instants[kept]
        source = replace(source, index=take(source.index, kept)).noting(
            f"{symbol}: {int(absent.sum())} rows without its prices were left out", usual=True
        )
    holes = np.flatnonzero(np.isnan(list(columns.values())).any(axis=0))[:3]
    return Panel(columns, instants, replace(source, missing=tuple(row_label(source, at) for at in holes)))


def row(bar: Any) -> tuple[dict[str, float], Any]:
    """One bar for a live session: the values by field, and the time, None for a bar without a time.

    A number is the close. Mappings, rows of pandas and polars frames, named tuples, and an exchange's rows
    [time, open, high, low, close, volume] give the fields by name. Raises ArgumentError.
    """
    found = _fields_of_row(bar)
    if found is None:
        if np.ndim(bar) != 0:
            raise refuse(
                "bar", "a close, a mapping with columns of the session, or [time, open, high, low, close, volume]", bar
            )
        return {"close": _value(bar, "bar", "a close or a mapping")}, None
    values, time = found
    fields = names.fields_of(values)
    named: dict[str, float] = {}
    for name, field in fields.items():
        if field in BAR_COLUMNS:
            if field in named:
                raise ArgumentError("bar", f"two fields are {field}: {', '.join(map(str, values))}")
            named[field] = _value(_scalar(values[name]), f"bar.{name}", "a number")
    if time is None:
        time = next((values[name] for name, field in fields.items() if field == "time"), None)
    if not named:
        given = ", ".join(map(str, values)) or "nothing"
        raise ArgumentError("bar", f"no field of a bar in {given}; the fields are {', '.join(BAR_COLUMNS)}")
    return named, time


def _value(value: Any, field: str, expected: str) -> float:
    """A finite number; text is refused, as in columns."""
    if isinstance(value, str):
        raise refuse(field, expected, value)
    if isinstance(value, float | np.floating) and not np.isfinite(value):
        raise refuse(field, "a finite number", value)
    return number(value, field, expected)


def _fields_of_row(bar: Any) -> tuple[dict[Hashable, Any], Any] | None:
    if isinstance(bar, Mapping):
        return dict(bar), None
    if hasattr(bar, "columns") and len(bar) == 1:  # a frame of one row
        index = getattr(bar, "index", None)
        labels = [] if index is None else [label for label in index if _is_time(label)]
        return {name: as_array(bar[name], "bar")[0] for name in bar.columns}, labels[0] if labels else None
    if hasattr(bar, "_asdict"):  # a named tuple, as itertuples() gives: Index is the frame's index
        values = bar._asdict()
        index = values.pop("Index", None)
        return values, index if _is_time(index) else None
    if hasattr(bar, "index") and hasattr(bar, "keys"):  # a row of a pandas frame: the name is the index label
        name = getattr(bar, "name", None)
        return {key: bar[key] for key in bar.keys()}, name if _is_time(name) else None  # noqa: SIM118
    table = table_of([bar]) if isinstance(bar, list | tuple | np.ndarray) else None
    if table is None:
        return None
    return {name: values[0] for name, values in table.columns.items()}, None


def _is_time(label: Any) -> bool:
    return label is not None and not isinstance(label, int | float) and are_times(np.array([label], dtype=object))


def _scalar(value: Any) -> Any:
    array = as_array(value, "bar")
    return array.reshape(-1)[0] if array.size == 1 else value
