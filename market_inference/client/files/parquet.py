"""Parquet files, by polars, pyarrow or pandas: any of these that is installed."""

import importlib
import io
from collections.abc import Mapping, Sequence
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
            columns = loaded(module, data)
        except Exception as error:  # noqa: BLE001 -- the libraries raise their own kinds for a damaged file
            raise FileError(f"a parquet file that cannot be read: {error}") from None
        grid = from_columns({name: [_text(value) for value in values] for name, values in columns.items()})
        grid.details["format"] = f"parquet (read by {library.partition('.')[0]})"
        return grid
    raise FileError("a parquet file needs polars or pyarrow, which are not installed: pip install polars")


def _polars(module: Any, data: bytes) -> Mapping[str, Sequence[Any]]:
    columns: dict[str, list[Any]] = module.read_parquet(io.BytesIO(data)).to_dict(as_series=False)
    return columns


def _pyarrow(module: Any, data: bytes) -> Mapping[str, Sequence[Any]]:
    columns: dict[str, list[Any]] = module.read_table(io.BytesIO(data)).to_pydict()
    return columns


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime | date):
        return value.isoformat()
    return str(value)
