"""A table of text cells, and the reading of delimited text into such a table.

Owns the delimiter, lines before the header and after the data, header lines, and the number of fields in a row. The
meaning of columns belongs to names.py, of cells to numerals.py and instants.py.
"""

import csv
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from market_inference.client.files import names
from market_inference.client.files.error import FileError
from market_inference.client.files.instants import looks_like_clock, looks_like_time
from market_inference.client.files.numerals import looks_like_number, missing

_CANDIDATES = (",", ";", "\t", "|")
_SAMPLE_LINES = 60
_SAMPLE_CELLS = 64
_SAMPLE_ROWS = 200
_HEADER_LINES = 3
_TICKER_WORDS = {"ticker", "tickers", "symbol", "symbols"}
_LINE_END = re.compile(r"\r\n|\r|\n")
_BLOCK = 1 << 16
"""Characters of a block of lines, at least."""
_MARKUP = re.compile(r"\s*<(!doctype|html|head|body|\?xml)", re.IGNORECASE)

MOST_CELLS: Final = 1 << 26
"""The most cells of a table with ROW cells more for each row: some seven million bars, which take 5 GB of memory."""
ROW: Final = 3

csv.field_size_limit(1 << 24)


@dataclass(slots=True)
class Grid:
    """`names`: the header, "" for a column without a name. `tickers`: the instrument of each column, "" for none.

    `rows`: cells as text, as many as names. `lines`: the number of each row in the file, from 1. `typed`: whether the
    cells come from typed values (JSON, parquet), with a decimal point. `details`: facts for `inspect`.
    """

    names: list[str]
    rows: list[list[str]]
    lines: list[int]
    tickers: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    details: dict[str, str] = field(default_factory=dict)
    typed: bool = False
    dot_is_decimal: bool = True
    headerless: bool = False

    def cells(self, at: int) -> list[str]:
        """The cells of one column."""
        return [row[at] for row in self.rows]


def check_size(rows: int, cells: int) -> None:
    """Raises FileError for a table too large to be read. A small compressed file may hold one."""
    if ROW * rows + cells > MOST_CELLS:
        most = f"max {MOST_CELLS} cells, and a row counts for {ROW} more"
        raise FileError(f"too large: {rows} rows or more with {cells} cells ({most}): divide the file")


def check_columns(count: int, most: int) -> None:
    """Raises FileError."""
    if count > most:
        raise FileError(f"too many columns (max {most}, got {count}): give one row for each time, or divide the file")


def read(text: str, delimiter: str | None, most_columns: int) -> Grid:
    """The table in delimited text. Raises FileError."""
    if _MARKUP.match(text):
        raise FileError("an HTML or XML page, not data: was the download a login or error page?")
    chosen = delimiter or _detected(text)
    rows, numbers = _parsed(text, chosen, most_columns)
    if not rows:
        raise FileError("no rows")
    grid = _framed(rows, numbers)
    grid.details["delimiter"] = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe", " ": "space"}.get(
        chosen, repr(chosen)
    )
    angled = any(name.strip().startswith("<") for name in grid.names)
    quoted = chosen == "," and bool(re.search(r'"\d', text[:4096]))
    dotted_dates = bool(re.search(r"\b\d{1,2}\.\d{1,2}\.\d{2,4}\b", text[:4096]))
    grid.dot_is_decimal = angled or (chosen in ",| " and not (quoted and dotted_dates))
    return grid


def _lines(text: str) -> Iterator[str]:
    """The lines with their ends, a block at a time: a list of all lines would take more memory than the cells."""
    at = 0
    while at < len(text):
        end = found.end() if (found := _LINE_END.search(text, at + _BLOCK)) else len(text)
        yield from text[at:end].splitlines(keepends=True)
        at = end


