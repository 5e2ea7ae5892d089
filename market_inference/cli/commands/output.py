"""The output of commands: console, tables, numbers and JSON.

Owns the form of the output, and keeps control characters of files, names and servers away from the terminal; the
commands own the content of tables.
"""

import copy
import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Column, Table
from rich.text import Text

from market_inference.cli.printable import echo, printable

PLAIN_WIDTH = 160
SIGNIFICANT_DIGITS = 6
_LEAST_DECIMALS, _MOST_DECIMALS = 2, 12
# From here on, such as for volumes, decimals have no meaning.
_WHOLE = 1e7
# A longer word, such as an address, goes on in the next line of its cell where the terminal is narrow.
_LONGEST_WORD = 20
# A longer cell in a column of numbers is a sentence, and may be wrapped.
_LONGEST_NUMBER = 40
_ANY_WIDTH = 1 << 30


class PlainConsole(Console):
    """A console that shows control characters of texts as escapes; styles and the console's own controls work.

    A line longer than the console is wide is printed whole.
    """

    def print(self, *objects: Any, **options: Any) -> None:
        """Print objects."""
        super().print(*objects, **{"crop": False, **options})

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of an object."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else printable(text), style, control)


class PlainTable(Table):
    """A table of cells with plain text: `[/b]` in a headline is no markup. A cell with a style is a rich Text.

    No cell is cut. Where the terminal is too narrow, text is wrapped; then the columns are spread over several tables
    below one another, each with the first `keys` columns. Without a terminal, lines are as long as needed.
    """

    keys = 1

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        """Append a row."""
        super().add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in cells), **options)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        spans = [_span(console, options, column) for column in self.columns]
        if self._width([span.maximum for span in spans]) <= options.max_width:
            yield from super().__rich_console__(console, options)
            return
        every = list(range(len(spans)))
        parts = self._parts(spans, options.max_width) if console.is_terminal else [every]
        for chosen in parts:
            part = self._part(chosen, first=chosen is parts[0], last=chosen is parts[-1])
            shown = [spans[at] for at in chosen]
            room = max(options.max_width, self._width([span.minimum for span in shown]))
            widths = _narrowed(shown, room - self._width([0] * len(shown)))
            for column, width in zip(part.columns, widths, strict=True):
                column.width, column.no_wrap = width, False
            yield from Table.__rich_console__(part, console, options.update(max_width=room))

    def _width(self, columns: Sequence[int]) -> int:
        """The width of a table with columns of these widths: with padding and lines."""
        _, right, _, left = self.padding
        lines = 0 if self.box is None else len(columns) + 1
        return sum(columns) + len(columns) * (left + right) + lines

    def _parts(self, spans: Sequence[Measurement], room: int) -> list[list[int]]:
        """The columns of each table: as many as the room holds, and one besides the keys at least."""
        keys = list(range(min(self.keys, len(spans))))
        parts = [keys]
        for at in range(len(keys), len(spans)):
            longer = [*parts[-1], at]
            if len(longer) > len(keys) + 1 and self._width([spans[one].minimum for one in longer]) > room:
                parts.append([*keys, at])
            else:
                parts[-1] = longer
        return parts

    def _part(self, chosen: Sequence[int], *, first: bool, last: bool) -> "PlainTable":
        """The table with these columns alone: the first part has the title, the last part the caption."""
        part = copy.copy(self)
        part.title, part.caption = self.title if first else None, self.caption if last else None
        part.columns, part.rows = [], []
        for at in chosen:
            column = self.columns[at]
            part.add_column(column.header, justify=column.justify, overflow="fold", style=column.style)
        cells = zip(*(self.columns[at].cells for at in chosen), strict=True)
        for row, shown in zip(self.rows, cells, strict=True):
            part.add_row(*shown, style=row.style, end_section=row.end_section)
        return part


