"""CSV files with one column per name, as the commands read them.

Owns the file format (a header line, commas, numbers in the columns that are used) and the option that names such files.
"""

import csv
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

import click

BAR_COLUMNS = ("open", "high", "low", "close", "volume")


class Table:
    """Columns of text by the names in the header; `symbol` is the file's name without its ending, "" for stdin."""

    def __init__(self, symbol: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self.symbol = symbol
        self._header = [name.strip().lower() for name in header]
        self._rows = rows

    @classmethod
    def read(cls, path: str) -> "Table":
        """The file at `path`, or standard input for "-". Raises click.UsageError when it is no table."""
        try:
            if path == "-":
                return cls._parse("", sys.stdin)
            with Path(path).open(encoding="utf-8-sig", newline="") as file:
                return cls._parse(Path(path).stem, file)
        except (csv.Error, ValueError, OSError) as error:
            raise click.UsageError(f"{path}: {error}") from None

    @classmethod
    def _parse(cls, symbol: str, file: TextIO) -> "Table":
        rows = [row for row in csv.reader(file) if row]
        if len(rows) < 2:
            raise ValueError("expected a header line and rows below it")
        header, *body = rows
        for at, row in enumerate(body, start=2):
            if len(row) != len(header):
                raise ValueError(f"row {at} has {len(row)} fields, the header {len(header)}")
        return cls(symbol, header, body)

    def __contains__(self, column: str) -> bool:
        return column.lower() in self._header

    def texts(self, column: str) -> list[str]:
        """A column by name in any case. Raises click.UsageError when there is none."""
        if column not in self:
            raise click.UsageError(f"{self._where}: no column {column!r}; there are {', '.join(self._header)}")
        at = self._header.index(column.lower())
        return [row[at] for row in self._rows]

    def numbers(self, column: str) -> list[float]:
        """The same as numbers; also raises click.UsageError when it holds something else."""
        try:
            return [float(text) for text in self.texts(column)]
        except ValueError as error:
            raise click.UsageError(f"{self._where}: column {column!r}: {error}") from None

    @property
    def _where(self) -> str:
        return self.symbol or "standard input"

    def bars(self) -> dict[str, list[float]]:
        """The columns of bars that there are; close must be."""
        wanted = [name for name in BAR_COLUMNS if name in self._header or name == "close"]
        return {name: self.numbers(name) for name in wanted}


def by_symbol(paths: Sequence[str]) -> dict[str, Table]:
    """The tables at `paths` by symbol; raises click.UsageError when two have the same."""
    found = [Table.read(path) for path in paths]
    tables = {table.symbol: table for table in found}
    if len(tables) != len(found):
        raise click.UsageError("two files have the same name; a file's name is its symbol")
    return tables


def csv_option(help_text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`--csv FILE`, at least once; the command gets them as `paths`."""
    return click.option(
        "--csv",
        "paths",
        type=click.Path(exists=True, dir_okay=False, allow_dash=True),
        multiple=True,
        required=True,
        metavar="FILE",
        help=f"{help_text} - is standard input. Repeatable.",
    )
