"""The output of commands: console, tables, numbers and JSON.

Owns the form of the output, and keeps control characters of files, names and servers away from the terminal; the
commands own the content of tables.
"""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from market_inference.cli.printable import echo, printable

PLAIN_WIDTH = 160
SIGNIFICANT_DIGITS = 6
_LEAST_DECIMALS, _MOST_DECIMALS = 2, 12
# From here on, such as for volumes, decimals have no meaning.
_WHOLE = 1e7
_LEAST_TEXT = 6


class PlainConsole(Console):
    """A console that shows control characters of texts as escapes; styles and the console's own controls work."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of an object."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else printable(text), style, control)


class PlainTable(Table):
    """A table of cells with plain text: `[/b]` in a headline is no markup. A cell with a style is a rich Text."""

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        """Append a row."""
        super().add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in cells), **options)


def console() -> Console:
    """Standard output; without a terminal, plain text of full width."""
    found = PlainConsole(highlight=False, markup=False)
    return found if found.is_terminal else PlainConsole(highlight=False, markup=False, width=PLAIN_WIDTH, no_color=True)


def table(title: str, *columns: str, left: int = 1, caption: str = "") -> PlainTable:
    """A table with `left` columns of text first, wrapped where the terminal is narrow, and columns of numbers after."""
    made = PlainTable(title=Text(title), title_justify="left", title_style="bold", header_style="bold")
    made.caption, made.caption_justify = Text(caption) if caption else None, "left"
    for at, name in enumerate(columns):
        # A narrow terminal shortens text, but never below this width.
        width = _LEAST_TEXT if at < left else None
        made.add_column(Text(name), justify="left" if at < left else "right", no_wrap=at >= left, min_width=width)
    return made


def print_rows(
    rows: Sequence[Any], raw: bool, title: str, *columns: str, left: int, cells: Callable[[Any], tuple[str, ...]]
) -> None:
    """Print a table with a line of `cells` for each row; the rows as JSON if `raw`."""
    if raw:
        print_json(rows)
        return
    shown = table(title, *columns, left=left)
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