def _span(console: Console, options: ConsoleOptions, column: Column) -> Measurement:
    """The least and the greatest width of a column: a short number is never wrapped."""
    free = options.update(max_width=_ANY_WIDTH)
    cells = [Measurement.get(console, free, cell) for cell in (column.header, *column.cells)]
    most = max(cell.maximum for cell in cells)
    if column.no_wrap and most <= _LONGEST_NUMBER:
        return Measurement(most, most)
    return Measurement(min(max(cell.minimum for cell in cells), _LONGEST_WORD), most)


def _narrowed(spans: Sequence[Measurement], room: int) -> list[int]:
    """The widths of columns in the room, which holds the least widths: the widest columns give way first."""
    widths = [span.maximum for span in spans]
    while sum(widths) > room:
        wide = [at for at, span in enumerate(spans) if widths[at] > span.minimum]
        widths[max(wide, key=widths.__getitem__)] -= 1
    return widths


def console() -> Console:
    """Standard output; without a terminal, plain text of full width."""
    found = PlainConsole(highlight=False, markup=False)
    return found if found.is_terminal else PlainConsole(highlight=False, markup=False, width=PLAIN_WIDTH, no_color=True)


def table(title: str, *columns: str, left: int = 1, keys: int = 1, caption: str = "") -> PlainTable:
    """A table with `left` columns of text first, wrapped where the terminal is narrow, and columns of numbers after.

    `keys`: the first columns that say what a row is.
    """
    made = PlainTable(title=Text(title), title_justify="left", title_style="bold", header_style="bold")
    made.caption, made.caption_justify = Text(caption) if caption else None, "left"
    made.keys = keys
    for at, name in enumerate(columns):
        made.add_column(Text(name), justify="left" if at < left else "right", no_wrap=at >= left)
    return made


def print_rows(
    rows: Sequence[Any],
    raw: bool,
    title: str,
    *columns: str,
    left: int,
    cells: Callable[[Any], tuple[str, ...]],
    keys: int = 1,
) -> None:
    """Print a table with a line of `cells` for each row; the rows as JSON if `raw`."""
    if raw:
        print_json(rows)
        return
    shown = table(title, *columns, left=left, keys=keys)
    for row in rows:
        shown.add_row(*cells(row))
    console().print(shown)


def print_json(value: object) -> None:
    """Print a JSON document. JSON has no NaN and no infinities: such numbers become null."""
    echo(json.dumps(_plain(value), indent=2, allow_nan=False))


def decimals(values: Iterable[float]) -> int:
    """The decimals of a column of numbers: six significant digits of the largest, no trailing zeros, at least 2."""
    finite = [float(value) for value in values if math.isfinite(value)]
    largest = max(map(abs, finite), default=0.0)
    if largest >= _WHOLE:
        return 0
    if not largest:
        return _LEAST_DECIMALS
    most = min(_MOST_DECIMALS, max(_LEAST_DECIMALS, SIGNIFICANT_DIGITS - 1 - math.floor(math.log10(largest))))
    used = (len(f"{value:.{most}f}".rstrip("0").partition(".")[2]) for value in finite)
    return max(_LEAST_DECIMALS, *used)


def number(value: float, places: int | None = None) -> str:
    """A price or an indicator; `places`: the decimals of the column, by default the decimals of the number alone."""
    if math.isnan(value):
        return "-"
    if 0 < abs(value) < 10.0**-_MOST_DECIMALS:
        return f"{value:.{SIGNIFICANT_DIGITS}g}"
    return f"{value:,.{decimals([value]) if places is None else places}f}"


def instants(labels: Any) -> list[str]:
    """Times as text: dates alone where all times are midnights."""
    stamps = [str(stamp).replace("T", " ") for stamp in np.asarray(labels).astype("datetime64[s]")]
    dates = all(stamp.endswith(" 00:00:00") for stamp in stamps)
    return [stamp.removesuffix(" 00:00:00") for stamp in stamps] if dates else stamps


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
