"""Parquet files, by polars, pyarrow or pandas: any of these that is installed."""

import importlib
import io
from collections.abc import Iterator
from datetime import date, datetime
from typing import Any

from market_inference.client.files.error import FileError
from market_inference.client.files.grid import Grid, from_columns

MAGIC = b"PAR1"


def read(data: bytes) -> Grid:
    """The table in a parquet file; values become text. Raises FileError."""
    for library, loaded in (("polars", _polars), ("pyarrow.parquet", _pyarrow)):
        try:
            module = importlib.import_module(library)
        except ImportError:
            continue
        try:
            # Column by column: numbers of all columns beside their texts would take a quarter more memory.
            columns = {name: [_text(value) for value in values] for name, values in loaded(module, data)}
        except Exception as error:  # noqa: BLE001 -- the libraries raise their own kinds for a damaged file
            raise FileError(f"a parquet file that cannot be read: {error}") from None
        grid = from_columns(columns)
        grid.details["format"] = f"parquet (read by {library.partition('.')[0]})"
        return grid
    raise FileError("a parquet file needs polars or pyarrow, which are not installed: pip install polars")


def _polars(module: Any, data: bytes) -> Iterator[tuple[str, list[Any]]]:
    return ((column.name, column.to_list()) for column in module.read_parquet(io.BytesIO(data)))


def _pyarrow(module: Any, data: bytes) -> Iterator[tuple[str, list[Any]]]:
    table = module.read_table(io.BytesIO(data))
    return ((name, column.to_pylist()) for name, column in zip(table.column_names, table.columns, strict=True))


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime | date):
        return value.isoformat()
    return str(value)
