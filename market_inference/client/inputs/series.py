"""Series to forecast, from the data of users.

Owns the recognition of a single series or many: a list, an array or a frame's column; a mapping or a wide frame of
symbol to values; a long frame with columns unique_id, ds and y; a list of series; a 2-D array with a series in a row.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from market_inference.client.arrays import Floats
from market_inference.client.inputs import axes, names, times
from market_inference.client.inputs.column import as_array, column
from market_inference.client.inputs.items import NO_SOURCE, Given, Series, Source, refuse_twins
from market_inference.client.inputs.table import Rows, Table, library_of, rows_of, table_of, take
from market_inference.contract import methods
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.errors import ArgumentError

FIELD = "series"
_SHOWN_LABELS = 3
_DOUBLES = np.dtype(np.float64)
_WITHOUT_INDEX = (np.ndarray, np.ma.MaskedArray, list, tuple)
SHORTEST = int(methods.field_rules(pb.Series.DESCRIPTOR.fields_by_name["values"]).repeated.min_items)
"""Values that the contract asks of a series."""


def series(values: Any) -> Given[Series]:
    """The series in the data of a user. Raises ArgumentError."""
    if is_flat(values):
        return Given(tuple(_plain([values]) or (_one(values, "", ""),)), single=True)
    table = table_of(values)
    if table is not None:
        return Given.of(_of_table(table))
    members = _members(values)
    if members is not None:
        plain = _plain(members)
        read = (_one(member, "", f"{FIELD}[{at}]") for at, member in enumerate(members)) if plain is None else plain
        return Given.of(read, axes.doubts(values))
    return Given((_one(values, "", ""),), single=True)


def _plain(members: list[Any]) -> list[Series] | None:
    """The series of the usual case, float64 arrays without missing values; None for any other data.

    Looks once at an array, since a universe has thousands of arrays.
    """
    if any(type(one) is not np.ndarray or one.ndim != 1 or one.dtype != _DOUBLES for one in members):
        return None
    return None if any(map(has_nan, members)) else [Series(one, NO_SOURCE) for one in members]


def has_nan(values: Floats) -> bool:
    """Squares sum up to NaN for NaN alone, in half of isnan()'s time. dot() would warn of squares above 1e308."""
    return math.isnan(np.vdot(values, values))


def _of_table(table: Table) -> Iterable[Series]:
    fields = set(table.fields.values())
    if not table.columns:
        raise ArgumentError(FIELD, "expected at least one series, got none")
    if any(isinstance(name, tuple) for name in table.columns):
        raise ArgumentError(
            FIELD,
            "the columns have several levels: give a frame with a column for each symbol, such as data['Close'] of "
            "yfinance",
        )
    if names.are_bars(fields):
        raise ArgumentError(
            FIELD,
            f"these are one instrument's bars ({table.names}): give the column to forecast, such as bars['close']",
        )
    if "symbol" in fields:
        return _long(table)
    wide = table.without(table.named("time"))
    if not wide.columns:
        raise ArgumentError(FIELD, f"no column of numbers; there are {table.names}")
    if table.index is None and len(wide.columns) == len(table.columns):
        return [_one(values, str(name), str(name)) for name, values in wide.columns.items()]
    rows = rows_of(table, FIELD)
    several = len(wide.columns) > 1
    return [_cleaned(values, str(name), rows, of_several=several) for name, values in wide.columns.items()]


def _long(table: Table) -> Iterable[Series]:
    """A long frame: a row per symbol and time, and a single column of values."""
    key, time = table.named("symbol"), table.named("time")
    values = [name for name in table.columns if name not in (key, time)]
    if len(values) != 1 and "y" not in values:
        raise ArgumentError(
            FIELD,
            f"a long frame needs {key!r}, a time and one column of values, or 'y'; there are {table.names}",
        )
    name = "y" if "y" in values else values[0]
    for symbol, part in by_symbol(table):
        rows = rows_of(part, symbol, symbol)
        yield _cleaned(part.columns[name], symbol, rows)


def by_symbol(table: Table) -> Iterable[tuple[str, Table]]:
    """The parts of a long table, in the order of the first rows of the symbols."""
    key = table.named("symbol")
    labels = as_array(table.columns[key], str(key))
    symbols = np.array([str(symbol) for symbol in labels])
    if labels.dtype == object:
        refuse_twins([str(symbol) for symbol in set(labels)])
    rest = replace(table.without(key), symbol_name=str(key))
    for symbol in dict.fromkeys(symbols.tolist()):
        yield symbol, rest.rows(np.flatnonzero(symbols == symbol))


