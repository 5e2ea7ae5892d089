"""Parquet files, by polars, pyarrow or pandas: any of these that is installed."""

import importlib
import io
from collections.abc import Iterator
from datetime import date, datetime
from typing import Any

from market_inference.client.files.error import FileError
from market_inference.client.files.grid import MOST_CELLS, ROW, Grid, check_size, from_columns
from market_inference.client.files.source import LARGEST

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
        except FileError:
            raise
        except Exception as error:  # noqa: BLE001 -- the libraries raise their own kinds for a damaged file
            raise FileError(f"a parquet file that cannot be read: {error}") from None
        grid = from_columns(columns)
        grid.details["format"] = f"parquet (read by {library.partition('.')[0]})"
        return grid
    raise FileError("a parquet file needs polars or pyarrow, which are not installed: pip install polars")


def _polars(module: Any, data: bytes) -> Iterator[tuple[str, list[Any]]]:
    columns = len(module.read_parquet_schema(io.BytesIO(data)))
    # One row above the limit tells a file of any number of rows: a row group of equal values takes a few bytes.
    frame = module.read_parquet(io.BytesIO(data), n_rows=MOST_CELLS // (ROW + columns) + 1)
    _check(frame.height, columns, frame.estimated_size())
    return ((column.name, column.to_list()) for column in frame)


def _pyarrow(module: Any, data: bytes) -> Iterator[tuple[str, list[Any]]]:
    known = module.read_metadata(io.BytesIO(data))
    _check(known.num_rows, known.num_columns, 0)
    table = module.read_table(io.BytesIO(data))
    _check(table.num_rows, table.num_columns, table.nbytes)
    return ((name, column.to_pylist()) for name, column in zip(table.column_names, table.columns, strict=True))


def _check(rows: int, columns: int, size: int) -> None:
    """Raises FileError. Many cells may refer to the same long text."""
    check_size(rows, rows * columns)
    if size > LARGEST:
        raise FileError(f"larger than {LARGEST >> 20} MiB once read: divide the file")


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime | date):
        return value.isoformat()
    return str(value)
