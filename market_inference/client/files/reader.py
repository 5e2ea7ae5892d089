"""Reading a file of bars: the steps from bytes to arrays.

Owns the order of the steps: bytes, text, table, columns, instruments, rows, times, order, numbers. Each step belongs to
a module of this package; every decision that could change numbers is decided by evidence in the file, told in a note,
or refused with the option that decides.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from market_inference.client.files import document, grid, headerless, names, numerals, order, parquet, source, text
from market_inference.client.files import instants as times_of
from market_inference.client.files.bars import Bars, Floats
from market_inference.client.files.error import FileError
from market_inference.client.files.grid import Grid
from market_inference.client.files.options import Options

PRICES = ("open", "high", "low", "close")
MOST_BARS = 10_000
"""The default limit of bars: the most that a request may hold."""
MOST_INSTRUMENTS = 10_000
"""The default limit of instruments that are read at once; of a file with more, `symbol` names one."""
MOST_COLUMNS = 160_000
"""The default limit of columns: every column is read before the table is understood, 0.1 ms each."""
_MOST_SHARED = 1 << 24
"""The most cells that the instruments of a file hold together: each holds the columns that belong to none."""
_SHOWN = 20
_FOOTER_ROWS = 20
_HEAD = 1 << 16
"""Characters that decide on the encoding."""


def read_bars(
    file: str | Path | BinaryIO,
    *,
    columns: dict[str, str | int] | None = None,
    delimiter: str | None = None,
    decimal: str | None = None,
    encoding: str | None = None,
    date_format: str | None = None,
    symbol: str | None = None,
    limit: int | None = MOST_BARS,
) -> Bars:
    """The bars of one instrument in a file of any vendor's format: delimited text, JSON or parquet, also compressed.

    `file`: a path, "-" for standard input, or an open binary file. `limit`: the number of newest bars to keep, None
    for all. The other arguments settle questions that the file leaves open, see Options. Raises FileError (a
    ValueError) with row, likely reason and option.

        bars = market_inference.read_bars("AAPL.csv")
        client.predict(bars["close"], horizon=10)
        client.indicators(bars, ["RSI", "ATR"])
    """
    options = Options(columns or {}, delimiter, decimal, encoding, date_format, symbol)
    found = read(file, options, limit=limit)
    if len(found) > 1:
        shown = ", ".join(list(found)[:10])
        raise FileError(f"{file}: {len(found)} instruments ({shown}): give symbol=")
    bars = next(iter(found.values()))
    if "close" not in bars:
        bars.column("close")  # raises the reason
    return bars


def read(
    file: str | Path | BinaryIO,
    options: Options | None = None,
    *,
    limit: int | None = MOST_BARS,
    instruments: int = MOST_INSTRUMENTS,
    most_columns: int = MOST_COLUMNS,
    details: dict[str, str] | None = None,
) -> dict[str, Bars]:
    """The bars of every instrument in a file, by symbol. A file with more instruments or columns is refused.

    `details` receives facts on the file as soon as they are known, also if reading fails later. Raises FileError.
    """
    options = options or Options()
    facts: dict[str, str] = {} if details is None else details
    loaded = source.load(file)
    try:
        table, symbol = _table(loaded, options, facts, most_columns)
        facts.update(table.details)
        grid.check_columns(len(table.names), most_columns)
        parts = _instruments(table, symbol or loaded.stem, options, instruments)
        if len(parts) > 1:
            facts["instruments"] = _named(parts)
        return {one: _Reading(part, one, loaded.name, options, facts).bars(limit) for one, part in parts.items()}
    except FileError as error:
        raise FileError(f"{loaded.name}: {error}") from None


def _table(loaded: source.Source, options: Options, facts: dict[str, str], most: int) -> tuple[Grid, str]:
    """The cells of the file, and the symbol that the file names outside of the cells."""
    if loaded.compression:
        facts["compression"] = loaded.compression
    if loaded.data.startswith(parquet.MAGIC):
        return parquet.read(loaded.data, most), ""
    content, encoding = text.decode(loaded.data, options.encoding)
    facts["encoding"] = encoding
    if content.lstrip()[:1] in ("{", "["):
        return document.read(content)
    notes = []
    if encoding == text.GUESSED and not options.encoding and _known(content, options, most) < 2:
        for alternative in text.ALTERNATIVES:
            try:
                other = text.decode(loaded.data, alternative)[0]
            except FileError:
                continue
            if _known(other, options, most) >= 2:
                content, facts["encoding"] = other, alternative
                notes = [f"encoding {alternative}: the only one with known names of columns"]
                break
    table = grid.read(content, options.delimiter, most)
    table.notes += notes
    table.details["format"] = "delimited text"
    return table, ""


def _known(content: str, options: Options, most: int) -> int:
    """The number of columns with a known name, by the beginning of the text: a table for each encoding is too much."""
    end = content.rfind("\n", 0, _HEAD) + 1 if len(content) > _HEAD else len(content)
    try:
        table = grid.read(content[: end or _HEAD], options.delimiter, most)
    except FileError:
        return 0
    return sum(names.role(name) is not None for name in table.names)


def _instruments(table: Grid, symbol: str, options: Options, most: int) -> dict[str, Grid]:
    """The table of each instrument: by a row of tickers in the header, by a column of symbols, or one."""
    if table.headerless and not options.columns.keys() & set(PRICES):
        table.names = headerless.columns(table.rows, _values(table, options), options.date_format)
        table.notes.append(f"no header line; columns are read as {', '.join(table.names)}")
    columns, shared = _columns_of(table)
    rows = {} if columns else _rows_of(table, options)
    chosen = _chosen(list(columns or rows) or [symbol], options, most)
    if len(table.rows) * len(chosen) * len(shared) > _MOST_SHARED:
        raise FileError("too many columns that belong to no instrument: delete these columns, or divide the file")
    if columns:
        every = range(len(table.rows))
        return {name: _part(table, sorted((*shared, *columns[one])), every) for name, one in chosen.items()}
    if len(rows) < 2:
        return dict.fromkeys(chosen, table)
    return {name: _part(table, range(len(table.names)), rows[one]) for name, one in chosen.items()}


def _columns_of(table: Grid) -> tuple[dict[str, list[int]], list[int]]:
    """The places of the columns of each ticker in the header, and of those that belong to none."""
    found: dict[str, list[int]] = {}
    for at, ticker in enumerate(table.tickers):
        found.setdefault(ticker, []).append(at)
    shared = found.pop("", [])
    return found, shared if found else []


def _rows_of(table: Grid, options: Options) -> dict[str, list[int]]:
    """The places of the rows of each symbol in a column of symbols."""
    found: dict[str, list[int]] = {}
    at = names.assign(table.names, options.columns).columns.get("symbol")
    for place, name in enumerate([] if at is None else table.cells(at)):
        if name:
            found.setdefault(name, []).append(place)
    return found


def _chosen(found: Sequence[str], options: Options, most: int) -> dict[str, str]:
    """The instruments to read, by the names for the caller. Raises FileError before anything is divided."""
    chosen = {one: one for one in found}
    if options.symbol is not None:
        chosen = {one: one for one in found if one.lower() == options.symbol.lower()}
        if not chosen and len(found) > 1:
            raise FileError(f"no instrument {options.symbol!r}; there are {_named(found)}")
        chosen = chosen or {options.symbol: found[0]}
    if len(chosen) > most:
        raise FileError(f"too many instruments (max {most}, got {len(chosen)}): name one, or divide the file")
    return chosen


def _named(parts: Iterable[str]) -> str:
    """The first instruments by name, and the number of the others."""
    found = list(parts)
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more


def _part(table: Grid, columns: Sequence[int], rows: Sequence[int]) -> Grid:
    whole = len(columns) == len(table.names)
    return Grid(
        [table.names[at] for at in columns],
        # Rows are never changed in place: whole ones are the table's own, a third of the memory of a small one.
        [table.rows[place] if whole else [table.rows[place][at] for at in columns] for place in rows],
        [table.lines[place] for place in rows],
        notes=list(table.notes),
        details=table.details,
        typed=table.typed,
        dot_is_decimal=table.dot_is_decimal,
    )


def _values(table: Grid, options: Options) -> list[list[float]]:
    """All cells as numbers, NaN for others, to recognise the columns of a table without a header."""
    evidence = numerals.Evidence()
    for at in range(len(table.names)):
        evidence.add([cell if numerals.looks_like_number(cell) else "" for cell in table.cells(at)], table.lines)
    decimal = options.decimal or _decided(evidence, table)
    return [[numerals.number_or_nan(cell, decimal) for cell in row] for row in table.rows]


def _decided(evidence: numerals.Evidence, table: Grid) -> str:
    """The decimal separator. Raises FileError. Among typed numbers, which have a point, texts may have a comma."""
    decimal = evidence.decide(dot_is_decimal=table.dot_is_decimal)
    if table.typed and decimal == ",":
        cell = evidence.decimal[","]
        raise FileError(f"row {cell.row}: {cell.text!r} has a decimal comma, numbers have a point; give --decimal ,")
    return decimal


class _Reading:
    """The steps for one instrument."""

    def __init__(self, table: Grid, symbol: str, file: str, options: Options, facts: dict[str, str]) -> None:
        self._table = table
        self._file = file
        self._symbol = symbol
        self._options = options
        self._facts = facts
        self._notes = list(table.notes)
        roles = names.assign(table.names, options.columns)
        self._roles = dict(roles.columns)
        self._undecided = dict(roles.undecided)

    def bars(self, limit: int | None) -> Bars:
        self._find_time()
        self._find_close()
        self._find_volume()
        self._drop_footer()
        self._drop_empty_rows()
        if not self._table.rows:
            raise FileError("no rows with values")
        times = self._times()
        reverse = times is not None and order.descending(times.instants, self._table.lines)
        places = np.arange(len(self._table.rows))[:: -1 if reverse else 1]
        if reverse:
            self._notes.append("dates descend; bars are reversed, oldest first")
        if times is None:
            self._notes.append("no dates; rows are taken as oldest first")
        if limit is not None and len(places) > limit:
            self._notes.append(f"{len(places):,} bars; the newest {limit:,} are used")
            places = places[-limit:]
        decimal, volume_doubt = self._decimal()
        columns = self._columns(decimal, volume_doubt, places)
        self._note_facts(times, reverse, decimal, columns, len(places))
        return Bars(
            self._symbol,
            columns,
            None if times is None else times.instants[places],
            None if times is None else times.zone,
            tuple(dict.fromkeys(self._notes)),
            dict(self._facts),
            lambda name: self._named_column(name, places),
        )

    def _label(self, at: int) -> str:
        return self._table.names[at].strip() or f"column {at + 1}"

    def _find_time(self) -> None:
        """Without a known name for the time: the first column with dates, such as an unnamed index."""
        if "time" in self._roles:
            at = self._roles["time"]
            cells = [cell for cell in self._table.cells(at)[:20] if cell]
            # A column `Time` without a date beside it holds times of day only.
            if cells and all(":" in cell and times_of.looks_like_clock(cell) for cell in cells):
                raise FileError(
                    f"column {self._label(at)!r} holds times of day without dates; give --columns time=NAME"
                )
            return
        taken = set(self._roles.values())
        for recognised in (times_of.looks_like_time, times_of.looks_like_epoch):
            for at in range(len(self._table.names)):
                if at not in taken and all(recognised(cell) for cell in self._table.cells(at)):
                    self._roles["time"] = at
                    self._notes.append(f"column {self._label(at)!r} is read as the time")
                    return

    def _find_close(self) -> None:
        """Without a known name for the close: an adjusted close, else the only column of numbers."""
        if "close" in self._roles or "close" in self._undecided:
            return
        if "adjusted" in self._roles:
            self._roles["close"] = self._roles["adjusted"]
            self._notes.append(f"column {self._label(self._roles['close'])!r} is read as the close")
            return
        taken = {at for role, at in self._roles.items()}
        numeric = [at for at in range(len(self._table.names)) if at not in taken and self._is_numeric(at)]
        if len(numeric) == 1 and not self._roles.keys() & {"open", "high", "low"}:
            self._roles["close"] = numeric[0]
            self._notes.append(f"column {self._label(numeric[0])!r} is read as the close")

    def _find_volume(self) -> None:
        """The tick volume in place of a volume of zeros, as MetaTrader writes for currencies."""
        at = self._roles.get("volume")
        if at is None or "volume" in self._options.columns or set(self._table.cells(at)) - {"0", "0.0", ""}:
            return
        others = [
            place
            for place, name in enumerate(self._table.names)
            if place != at and names.role(name) == "volume" and self._is_numeric(place)
        ]
        if len(others) == 1:
            self._roles["volume"] = others[0]
            self._notes.append(f"column {self._label(at)!r} is zero; the volume is from {self._label(others[0])!r}")

    def _is_numeric(self, at: int) -> bool:
        cells = [cell for cell in self._table.cells(at) if not numerals.missing(cell)]
        return bool(cells) and all(numerals.looks_like_number(cell) for cell in cells)

    def _drop_footer(self) -> None:
        """Trailing rows with words in place of a time, such as a source or an average."""
        at = self._roles.get("time")
        if at is None:
            return
        rows, lines = self._table.rows, self._table.lines
        dropped = 0
        while len(rows) > dropped + 1 and dropped < _FOOTER_ROWS:
            cell = rows[len(rows) - 1 - dropped][at]
            if not cell or times_of.looks_like_time(cell) or any(letter.isdigit() for letter in cell[:4]):
                break
            dropped += 1
        if dropped:
            kept = len(rows) - dropped
            self._notes.append(f"row {lines[kept]} after the data skipped: {' '.join(rows[kept])[:60]!r}")
            self._keep(range(kept))

    def _keep(self, places: Sequence[int]) -> None:
        self._table.rows = [self._table.rows[at] for at in places]
        self._table.lines = [self._table.lines[at] for at in places]

    def _drop_empty_rows(self) -> None:
        """Rows without any price, and incomplete bars without a close at the beginning and at the end."""
        prices = [self._roles[role] for role in PRICES if role in self._roles]
        if not prices:
            return
        rows, lines = self._table.rows, self._table.lines
        if "close" in self._roles and not any(map(numerals.missing, self._table.cells(self._roles["close"]))):
            return
        full = [at for at, row in enumerate(rows) if not all(numerals.missing(row[place]) for place in prices)]
        if len(full) < len(rows):
            kept = set(full)
            empty = next(line for at, line in enumerate(lines) if at not in kept)
            more = f" and {len(rows) - len(full) - 1} more" if len(rows) - len(full) > 1 else ""
            self._notes.append(f"row {empty}{more} without values skipped")
        close = self._roles.get("close")
        if close is not None:
            known = [at for at, place in enumerate(full) if not numerals.missing(rows[place][close])]
            first, after = (known[0], known[-1] + 1) if known else (len(full), len(full))
            for skipped, where in ((full[:first], "first"), (full[after:], "last")):
                self._note_skipped([lines[place] for place in skipped], where)
            full = full[first:after]
        self._keep(full)

    def _note_skipped(self, lines: Sequence[int], where: str) -> None:
        """One note, since a file may have as many such rows as it has rows."""
        if len(lines) == 1:
            self._notes.append(f"row {lines[0]}: the {where} bar has no close and is skipped")
        elif lines:
            self._notes.append(f"rows {lines[0]} to {lines[-1]}: the {where} bars have no close and are skipped")

    def _times(self) -> times_of.Times | None:
        """The times of the rows. A second column of times serves if the first one is not understood."""
        at = self._roles.get("time")
        if at is None:
            return None
        header = [name.strip() for name in self._table.names]
        for row, line in zip(self._table.rows, self._table.lines, strict=True):
            if any(header) and row == header:
                raise FileError(f"row {line} is a second header; two files joined?")
        try:
            found = self._read_times(at)
        except FileError:
            if "time" in self._options.columns:
                raise
            found_elsewhere = self._other_times(at)
            if found_elsewhere is None:
                raise
            found = found_elsewhere
        if found.note:
            self._notes.append(found.note)
        return found

    def _read_times(self, at: int) -> times_of.Times:
        cells, form = self._table.cells(at), self._options.date_format
        clock = self._roles.get("clock")
        if clock is not None and clock != at and ":" not in cells[0]:
            cells = times_of.combined(cells, self._table.cells(clock), self._table.lines, form) or cells
        return times_of.read(cells, self._table.lines, form)

    def _other_times(self, at: int) -> times_of.Times | None:
        """The times in another column with the name of a time, such as `unix` beside a `date` in words."""
        for place, name in enumerate(self._table.names):
            if place not in (at, self._roles.get("clock")) and names.role(name) == "time":
                try:
                    found = times_of.read(self._table.cells(place), self._table.lines, None)
                except FileError:
                    continue
                self._notes.append(
                    f"column {self._label(at)!r} is not understood; times are from {self._label(place)!r}"
                )
                self._roles["time"] = place
                self._roles.pop("clock", None)
                return found
        return None

    def _decimal(self) -> tuple[str, str]:
        """The decimal separator, and the reason to leave out the volume if only the volume is ambiguous."""
        if self._options.decimal:
            return self._options.decimal, ""
        try:
            return self._evidence((*PRICES, "adjusted", "volume")), ""
        except FileError as doubt:
            return self._evidence((*PRICES, "adjusted")), str(doubt)

    def _evidence(self, roles: Sequence[str]) -> str:
        """The decimal separator by the columns of these roles. Raises FileError."""
        evidence = numerals.Evidence()
        for role in roles:
            if role in self._roles:
                evidence.add(self._table.cells(self._roles[role]), self._table.lines)
        return _decided(evidence, self._table)

    def _columns(self, decimal: str, volume_doubt: str, places: NDArray[np.intp]) -> dict[str, Floats]:
        """The columns by role. A column other than the close that is not whole is left out, with a note."""
        found: dict[str, Floats] = {}
        for role in (*PRICES, "volume"):
            if role in self._undecided:
                if role != "close":
                    options = " or ".join(self._undecided[role])
                    self._notes.append(f"{role}: {options}? left out; choose with --columns {role}=")
                continue
            if role not in self._roles:
                continue
            if role == "volume" and volume_doubt:
                self._notes.append(f"column {self._label(self._roles[role])!r} left out: {volume_doubt}")
                continue
            try:
                found[role] = self._floats(self._roles[role], decimal, places)
            except FileError as error:
                if role == "close":
                    raise
                self._notes.append(f"column {self._label(self._roles[role])!r} left out: {error}")
        self._check_adjusted(found, decimal, places)
        return found

    def _check_adjusted(self, found: dict[str, Floats], decimal: str, places: NDArray[np.intp]) -> None:
        """Unadjusted open, high and low beside an adjusted close are left out; an unused adjusted close is named."""
        at = self._roles.get("adjusted")
        if at is None or "close" not in found:
            return
        if self._roles["close"] == at:
            low, high, close = found.get("low"), found.get("high"), found["close"]
            if (low is not None and (close < low).any()) or (high is not None and (close > high).any()):
                for role in ("open", "high", "low"):
                    found.pop(role, None)
                self._notes.append("open, high and low are not adjusted like the close, and are left out")
            return
        try:
            adjusted = self._floats(at, decimal, places)
        except FileError:
            return
        if not np.allclose(adjusted, found["close"], rtol=1e-4):
            label = self._label(at)
            self._notes.append(f"closes are not adjusted; for {label!r} give --columns close={label!r}")

    def _floats(self, at: int, decimal: str, places: NDArray[np.intp]) -> Floats:
        """One whole column. Raises FileError for the first missing or invalid value."""
        lines = self._table.lines
        values = numerals.numbers(self._table.cells(at), lines, decimal, self._label(at))
        array = np.array(values, dtype=np.float64)
        gaps = np.flatnonzero(np.isnan(array[places]))
        if len(gaps) == len(places):
            raise FileError("the column is empty")
        if len(gaps):
            first = lines[int(places[int(gaps[0])])]
            raise FileError(
                f"row {first}: column {self._label(at)!r} has no value"
                f"{f' ({len(gaps)} such rows)' if len(gaps) > 1 else ''}; fill or delete the row"
            )
        infinite = np.flatnonzero(np.isinf(array))
        if len(infinite):
            raise FileError(f"row {lines[int(infinite[0])]}: column {self._label(at)!r} is not finite")
        kept: Floats = array[places]
        return kept

    def _named_column(self, name: str, places: NDArray[np.intp]) -> Floats:
        """A column for `Bars.column`. Raises FileError with the name of the file."""
        try:
            return self._any_column(name, places)
        except FileError as error:
            raise FileError(f"{self._file}: {error}") from None

    def _any_column(self, name: str, places: NDArray[np.intp]) -> Floats:
        """A column by role or by name in the file. Raises FileError."""
        if name.lower() in self._undecided:
            options = " or ".join(self._undecided[name.lower()])
            raise FileError(f"{name}: {options}? choose with --columns {name.lower()}=")
        try:
            at = self._roles[name.lower()] if name.lower() in self._roles else names.find(self._table.names, name)
        except FileError:
            hint = "; give --columns close=NAME" if name.lower() == "close" else ""
            raise FileError(f"no column {name!r}; there are {names.listed(self._table.names)}{hint}") from None
        cells, evidence = self._table.cells(at), numerals.Evidence()
        evidence.add(cells, self._table.lines)
        decimal = self._options.decimal or _decided(evidence, self._table)
        whole = [place for place in places.tolist() if not numerals.missing(cells[place])]
        if not whole:
            raise FileError(f"column {name!r} is empty")
        inside = places[places.tolist().index(whole[0]) : places.tolist().index(whole[-1]) + 1]
        return self._floats(at, decimal, inside)

    def _note_facts(
        self,
        times: times_of.Times | None,
        reverse: bool,
        decimal: str,
        columns: dict[str, Floats],
        bars: int,
    ) -> None:
        for name in numerals.percentages({role: self._table.cells(self._roles[role]) for role in columns}):
            self._notes.append(f"{name}: percent signs are dropped, 0.12% is read as 0.12")
        roles = [f"{role} from {self._label(self._roles[role])!r}" for role in columns]
        used = {self._roles[role] for role in columns} | {self._roles.get("time"), self._roles.get("clock")}
        ignored = [self._label(at) for at in range(len(self._table.names)) if at not in used]
        self._facts["columns"] = ", ".join(roles) or "none"
        if ignored:
            self._facts["not used"] = ", ".join(ignored)
        if not self._table.typed:
            self._facts["decimal"] = decimal
        self._facts["bars"] = f"{bars:,}"
        if times is None:
            return
        label = self._label(self._roles["time"])
        if "clock" in self._roles:
            label += f" and {self._label(self._roles['clock'])}"
        self._facts["time"] = f"{label} ({times.format}; {times.zone or 'no time zone'})"
        self._facts["order"] = "newest first, reversed" if reverse else "oldest first"
