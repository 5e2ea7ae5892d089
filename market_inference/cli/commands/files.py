"""Files of bars on the command line: the options for reading, and the notes on what was decided while reading.

The formats belong to market_inference.client.files.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from market_inference.cli.commands.options import gathered
from market_inference.cli.printable import echo

if TYPE_CHECKING:
    from market_inference.client.files import Bars, Options

_FILE = click.Path(exists=True, dir_okay=False, allow_dash=True)


@dataclass(frozen=True, slots=True)
class Reading:
    """The options for reading files, as typed."""

    columns: tuple[str, ...]
    delimiter: str | None
    decimal: str | None
    encoding: str | None
    date_format: str | None

    def options(self, symbol: str | None = None) -> "Options":
        """The options for the reader. Raises click.UsageError."""
        from market_inference.client.files import FileError, Options

        try:
            return Options(
                dict(self._pairs()), self.delimiter, self.decimal, self.encoding, self.date_format, symbol or None
            )
        except FileError as error:
            raise click.UsageError(str(error)) from None

    def _pairs(self) -> list[tuple[str, str]]:
        """ROLE=COLUMN, several separated by commas; a name may hold commas that no ROLE= follows."""
        pairs = []
        for given in self.columns:
            for pair in re.split(r",(?=\w+=)", given):
                role, separator, column = pair.partition("=")
                if not separator or not column:
                    raise click.UsageError(f"--columns {given}: expected ROLE=COLUMN, such as close='Adj Close'")
                pairs.append((role.strip().lower(), column.strip()))
        return pairs

    def read(self, path: str, symbol: str | None = None, limit: int | None = None) -> "dict[str, Bars]":
        """The bars in a file by symbol; notes go to standard error. Raises click.UsageError."""
        from market_inference.client.files import FileError, read

        try:
            found = read(path, self.options(symbol), limit=limit)
        except FileError as error:
            raise click.UsageError(str(error)) from None
        notes = dict.fromkeys(note for bars in found.values() for note in bars.notes)
        for note in notes:
            echo(f"Note: {'standard input' if path == '-' else path}: {note}", err=True)
        return found

    def bars(self, path: str, symbol: str | None = None, limit: int | None = None) -> "Bars":
        """The bars of one instrument, with closes. Raises click.UsageError for a file with several."""
        found = self.read(path, symbol, limit)
        if len(found) > 1:
            raise click.UsageError(f"{path}: {len(found)} instruments ({', '.join(list(found)[:10])}): give --symbol")
        bars = next(iter(found.values()))
        require_close(bars)
        return bars

    def by_symbol(self, paths: Sequence[str], limit: int | None = None) -> "dict[str, Bars]":
        """The bars in several files by symbol. Raises click.UsageError when a symbol occurs twice."""
        found: dict[str, Bars] = {}
        for path in paths:
            for symbol, bars in self.read(path, limit=limit).items():
                if symbol in found:
                    raise click.UsageError(f"two files have the same name or instrument: {symbol or 'standard input'}")
                found[symbol] = bars
        return found


def require_close(bars: "Bars") -> None:
    """Raise click.UsageError with the reason if the bars have no closes."""
    from market_inference.client.files import FileError

    if "close" not in bars:
        try:
            bars.column("close")
        except FileError as error:
            raise click.UsageError(str(error)) from None


def reading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options for questions that a file leaves open; the command gets a Reading as `reading`."""

    @click.option(
        "--columns",
        multiple=True,
        metavar="ROLE=COLUMN",
        help="The column, by name or number, for time, open, high, low, close, volume or symbol. Repeatable.",
    )
    @click.option("--delimiter", help="Between fields: one character, or comma, semicolon, tab, pipe, space.")
    @click.option("--decimal", help="The decimal separator: . or ,")
    @click.option("--encoding", help="The encoding of the text, such as cp1252.")
    @click.option("--date-format", help="DMY, MDY or YMD; a format such as %d.%m.%Y; s, ms, us or ns; excel.")
    @wraps(command)
    def run(*args: Any, **options: Any) -> Any:
        return command(*args, reading=gathered(Reading, options), **options)

    return run


def file_arguments(command: Callable[..., Any]) -> Callable[..., Any]:
    """FILE arguments beside `--csv FILE`, at least one of the two; the command gets all files as `paths`."""

    @click.argument("files", type=_FILE, nargs=-1, metavar="[FILE]...")
    @csv_option("A file, as FILE.", required=False)
    @wraps(command)
    def run(*args: Any, files: tuple[str, ...], paths: tuple[str, ...], **options: Any) -> Any:
        if not files and not paths:
            raise click.UsageError("no file given: give FILE, or --csv FILE; - is standard input")
        return command(*args, paths=(*files, *paths), **options)

    return run


def csv_option(help_text: str, *, required: bool = True) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`--csv FILE`, at least once where `required`; the command gets the files as `paths`."""
    return click.option(
        "--csv",
        "paths",
        type=_FILE,
        multiple=True,
        required=required,
        metavar="FILE",
        help=f"{help_text} - is standard input. Repeatable.",
    )
