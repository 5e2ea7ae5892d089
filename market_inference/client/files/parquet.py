"""Parquet files, by polars, pyarrow or pandas: any of these that is installed."""

import importlib
import io
from collections.abc import Iterator
from datetime import date, datetime
from typing import Any

from market_inference.client.files.error import FileError
from market_inference.client.files.grid import MOST_CELLS, ROW, Grid, check_columns, check_size, from_columns
from market_inference.client.files.source import LARGEST

MAGIC = b"PAR1"


def read(data: bytes, most_columns: int) -> Grid:
    """The table in a parquet file; values become text. Raises FileError."""
    for library, loaded in (("polars", _polars), ("pyarrow.parquet", _pyarrow)):
        try:
            module = importlib.import_module(library)
        except ImportError:
            continue
        try:
            # Column by column: numbers of all columns beside their texts would take a quarter more memory.
            columns = {name: [_text(value) for value in values] for name, values in loaded(module, data, most_columns)}
        except FileError:
            raise
        except _failures(module) as error:
            raise FileError(f"a parquet file that cannot be read: {error}") from None
        grid = from_columns(columns)
        grid.details["format"] = f"parquet (read by {library.partition('.')[0]})"
        return grid
    raise FileError("a parquet file needs polars or pyarrow, which are not installed: pip install polars")


def _failures(module: Any) -> tuple[type[BaseException], ...]:
    """The libraries raise their own kinds for a damaged file, and a panic of polars is no Exception."""
    panic = getattr(getattr(module, "exceptions", None), "PanicException", Exception)
    return Exception, panic


def _polars(module: Any, data: bytes, most_columns: int) -> Iterator[tuple[str, list[Any]]]:
    schema = module.read_parquet_schema(io.BytesIO(data))
    check_columns(len(schema), most_columns)
    flat = [name for name, kind in schema.items() if not kind.is_nested()]
    # One row above the limit tells a file of any number of rows: a row group of equal values takes a few bytes.
    frame = module.read_parquet(io.BytesIO(data), columns=flat, n_rows=MOST_CELLS // (ROW + len(schema)) + 1)
    # estimated_size() counts the text of a category once.
    categories = [column.cat.len_bytes().sum() for column in frame if column.dtype in (module.Categorical, module.Enum)]
    _check(frame.height, len(schema), frame.estimated_size() + sum(categories))
    return ((column.name, column.to_list()) for column in frame)


def _pyarrow(module: Any, data: bytes, most_columns: int) -> Iterator[tuple[str, list[Any]]]:
    known = module.read_metadata(io.BytesIO(data))
    check_columns(known.num_columns, most_columns)
    _check(known.num_rows, known.num_columns, 0)
    flat = [field.name for field in known.schema.to_arrow_schema() if not field.type.num_fields]
    # Many rows may refer to the same long text: as categories, the texts are in memory once.
    table = module.read_table(io.BytesIO(data), columns=flat, read_dictionary=flat)
    _check(table.num_rows, table.num_columns, sum(map(_bytes, table.columns)))
    return ((name, column.to_pylist()) for name, column in zip(table.column_names, table.columns, strict=True))


def _bytes(column: Any) -> int:
    """The bytes of a column with the texts of categories in each row."""
    size: int = column.nbytes
    for chunk in column.chunks:
        if hasattr(chunk, "dictionary"):
            lengths = [len(str(value).encode()) for value in chunk.dictionary.to_pylist()]
            counts = chunk.value_counts().flatten()
            places = counts[0].indices.to_pylist()
            size += sum(
                lengths[place] * count
                for place, count in zip(places, counts[1].to_pylist(), strict=True)
                if place is not None
            )
    return size


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
