"""Times from text: ISO 8601, epochs, compact dates, numeric dates in any order, and names of months.

Owns the decision between day and month in 01/02/2024: by evidence in the whole column, never by a guess.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
from numpy.typing import NDArray

from market_inference.client.files.error import FileError

Instants = NDArray[np.datetime64]

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 -- naive wall-clock times are compared with it
_LAST_INSTANT = 2**63 - 10**9
_UNITS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
FIRST_YEAR, LAST_YEAR = 1678, 2261
"""The years that datetime64[ns] holds whole; beyond these it would begin again from the other end."""
_WIDEST_OFFSET = timedelta(hours=15)
_EARLIEST, _LATEST = 1e8, 4.2e9
"""Seconds since the epoch that count as plausible: 1973 to 2103."""
_ORDERS = ("DMY", "MDY", "YMD")
_MONTHS = {
    name: at
    for names in (
        "jan feb mar apr may jun jul aug sep oct nov dec",
        "januar februar märz april mai juni juli august september oktober november dezember",
        "january february march april may june july august september october november december",
        "jän feb mrz apr mai jun jul aug sept okt nov dez",
        "janv févr mars avr mai juin juil août sept oct nov déc",
        "ene feb mar abr may jun jul ago sept oct nov dic",
    )
    for at, name in enumerate(names.split(), start=1)
}
_ZONES = {"EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "PST": -8, "PDT": -7, "CET": 1, "CEST": 2, "BST": 1, "JST": 9}
_WEEKDAY = re.compile(r"^(mon|tue|wed|thu|fri|sat|sun)[a-z]*\.?,?\s+", re.IGNORECASE)
_CLOCK = re.compile(
    r"(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,9}))?)?"
    r"\s*(?P<half>[AaPp]\.?[Mm]\.?)?"
)
_NUMERIC = re.compile(r"(\d{1,4})\s?([-./ ])\s?(\d{1,2})\s?\2\s?(\d{1,4})\.?")
_UNIFORM = {"--", "--T:", "-- :", "--T::", "-- ::"}
"""What stands between the parts of a date, and of a date with a time of day; an offset from UTC has other signs."""
_NAMED = (
    re.compile(r"(?P<month>[^\W\d]{3,9})\.?\s*[- ]?(?P<day>\d{1,2})(?:st|nd|rd|th)?,?[- ]\s*(?P<year>\d{4}|\d{2})"),
    re.compile(r"(?P<day>\d{1,2})\.?[- /]?(?P<month>[^\W\d]{3,9})\.?,?[- /]?(?P<year>\d{4}|\d{2})"),
    re.compile(r"(?P<year>\d{4})[- /](?P<month>[^\W\d]{3,9})\.?[- /](?P<day>\d{1,2})"),
)


@dataclass(frozen=True, slots=True)
class Times:
    """`instants`: datetime64[ns] [n], in UTC if `zone` is not None, else wall-clock time without a zone.

    `format`: the format for messages. `note`: a decision worth telling, or "".
    """

    instants: Instants
    zone: str | None
    format: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class _Parsed:
    """A time in one cell: wall clock, nanoseconds below a microsecond, and the offset from UTC or None."""

    wall: datetime
    nanoseconds: int = 0
    offset: timedelta | None = None


def looks_like_time(text: str) -> bool:
    """Whether the cell is a date or a time with a date, in any notation except a bare number."""
    try:
        return bool(text.strip()) and not text.strip().isdigit() and _any(text.strip()) is not None
    except FileError:
        return False


def looks_like_epoch(text: str) -> bool:
    """Whether the cell is a time since the epoch: 9 or 10 digits for seconds, 13, 16 or 19 for finer units."""
    return re.fullmatch(r"\d{9,10}(\.\d+)?|\d{13}|\d{16}|\d{19}", text.strip()) is not None


def looks_like_clock(text: str) -> bool:
    """Whether the cell is a time of day without a date."""
    return _CLOCK.fullmatch(text.strip()) is not None or bool(re.fullmatch(r"\d{4}|\d{6}", text.strip()))


def read(texts: Sequence[str], rows: Sequence[int], date_format: str | None) -> Times:
    """The times of a column. Raises FileError with the row of a cell that is no time, or for an ambiguous column."""
    cells = [text.strip().strip("'") for text in texts]
    if date_format:
        return _given(cells, rows, date_format)
    if all(_is_number(cell) for cell in cells):
        return _numeric(cells, rows)
    if (instants := _uniform(cells, rows)) is not None:
        return Times(instants, None, "ISO 8601")
    if any(_NUMERIC.fullmatch(_split(cell)[0]) for cell in cells):
        return _ordered([_split(cell) for cell in cells], cells, rows)
    return _assembled([_row(_any(cell), cell, row) for cell, row in zip(cells, rows, strict=True)], rows, "by cell")


def _uniform(cells: Sequence[str], rows: Sequence[int]) -> Instants | None:
    """The times of a column of dates such as 2024-01-02, all with or all without a time of day; None for others."""
    if {len(cell) for cell in cells} not in ({10}, {16}, {19}):
        return None
    if {cell[4] + cell[7] + cell[10:17:3] for cell in cells} - _UNIFORM:
        return None
    try:
        found = np.array(cells, dtype="datetime64[s]")
    except ValueError:
        return None
    if len(outside := beyond(found)):
        raise _outside(cells[int(outside[0])], rows[int(outside[0])])
    return found.astype("datetime64[ns]")


def beyond(times: Instants) -> NDArray[np.intp]:
    """The places of times, in any unit, that datetime64[ns] cannot hold: numpy gives other times without a word."""
    if times.dtype == np.dtype("datetime64[ns]"):
        return np.empty(0, dtype=np.intp)
    years = times.astype("datetime64[Y]").astype(np.int64) + 1970
    return np.flatnonzero((years < FIRST_YEAR) | (years > LAST_YEAR))


def _outside(shown: object, row: int) -> FileError:
    return FileError(f"row {row}: {str(shown)[:40]!r} is not within the years {FIRST_YEAR} to {LAST_YEAR}")


def _row(found: _Parsed | None, cell: str, row: int) -> _Parsed:
    if found is None:
        raise FileError(f"row {row}: {cell[:40]!r} is not a date or time; give --date-format, such as %d.%m.%Y")
    return found


def _is_number(cell: str) -> bool:
    return bool(re.fullmatch(r"\d+(\.\d+)?", cell))


def _given(cells: Sequence[str], rows: Sequence[int], date_format: str) -> Times:
    if date_format in _UNITS:
        return _epochs(cells, rows, date_format)
    if date_format.upper() in _ORDERS:
        return _ordered([_split(cell) for cell in cells], cells, rows, (date_format.upper(),))
    if date_format == "excel":
        return _serials(cells, rows)
    if "%" not in date_format:
        raise FileError(
            f"--date-format {date_format!r}: expected a strptime format such as %d.%m.%Y, or one of "
            f"{', '.join((*_ORDERS, *_UNITS, 'excel'))}"
        )
    found = []
    for cell, row in zip(cells, rows, strict=True):
        try:
            wall = datetime.strptime(cell, date_format)  # noqa: DTZ007 -- the zone is kept where the format has one
        except ValueError:
            raise FileError(f"row {row}: {cell[:40]!r} does not match --date-format {date_format!r}") from None
        except re.error:
            raise FileError(f"--date-format {date_format[:40]!r} has a directive twice") from None
        found.append(_Parsed(wall.replace(tzinfo=None), 0, wall.utcoffset()))
    return _assembled(found, rows, date_format)


def _numeric(cells: Sequence[str], rows: Sequence[int]) -> Times:
    """Columns of bare numbers: epochs by size, else compact dates such as 20240102 or 202401021530."""
    whole = [cell.partition(".")[0] for cell in cells]
    lengths = {len(cell) for cell in whole}
    if lengths <= {8, 12, 14} and len(lengths) == 1:
        compact = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}[lengths.pop()]
        found = []
        for cell, row in zip(cells, rows, strict=True):
            try:
                found.append(_Parsed(datetime.strptime(cell, compact)))  # noqa: DTZ007
            except ValueError:
                raise FileError(f"row {row}: {cell!r} is not a date of the form {compact}") from None
        return _assembled(found, rows, compact)
    units = {_unit(float(cell)) for cell in cells}
    if None not in units:
        return _epochs(cells, rows, None)
    at = next(at for at, cell in enumerate(cells) if _unit(float(cell)) is None)
    reason = "a serial date of a spreadsheet? give --date-format excel" if len(whole[at]) == 5 else "give --date-format"
    raise FileError(f"row {rows[at]}: {cells[at][:40]!r} is not a time ({reason})")


def _unit(value: float) -> str | None:
    for name, nanoseconds in _UNITS.items():
        if _EARLIEST <= value * nanoseconds / 1e9 <= _LATEST:
            return name
    return None


def _epochs(cells: Sequence[str], rows: Sequence[int], unit: str | None) -> Times:
    """Epochs in one unit, or in the unit of each cell: Binance and CryptoDataDownload changed the unit within files."""
    found: list[int] = []
    seen: list[str] = []
    for cell, row in zip(cells, rows, strict=True):
        if not _is_number(cell):
            raise FileError(f"row {row}: {cell[:40]!r} is not a time since the epoch")
        own = unit or _unit(float(cell)) or "s"
        whole, _, fraction = cell.partition(".")
        scale = _UNITS[own]
        if len(whole) > 19 or int(whole) * scale > _LAST_INSTANT:
            raise _outside(cell, row)
        found.append(int(whole) * scale + int(float(f"0.{fraction or 0}") * scale))
        if own not in seen:
            seen.append(own)
    note = f"epochs change the unit within the file ({' and '.join(seen)})" if len(seen) > 1 else ""
    instants = np.array(found, dtype="datetime64[ns]")
    return Times(instants, "UTC", f"epoch in {' and '.join(seen)}", note)


def _serials(cells: Sequence[str], rows: Sequence[int]) -> Times:
    """Days since 1899-12-30, as spreadsheets count."""
    found = []
    for cell, row in zip(cells, rows, strict=True):
        if not _is_number(cell) or not 1 <= float(cell) < 110_000:
            raise FileError(f"row {row}: {cell[:40]!r} is not a serial date of a spreadsheet")
        seconds = round(float(cell) * 86400)
        found.append(_Parsed(datetime(1899, 12, 30) + timedelta(seconds=seconds)))  # noqa: DTZ001
    return _assembled(found, rows, "excel")


def _split(cell: str) -> tuple[str, str]:
    """A date without weekday, and the rest with the time of day."""
    text = _WEEKDAY.sub("", cell)
    found = _NUMERIC.match(text)
    if found and (found.end() == len(text) or text[found.end()] in " T,;"):
        return found[0], text[found.end() :].lstrip("T,; ")
    return text, ""


def _ordered(
    split: Sequence[tuple[str, str]], cells: Sequence[str], rows: Sequence[int], orders: Sequence[str] = _ORDERS
) -> Times:
    """Numeric dates in the only order of day, month and year that fits every row."""
    triples: list[tuple[str, str, str]] = []
    shared: dict[
        str, str
    ] = {}  # days, months and years repeat: three texts a row would take more memory than the cells
    for (date, _), cell, row in zip(split, cells, rows, strict=True):
        found = _NUMERIC.fullmatch(date)
        if found is None:
            raise FileError(f"row {row}: {cell[:40]!r} is not a date like {cells[0][:40]!r} in row {rows[0]}")
        first, second, third = found.group(1, 3, 4)
        triples.append(
            (shared.setdefault(first, first), shared.setdefault(second, second), shared.setdefault(third, third))
        )
    readings: dict[str, list[datetime]] = {}
    failed: dict[str, int] = {}
    for order in orders:
        days: list[datetime] = []
        for at, triple in enumerate(triples):
            day = _day(triple, order)
            if day is None:
                failed[order] = at
                break
            days.append(day)
        else:
            readings[order] = days
    if not readings:
        at = max(failed.values())
        raise FileError(
            f"row {rows[at]}: {cells[at][:40]!r} is not a date with day, month and year placed as in the rows before"
        )
    dotted = "." in split[0][0]
    order, note = _decided(readings, split, rows, cells, dotted=dotted)
    parsed = []
    for day, (_, clock), cell, row in zip(readings[order], split, cells, rows, strict=True):
        parsed.append(_row(_with_clock(day, clock), cell, row))
    return _assembled(parsed, rows, order, note if len(orders) > 1 else "")


def _decided(
    readings: dict[str, list[datetime]],
    split: Sequence[tuple[str, str]],
    rows: Sequence[int],
    cells: Sequence[str],
    *,
    dotted: bool,
) -> tuple[str, str]:
    """The order of day, month and year, and a note on the evidence. Raises FileError for an ambiguous column."""
    distinct: dict[tuple[datetime, ...], str] = {}
    for order, days in readings.items():
        distinct.setdefault(tuple(days), order)
    left = list(distinct.values())
    if len(left) == 1:
        return left[0], ""
    if dotted and "DMY" in left and len(split[0][0].rstrip(".").rpartition(".")[2]) == 4:
        return "DMY", "dates with dots are read as day.month.year"
    sorted_ones = [order for order in left if _monotonic(readings[order], split)]
    if len(sorted_ones) == 1:
        return sorted_ones[0], f"dates are read as {sorted_ones[0]}: only then the rows are sorted by time"
    shown = " or ".join(f"{readings[order][0]:%d %b %Y} ({order})" for order in left)
    raise FileError(
        f"row {rows[0]}: {cells[0][:40]!r} may be {shown}, and no row decides; give --date-format {' or '.join(left)}"
    )


def _monotonic(days: Sequence[datetime], split: Sequence[tuple[str, str]]) -> bool:
    """Whether the dates are sorted, in either direction, and change."""
    times = [(_with_clock(day, clock) or _Parsed(day)).wall for day, (_, clock) in zip(days, split, strict=True)]
    steps = {(later > earlier) - (later < earlier) for earlier, later in pairwise(times)} - {0}
    return len(steps) == 1


def _day(triple: tuple[str, str, str], order: str) -> datetime | None:
    parts = dict(zip(order, triple, strict=True))
    year = _year(parts["Y"])
    if year is None or len(parts["D"]) > 2 or len(parts["M"]) > 2:
        return None
    try:
        return datetime(year, int(parts["M"]), int(parts["D"]))  # noqa: DTZ001
    except ValueError:
        return None


def _year(text: str) -> int | None:
    """A year of four digits, or of two digits as POSIX reads them: 69 to 99 are 1969 to 1999."""
    if len(text) == 4:
        return int(text)
    return None if len(text) != 2 else int(text) + (1900 if int(text) > 68 else 2000)


def _any(cell: str) -> _Parsed | None:
    """A time in ISO 8601 or with the name of a month."""
    text = _WEEKDAY.sub("", cell)
    if len(text) >= 8:
        try:
            found = datetime.fromisoformat(_iso(text))
            extra = re.search(r"\.\d{6}(\d{1,3})", text)
            return _Parsed(found.replace(tzinfo=None), int(extra[1].ljust(3, "0")) if extra else 0, found.utcoffset())
        except ValueError:
            pass
    date, clock = _split(text)
    numeric = _NUMERIC.fullmatch(date)
    if numeric:
        days = {_day((numeric[1], numeric[3], numeric[4]), order) for order in _ORDERS} - {None}
        return _with_clock(next(iter(days)), clock) if days else None  # type: ignore[arg-type]
    for pattern in _NAMED:
        if named := pattern.match(text):
            month = _MONTHS.get(named["month"].lower().rstrip("."))
            year = _year(named["year"])
            if month and year:
                try:
                    day = datetime(year, month, int(named["day"]))  # noqa: DTZ001
                except ValueError:
                    return None
                return _with_clock(day, text[named.end() :].lstrip(", T"))
    monthly = re.fullmatch(r"(\d{4})[-/.M](\d{1,2})", text)
    if monthly and 1 <= int(monthly[2]) <= 12:
        return _Parsed(datetime(int(monthly[1]), int(monthly[2]), 1))  # noqa: DTZ001
    compact = re.fullmatch(r"(\d{8})\s++(.+)", text)
    if compact:
        try:
            return _with_clock(datetime.strptime(compact[1], "%Y%m%d"), compact[2])  # noqa: DTZ007
        except ValueError:
            return None
    return None


def _iso(text: str) -> str:
    """ISO 8601 for datetime.fromisoformat: a space before the offset and more than six digits are removed."""
    text = re.sub(r"(\.\d{6})\d+", r"\1", text)
    # The search begins at the first space of a run only: from each space on, it would take quadratic time.
    text = re.sub(r"(?<!\s)\s++(?=[+-]\d{2}:?\d{2}$)", "", text)
    return re.sub(r"(?<!\s)\s*+(UTC|Z|GMT)$", "+00:00", text)


def _with_clock(day: datetime, clock: str) -> _Parsed | None:
    """The day with a time of day and a zone in text."""
    if not clock:
        return _Parsed(day)
    found = _CLOCK.match(clock)
    if found is None:
        compact = re.match(r"(\d{2})(\d{2})(\d{2})?(?!\d)", clock)
        if compact is None:
            return None
        hour, minute, second, fraction, rest = compact[1], compact[2], compact[3], "", clock[compact.end() :]
    else:
        hour, minute, second = found["hour"], found["minute"], found["second"]
        fraction, rest = found["fraction"] or "", clock[found.end() :]
    hours = int(hour)
    if found and found["half"]:
        hours = hours % 12 + (12 if found["half"][0] in "pP" else 0)
    try:
        wall = day.replace(hour=hours, minute=int(minute), second=int(second or 0))
    except ValueError:
        return None
    digits = fraction.ljust(9, "0")
    wall = wall.replace(microsecond=int(digits[:6]))
    try:
        return _Parsed(wall, int(digits[6:]), _offset(rest.strip(), wall))
    except ValueError:
        return None


def _offset(text: str, wall: datetime) -> timedelta | None:
    """The offset from UTC of a zone in text at a wall-clock time; None without a zone. Raises ValueError."""
    text = text.strip("()")
    if not text:
        return None
    if found := re.fullmatch(r"(?:GMT|UTC|Z)?\s*([+-])(\d{1,2}):?(\d{2})?", text):
        size = timedelta(hours=int(found[2]), minutes=int(found[3] or 0))
        if size > _WIDEST_OFFSET or int(found[3] or 0) > 59:
            raise ValueError(f"no offset from UTC {text!r}")
        return size if found[1] == "+" else -size
    if text in {"UTC", "GMT", "Z"}:
        return timedelta(0)
    if text in _ZONES:
        return timedelta(hours=_ZONES[text])
    try:
        return ZoneInfo(text).utcoffset(wall)
    except (ZoneInfoNotFoundError, OSError):
        raise ValueError(f"unknown time zone {text!r}") from None


def _assembled(found: Sequence[_Parsed], rows: Sequence[int], label: str, note: str = "") -> Times:
    """The instants of a column. Raises FileError when only some cells have a zone, and for a year out of range."""
    for one, row in zip(found, rows, strict=True):
        if not FIRST_YEAR <= one.wall.year <= LAST_YEAR:
            raise _outside(one.wall, row)
    offsets = {one.offset for one in found}
    if None in offsets and len(offsets) > 1:
        raise FileError("some times have a time zone and others have none; make the column uniform")
    stamps = np.fromiter(
        (
            ((one.wall - (one.offset or timedelta(0)) - _EPOCH) // timedelta(microseconds=1)) * 1000 + one.nanoseconds
            for one in found
        ),
        np.int64,
        len(found),
    )
    zone = None if None in offsets else "UTC"
    if zone and offsets != {timedelta(0)}:
        names = " and ".join(sorted(_signed(offset) for offset in offsets if offset is not None))
        note = "; ".join(filter(None, (note, f"times with offset {names} are converted to UTC")))
    return Times(stamps.astype("datetime64[ns]"), zone, label, note)


def _signed(offset: timedelta) -> str:
    minutes = int(offset.total_seconds()) // 60
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"


def combined(
    dates: Sequence[str], clocks: Sequence[str], rows: Sequence[int], date_format: str | None
) -> list[str] | None:
    """Cells with a date and a time of day from two columns; None if the second column holds no times of day.

    Times of day may be numbers without leading zeros: 930 is 09:30 in a column of up to four digits, 93000 is 09:30:00.
    Raises FileError for numbers that may be hours or minutes, unless the format says which.
    """
    texts = [clock.strip() for clock in clocks]
    if all(text.isdecimal() and len(text) <= 6 for text in texts):
        width = 4 if max(map(len, texts)) <= 4 else 6
        if 0 < max(map(int, texts)) < 24 and max(map(len, texts)) <= 2:
            if "%H" not in (date_format or ""):
                at = next(at for at, text in enumerate(texts) if int(text))
                raise FileError(
                    f"row {rows[at]}: the time of day {texts[at]!r} may be the hour or the minute, and no row decides; "
                    "give --date-format with %H, or with %H:%M for minutes, such as '%Y%m%d %H'"
                )
            width = 4 if "%M" in str(date_format) else 2
        padded = [text.zfill(width) for text in texts]
        texts = [":".join(text[at : at + 2] for at in range(0, width, 2)) for text in padded]
    elif not all(_CLOCK.match(text) for text in texts):
        return None
    return [f"{date} {text}".strip() for date, text in zip(dates, texts, strict=True)]