def _detected(text: str) -> str:
    """The delimiter with which most cells are numbers, times or short words, and rows have equally many fields."""
    found = (line for line in _lines(text) if line.strip() and not line.lstrip().startswith("#"))
    sample = list(islice(found, _SAMPLE_LINES))
    # Of a long file, half of the sample are the last lines.
    if last := deque(found, maxlen=_SAMPLE_LINES // 2):
        sample = [*sample, *last]
        sample = [*sample[: _SAMPLE_LINES // 2], *sample[-_SAMPLE_LINES // 2 :]]
    sample = [line.splitlines()[0] for line in sample]
    best, chosen = 0.0, ""
    for candidate in (*_CANDIDATES, " "):
        rows = [_fields(line, candidate) for line in sample]
        width, count = (
            Counter(len(row) for row in rows if len(row) > 1).most_common(1)[0]
            if any(len(row) > 1 for row in rows)
            else (1, 0)
        )
        if not count:
            continue
        regular = [row for row in rows if len(row) == width]
        cells = [cell for row in regular for cell in row[:_SAMPLE_CELLS]]
        good = sum(_recognised(cell) for cell in cells) / len(cells)
        score = good * count / len(sample) + min(width, 12) / 1000 - (0.2 if candidate == " " else 0.0)
        if score > best:
            best, chosen = score, candidate
    return chosen or ","


def _fields(line: str, delimiter: str) -> list[str]:
    if delimiter == " ":
        return line.split()
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return []


def _recognised(cell: str) -> bool:
    text = cell.strip()
    return missing(text) or looks_like_number(text) or looks_like_time(text) or looks_like_clock(text)


def _parsed(text: str, delimiter: str, most_columns: int) -> tuple[list[list[str]], list[int]]:
    """All rows that are not blank, and the line on which each row begins."""
    rows: list[list[str]] = []
    numbers: list[int] = []
    found: Iterable[tuple[int, list[str]]] = (
        ((at, line.split()) for at, line in enumerate(_lines(text), start=1))
        if delimiter == " "
        else _csv_rows(text, delimiter)
    )
    cells = 0
    for at, row in found:
        if any(cell.strip() for cell in row):
            rows.append([cell.strip() for cell in row])
            numbers.append(at)
            cells += len(row)
            check_columns(len(row), most_columns)
            check_size(len(rows), cells)
    return rows, numbers


def _csv_rows(text: str, delimiter: str) -> Iterable[tuple[int, list[str]]]:
    reader = csv.reader(_lines(text), delimiter=delimiter, skipinitialspace=True)
    start = 1
    try:
        for row in reader:
            yield start, row
            start = reader.line_num + 1
    except csv.Error as error:
        raise FileError(f"row {start}: {error}") from None


def _framed(rows: list[list[str]], numbers: list[int]) -> Grid:
    """Header and data, without the lines before and after."""
    sample = [row for row in rows[:_SAMPLE_ROWS] if _is_data(row)]
    widths = Counter(len(_trimmed(row)) for row in sample)
    fields = Counter(len(row) for row in sample)
    if not widths:
        raise FileError(f"no rows with numbers; the first line is {' '.join(rows[0])[:60]!r}")
    width = widths.most_common(1)[0][0]
    usual = fields.most_common(1)[0][0]
    first = next(
        at for at, row in enumerate(rows) if _is_data(row) and (len(row) == usual or len(_trimmed(row)) == width)
    )
    notes: list[str] = []
    begin, header = _header(rows, first, width, usual)
    if not header:
        for row, number in zip(rows[:begin], numbers[:begin], strict=True):
            if sum(names.role(cell) is not None for cell in row) >= 2:
                raise FileError(
                    f"row {numbers[begin]} has {len(rows[begin])} fields, the header in row {number} {len(row)}; the "
                    "rows between fit neither"
                )
    if begin:
        notes.append(_dropped("before the header", rows[:begin], numbers[:begin]))
    last = len(rows)
    while last > first + 1 and not _is_data(rows[last - 1]) and not _like(rows[last - 1], rows[first]):
        last -= 1
    if last < len(rows):
        notes.append(_dropped("after the data", rows[last:], numbers[last:]))
    body, lines = rows[first:last], numbers[first:last]
    if header:
        labels, tickers, extra = _labels(header)
        notes += extra
    else:
        labels, tickers = [""] * max(len(row) for row in body), []
    labels = _fitted(labels, body)
    grid = Grid(labels, _squared(body, lines, labels, bool(header)), lines, tickers, [n for n in notes if n])
    grid.headerless = not header
    grid.details["header"] = f"row {numbers[begin]}" if header else "none"
    if tickers:
        if any(tickers[len(labels) :]):
            raise FileError(f"the header rows differ in length: {len(labels)} names of columns, {len(tickers)} tickers")
        grid.tickers = [*tickers[: len(labels)], *[""] * (len(labels) - len(tickers))]
    return grid


def _is_data(row: Sequence[str]) -> bool:
    """Whether a row holds numbers or a time, and mostly such cells."""
    cells = [cell for cell in row if cell]
    known = (looks_like_number, looks_like_time, looks_like_clock)
    others = [cell for cell in cells if not any(fits(cell) for fits in known)]
    words = sum(not missing(cell) for cell in others)
    return len(others) < len(cells) and words <= max(1, len(cells) // 2)


def _like(row: Sequence[str], first: Sequence[str]) -> bool:
    """Whether a row without numbers still is a data row: as wide as the first row, with a time, but missing values."""
    return (
        len(row) == len(first)
        and bool(row[0])
        and looks_like_time(row[0]) == looks_like_time(first[0])
        and all(missing(cell) for cell in row[1:])
    )


def _trimmed(row: Sequence[str]) -> list[str]:
    cells = list(row)
    while cells and not cells[-1]:
        cells.pop()
    return cells


def _header(rows: list[list[str]], first: int, width: int, usual: int) -> tuple[int, list[list[str]]]:
    """Where the header begins, and the header rows, at most three, directly above the data.

    `width`: fields of a data row without empty fields at the end; `usual`: with these.
    """
    begin = first
    while (
        begin > 0 and first - begin < _HEADER_LINES and _is_header(rows[begin - 1], width, usual, above=begin == first)
    ):
        begin -= 1
        # One row of known names is a whole header; further rows above belong to it only as names of instruments.
        if sum(names.role(cell) is not None for cell in rows[begin]) >= 2 and not _more_above(rows, begin):
            break
    return begin, rows[begin:first]


def _is_header(row: Sequence[str], width: int, usual: int, *, above: bool) -> bool:
    """Whether a row is a header, or, directly above the data, a row of units or the name of the index."""
    cells = [cell for cell in row if cell]
    if not cells or any(looks_like_number(cell) for cell in cells):
        return False
    if row[0].startswith(("http://", "https://")):
        return False
    if above and len(row) == usual > 1:
        return True
    return (above and len(cells) == 1 and len(row) > 1 and bool(row[0])) or (
        abs(len(_trimmed(row)) - width) <= 1 and (len(cells) > 1 or width == 1)
    )


def _more_above(rows: list[list[str]], begin: int) -> bool:
    """Whether the row above names instruments (Ticker,AAPL,AAPL,...)."""
    return begin > 0 and bool(rows[begin - 1]) and rows[begin - 1][0].lower() in _TICKER_WORDS


def _labels(header: Sequence[Sequence[str]]) -> tuple[list[str], list[str], list[str]]:
    """Names of columns, instruments of columns, and notes, from one to three header rows (as yfinance writes them)."""
    if len(header) == 1:
        return [header[0][0].lstrip("#% ").strip(), *header[0][1:]], [], []
    known = [sum(names.role(cell) not in (None, "time") for cell in row) for row in header]
    at = max(range(len(header)), key=lambda place: known[place])
    labels, tickers, notes = list(header[at]), [], []
    for place, row in enumerate(header):
        if place == at:
            continue
        filled = [cell for cell in row if cell]
        if len(filled) == 1 and row[0]:
            labels[0] = row[0]
        elif row and (row[0].lower() in _TICKER_WORDS or labels[0].lower() in {"price", "attributes", ""}):
            tickers = ["", *row[1:]]
        else:
            notes.append(f"header line {' '.join(row)[:60]!r} is not used")
    if labels[0].lower() in {"price", "attributes", *_TICKER_WORDS}:
        labels[0] = ""
    return labels, tickers, notes


def _fitted(labels: list[str], body: Sequence[Sequence[str]]) -> list[str]:
    """The header with as many names as the rows have fields: an empty last column, or row names without a header."""
    widths = {len(row) for row in body}
    if widths == {len(labels) + 1}:
        if not any(row[-1] for row in body):
            return [*labels, ""]
        shifted = names.role(labels[0]) != "time" or looks_like_time(body[0][1])
        if shifted and all(looks_like_time(row[0]) or row[0].isdigit() for row in body):
            return ["", *labels]
    named = len(_trimmed(labels))
    if named == len(labels):
        return labels
    return labels[: max(named, min(len(labels), max(len(_trimmed(row)) for row in body)))]


def _squared(body: list[list[str]], lines: Sequence[int], labels: Sequence[str], header: bool) -> list[list[str]]:
    """Rows with one cell per name. Raises FileError for a row with more or fewer fields."""
    squared = []
    width = len(labels)
    if all(len(row) == width for row in body):
        return body
    for row, line in zip(body, lines, strict=True):
        cells = list(row)
        while len(cells) > width and not cells[-1]:
            cells.pop()
        if len(cells) != width and not (len(cells) == width - 1 and not labels[-1]):
            what = "the header" if header else "the first row"
            reason = (
                "; decimal commas in a comma-separated file, or text without quotes?"
                if len(cells) > width
                else "; is the file cut off?"
            )
            raise FileError(f"row {line} has {len(cells)} fields, {what} {width}{reason}")
        squared.append([*cells, *[""] * (width - len(cells))])
    return squared


def _dropped(where: str, rows: Sequence[Sequence[str]], numbers: Sequence[int]) -> str:
    text = " ".join(cell for cell in rows[0] if cell)[:60]
    which = f"row {numbers[0]}" if len(rows) == 1 else f"rows {numbers[0]} to {numbers[-1]}"
    return f"{which} {where} skipped: {text!r}"


def from_columns(columns: Mapping[str, Sequence[str]]) -> Grid:
    """A table of typed values as text."""
    labels = list(columns)
    rows = [list(cells) for cells in zip(*columns.values(), strict=True)]
    return Grid(labels, rows, list(range(1, len(rows) + 1)), typed=True)