def _members(values: Any) -> list[Any] | None:
    """The series in a list, or the rows of a 2-D array; None for a single series."""
    if isinstance(values, list | tuple):
        nested = bool(values) and (table_of(values[0]) is not None or np.ndim(_first(values)) > 0)
        if not nested or all(np.ndim(member) == 1 and len(member) == 1 for member in values):
            return None
        if not are_short_rows(values, SHORTEST):
            return list(values)
        values = np.array(values, dtype=object)
    if np.ndim(values) < 2:
        return None
    shape = np.shape(values)
    if len(shape) != 2:
        raise ArgumentError(FIELD, f"expected one dimension, or two for many series, got shape {shape}")
    if shape[1] == 1:
        return None
    if shape[1] < SHORTEST <= shape[0]:
        raise ArgumentError(
            FIELD,
            f"shape {shape}: rows are series, and a row has {shape[1]} values, where a series needs {SHORTEST}; if the "
            "columns are the series, give values.T",
        )
    return list(values)


def are_short_rows(values: Sequence[Any], longest: int) -> bool:
    """Whether a list holds the rows of a table: many rows of the same length, too short for a series."""
    sizes = {len(member) if isinstance(member, list | tuple) else longest for member in values}
    return len(values) >= longest and len(sizes) == 1 and sizes.pop() < longest


def _first(values: Any) -> Any:
    return values[0] if not isinstance(values[0], str) else 0


def _one(values: Any, symbol: str, field: str) -> Series:
    """A single series: a list, an array, a frame's column with the index, or a frame of a single column."""
    table = None if is_flat(values) else table_of(values)
    if table is not None:
        rows = rows_of(table, field, symbol)
        rest = table.without(table.named("time"))
        if len(rest.columns) != 1:
            raise ArgumentError(
                field or FIELD, f"expected one column of numbers, got columns {table.names}: give one of them"
            )
        return _cleaned(next(iter(rest.columns.values())), symbol, rows, field=field)
    return _cleaned(values, symbol, index_rows(values, field, symbol), field=field)


def is_flat(values: Any) -> bool:
    """Whether the values are surely a column of numbers without labels, by the types alone, at almost no cost."""
    if type(values) is np.ndarray:
        return values.ndim == 1 and values.dtype.kind in "fi"
    return type(values) is list and bool(values) and type(values[0]) in (float, int)


def index_rows(values: Any, field: str, symbol: str) -> Rows:
    """The rows of a column by the column's own index, a feature of pandas alone."""
    if type(values) in _WITHOUT_INDEX:
        return Rows(None, None, Source(symbol) if symbol else NO_SOURCE)
    library = library_of(values)
    index = getattr(values, "index", None) if library == "pandas" else None
    return rows_of(Table({}, index, library), field, symbol)


def _cleaned(values: Any, symbol: str, rows: Rows, *, of_several: bool = False, field: str = "") -> Series:
    """The series oldest first, without the missing values before the first value.

    In a frame of several symbols, a symbol may also end before the others: the missing values after the last value are
    left out, too. A missing value between others is a hole, and the service refuses holes.
    """
    own = values if rows.positions is None else as_array(values, FIELD)[rows.positions]
    found: Floats = column(own, field or symbol or FIELD)
    source = rows.source.named(symbol)
    if not has_nan(found):
        return Series(found, source)
    missing = np.isnan(found)
    if not missing.any():
        return Series(found, source)
    if missing.all():
        return Series(found, replace(source, missing=("every row",)))
    first = int(np.argmin(missing))
    last = len(found) - int(np.argmin(missing[::-1])) if of_several else len(found)
    if (first, last) != (0, len(found)):
        index = take(source.index, np.arange(first, last))
        prefix = f"{symbol}: " if symbol else ""
        source = replace(source, index=index)
        for left_out, place in ((first, "before its first"), (len(found) - last, "after its last")):
            if left_out:
                words = "value {} value was" if left_out == 1 else "values {} value were"
                source = source.noting(f"{prefix}{left_out} missing {words.format(place)} left out", usual=True)
        if last < len(found) and index is not None:
            source = source.noting(f"{prefix}the newest value is of {str(index[-1]).removesuffix(' 00:00:00')}")
        found = found[first:last]
    holes = np.flatnonzero(np.isnan(found))
    return Series(found, replace(source, missing=tuple(row_label(source, at) for at in holes[:_SHOWN_LABELS])))


def row_label(source: Source, at: int) -> str:
    """The words for a row in an error: the position, and the label where the label is a time."""
    if source.index is None or not times.are_times(source.index):
        return f"row {at}"
    (instant,) = times.instants(take(source.index, np.array([at])), "index")
    return f"row {at} ({times.label(instant)})"
