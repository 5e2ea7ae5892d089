"""Named columns in any form of users' data.

Owns bars read from files, mappings of columns, frames (pandas, polars, pyarrow), numpy's structured arrays, rows as
mappings, and rows as exchanges send them: [time, open, high, low, close, volume]. bars.py and series.py decide what
the columns are.
"""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from market_inference.client.files.bars import Bars
from market_inference.client.inputs import times as times_of
from market_inference.client.inputs.arguments import shown
from market_inference.client.inputs.column import as_array
from market_inference.client.inputs.items import Instants, Source
from market_inference.client.inputs.names import BAR_COLUMNS, fields_of
from market_inference.errors import ArgumentError

ROW_COLUMNS = ("time", *BAR_COLUMNS)
# ccxt sends six fields in a row; Binance sends twelve, and the first six are these.
_ROW_WIDTHS = {6, 12}
_LEAST_EPOCH = 10**8
_COLUMNS = (np.ndarray, list, tuple)
_DOUBLES = np.dtype(np.float64)


@dataclass(frozen=True, eq=False)
class Table:
    """Columns by name, in the caller's order of rows; `index` are the labels of the rows, None for none."""

    columns: dict[Hashable, Any]
    index: Any = None
    library: str = ""
    symbol: str = ""
    symbol_name: str = ""

    @cached_property
    def fields(self) -> dict[Hashable, str]:
        """The fields of a bar, by column name; a value with columns is an instrument under any name."""
        return fields_of(name for name, values in self.columns.items() if not _is_table(values))

    def named(self, field: str) -> Hashable | None:
        """The column of a field; None when there is none. Raises ArgumentError when there are two."""
        found = [name for name, of in self.fields.items() if of == field]
        if len(found) > 1:
            raise ArgumentError("columns", f"{shown(found[0])} and {shown(found[1])} are both {field}: leave one out")
        return found[0] if found else None

    def without(self, *names: Hashable | None) -> "Table":
        """The other columns."""
        return replace(
            self, columns={name: values for name, values in self.columns.items() if name is None or name not in names}
        )

    def rows(self, positions: Any) -> "Table":
        """The rows at the positions."""
        taken = {name: as_array(values, str(name))[positions] for name, values in self.columns.items()}
        return replace(self, columns=taken, index=take(self.index, positions))

    @property
    def names(self) -> str:
        """The names of the columns, for an error."""
        return ", ".join(str(name) for name in self.columns) or "none"


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The rows of a table in time: positions oldest first (None for all as they are), their labels and instants."""

    positions: Any
    instants: Instants | None
    source: Source


def table_of(values: Any) -> Table | None:
    """The named columns of a mapping, a frame or rows; None for anything else."""
    if isinstance(values, Bars):
        columns: dict[Hashable, Any] = {} if values.times is None else {"time": values.times}
        columns.update(values.columns)
        return Table(columns, symbol=values.symbol)
    if isinstance(values, Mapping):
        return Table(dict(values))
    if hasattr(values, "column_names") and hasattr(values, "column"):  # pyarrow
        return Table({name: values.column(name) for name in values.column_names}, library="pyarrow")
    if hasattr(values, "columns") and hasattr(values, "__getitem__"):
        return _frame(values)
    if isinstance(values, np.ndarray) and values.dtype.names:
        return Table({name: values[name] for name in values.dtype.names})
    return _rows(values)


def rows_of(table: Table, field: str, symbol: str = "") -> Rows:
    """The rows in time, from a column of times or the index. Raises ArgumentError for rows out of order."""
    name = table.named("time")
    labels, column = (table.columns[name], str(name)) if name is not None else (table.index, "the index")
    where = f"{field}: {column}" if field else column
    time_name = str(name) if name is not None else str(getattr(labels, "name", None) or "")
    source = Source(symbol, labels, table.library, time_name=time_name, symbol_name=table.symbol_name)
    if getattr(labels, "nlevels", 1) > 1:
        raise ArgumentError(
            where,
            f"{labels.nlevels} levels: give one symbol's rows, or call reset_index() for a frame with a column of "
            "symbols, or unstack() for a column for each symbol",
        )
    if labels is None or (name is None and not times_of.are_times(labels)):
        return Rows(None, None, source)
    instants = times_of.instants(labels, where)
    rows = times_of.order(instants, where)
    if rows is None:
        return Rows(None, instants, source)
    note = times_of.reversed_note(f"{symbol}: {column}" if symbol else column)
    return Rows(rows, instants[rows], replace(source, index=take(labels, rows), notes=(note,)))


def take(index: Any, positions: Any) -> Any:
    """The labels at the positions."""
    if index is None or positions is None:
        return index
    if hasattr(index, "iloc"):  # a pandas column, whose own labels [] would take
        return index.iloc[positions]
    return index[positions] if hasattr(index, "__array__") else as_array(index, "index")[positions]


def _is_table(values: Any) -> bool:
    return type(values) not in _COLUMNS and (isinstance(values, Mapping) or hasattr(values, "columns"))


def library_of(values: Any) -> str:
    """ "pandas" or "polars" for an object of these libraries, else ""."""
    name = type(values).__module__.partition(".")[0]
    return name if name in {"pandas", "polars"} else ""


def _frame(frame: Any) -> Table:
    names = list(frame.columns)
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ArgumentError("columns", f"two columns are called {shown(twice)}: leave one out or rename it")
    library = library_of(frame)
    index = getattr(frame, "index", None) if library == "pandas" else None
    if index is not None and names and set(frame.dtypes) == {_DOUBLES}:
        # One conversion: pandas takes 20 us for each column, and a universe has thousands of columns.
        return Table(dict(zip(names, frame.to_numpy().T, strict=True)), index, library)
    return Table({name: frame[name] for name in names}, index, library)


def _rows(values: Any) -> Table | None:
    if isinstance(values, list | tuple) and values and all(map(_is_record, values)):
        names = list(dict.fromkeys(name for row in values for name in row))
        return Table({name: [row.get(name) for row in values] for name in names})
    rows = _exchange_rows(values)
    return None if rows is None else Table(dict(zip(ROW_COLUMNS, rows, strict=False)))


def _is_record(row: object) -> bool:
    """One row as a mapping: scalars by name, a close among them."""
    return isinstance(row, Mapping) and "close" in fields_of(row).values() and not _deep(row.values())


def _exchange_rows(values: Any) -> list[Any] | None:
    """The columns of rows that begin with an epoch; None for anything else."""
    if isinstance(values, np.ndarray):
        if values.ndim != 2 or values.shape[1] not in _ROW_WIDTHS:
            return None
        rows: Any = values.tolist()
    elif isinstance(values, list | tuple) and values and all(_is_row(row) for row in values):
        rows = values
    else:
        return None
    try:
        columns = [[None if value is None else float(value) for value in column] for column in zip(*rows, strict=True)]
    except (TypeError, ValueError, OverflowError):
        return None
    if len(columns) not in _ROW_WIDTHS or any(time is None or time < _LEAST_EPOCH for time in columns[0]):
        return None
    return [np.array(column, dtype=np.float64) for column in columns[: len(ROW_COLUMNS)]]


def _is_row(row: Any) -> bool:
    return isinstance(row, list | tuple | np.ndarray) and len(row) in _ROW_WIDTHS and not _deep(row)


def _deep(row: Iterable[Any]) -> bool:
    return any(not isinstance(value, str) and np.ndim(value) > 0 for value in row)
