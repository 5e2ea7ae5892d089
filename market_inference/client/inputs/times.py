"""Instants of bars, and the order of rows in time.

Owns the kinds of times: datetimes, dates, pandas' timestamps and periods, numpy's datetime64, text, and whole numbers
since the epoch. The size of a number gives the unit: seconds, milliseconds, microseconds or nanoseconds. A time without
a zone is UTC. files/instants.py reads columns of text, as in files, and decides between day and month by the whole
column.
"""

import re
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from market_inference.client.files import instants as of_text
from market_inference.client.files.error import FileError
from market_inference.client.inputs.arguments import shown
from market_inference.client.inputs.column import as_array, is_missing
from market_inference.client.inputs.items import Instants
from market_inference.errors import ArgumentError

EXPECTED = "a datetime, ISO 8601 text, or a whole number since the epoch"
# Seconds since the epoch from 1973 to 5138; times 1000 for each finer unit. Smaller numbers are nanoseconds.
_UNITS = ((10**8, 10**11, 10**9), (10**11, 10**14, 10**6), (10**14, 10**17, 10**3))
_YEARS = (1800, 2200)
_SLASHED = re.compile(r"(\d{4})/(\d{1,2})/(\d{1,2})(.*)")

_RANGE = f"give times within the years {of_text.FIRST_YEAR} to {of_text.LAST_YEAR}"


def nanoseconds(time: object, field: str = "time") -> int:
    """Nanoseconds since the epoch. Raises ArgumentError."""
    found = _instant(time)
    if found is None and _is_beyond(time):
        raise ArgumentError(field, f"got {shown(time)}: {_RANGE}")
    if found is None:
        raise ArgumentError(field, f"expected {EXPECTED}, got {shown(time)}")
    return found


def instants(values: Any, field: str) -> Instants:
    """A column of times [n]. Raises ArgumentError with the first row without a time."""
    array = as_array(_in_utc(values), field)
    if array.ndim != 1:
        raise ArgumentError(field, f"expected one time for each row, got shape {array.shape}")
    if array.dtype.kind == "M":
        missing = np.flatnonzero(np.isnat(array))
        if missing.size:
            raise ArgumentError(field, f"row {missing[0]} (counted from 0) has no time: leave such rows out")
        if len(outside := of_text.beyond(array)):
            at = int(outside[0])
            raise ArgumentError(field, f"row {at} (counted from 0) holds {shown(array[at])}: {_RANGE}")
        return array.astype("datetime64[ns]").astype(np.int64)
    cells = array.tolist()
    if cells and all(isinstance(cell, str) for cell in cells):
        return _of_texts(cells, field)
    found = [_instant(value) for value in cells] if array.dtype.kind != "O" else [*map(_instant, array)]
    for at, one in enumerate(found):
        if one is None and _is_beyond(array[at]):
            raise ArgumentError(field, f"row {at} (counted from 0) holds {shown(array[at])}: {_RANGE}")
        if one is None:
            raise ArgumentError(
                field, f"row {at} (counted from 0) holds {shown(array[at])}, no time: give {EXPECTED} in every row"
            )
    return np.array(found, dtype=np.int64)


def are_times(values: Any) -> bool:
    """Whether a column or an index holds times, by the type and the first value.

    A column of whole numbers holds times if all numbers are epochs, or dates such as 20240105, or descending years.
    """
    kind = np.asarray(values[:1]).dtype.kind
    if kind == "M":
        return True
    if kind in "iu" and len(values):
        return _are_epochs(np.asarray(values))
    if kind not in "OUT" or not len(values):
        return False
    first = np.asarray(values[:1])[0]
    if isinstance(first, str):
        return of_text.looks_like_time(first)
    return not isinstance(first, int | float | np.number) and _instant(first) is not None


def _are_epochs(numbers: NDArray[Any]) -> bool:
    least, most = int(numbers.min()), int(numbers.max())
    if least >= _UNITS[0][0]:
        return True
    if _is_compact(least) and _is_compact(most):
        return all(_read(str(number)) is not None for number in numbers.tolist())
    years = _YEARS[0] <= least and most <= _YEARS[1] and len(numbers) > 1
    return years and bool((np.diff(numbers) < 0).all())


def _is_compact(number: int) -> bool:
    """Whether the number may be a date such as 20240105."""
    return 19_000_101 <= number <= 21_001_231


def label(instant: int) -> str:
    """An instant for an error: the date alone at midnight UTC."""
    text = str(np.datetime64(int(instant), "ns")).removesuffix("000000").removesuffix(".000")
    return text.removesuffix("T00:00:00")


def reversed_note(column: str) -> str:
    """The note on reversed rows."""
    return f"{column} descends, newest first: the rows were reversed to oldest first"


def order(times: Instants, field: str) -> NDArray[np.int64] | None:
    """The positions of strictly descending rows, oldest first; None for ascending rows.

    Raises ArgumentError with the positions of two rows out of order or with the same time.
    """
    steps = np.sign(np.diff(times))
    if (steps > 0).all():
        return None
    if (steps < 0).all():
        return np.arange(len(times) - 1, -1, -1)
    rising = (steps > 0).sum() >= (steps < 0).sum()
    at = int(np.flatnonzero(steps <= 0 if rising else steps >= 0)[0])
    first, second = label(times[at]), label(times[at + 1])
    where = f"rows {at} and {at + 1} (counted from 0)"
    if first == second or steps[at] == 0:
        raise ArgumentError(field, f"{where} have the same time {first}: give one symbol's rows, one row for each time")
    raise ArgumentError(field, f"{where} are out of order, {second} follows {first}: sort the rows by time")


def _of_texts(cells: list[str], field: str) -> Instants:
    try:
        found = of_text.read(cells, range(len(cells)), None)
    except FileError as error:
        reason = str(error).partition("; give")[0]
        raise ArgumentError(
            field, f"{reason} (rows counted from 0): convert the column, as with pandas.to_datetime, or leave it out"
        ) from None
    return found.instants.astype("datetime64[ns]").astype(np.int64)


def _in_utc(values: Any) -> Any:
    """A pandas index or column with a zone as the same instants in UTC; a period as the first instant."""
    if type(values).__name__ == "PeriodIndex":
        return values.to_timestamp()
    if hasattr(values, "tz_convert") and getattr(values, "tz", None) is not None:
        return values.tz_convert("UTC").tz_localize(None)
    return values


def _instant(value: Any) -> int | None:
    """Nanoseconds since the epoch, None for a value that is no time."""
    if is_missing(value) or isinstance(value, bool | np.bool_):
        return None
    if isinstance(value, np.datetime64):
        known = not np.isnat(value) and not len(of_text.beyond(np.array([value])))
        return int(value.astype("datetime64[ns]").astype(np.int64)) if known else None
    if isinstance(value, datetime):
        if not of_text.FIRST_YEAR <= value.year <= of_text.LAST_YEAR:  # a Timestamp beyond the years has no `value`
            return None
        if (exact := getattr(value, "value", None)) is not None:  # a pandas Timestamp, exact to the nanosecond
            return int(exact)
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        return round(aware.timestamp() * 1e6) * 1000
    if isinstance(value, date):
        return _instant(datetime(value.year, value.month, value.day, tzinfo=UTC))
    if hasattr(value, "to_timestamp"):  # a pandas Period
        if _is_beyond(value):
            return None
        return _instant(value.to_timestamp())
    if isinstance(value, str):
        return _read(value.strip())
    return _since_epoch(value)


def _is_beyond(value: Any) -> bool:
    """Whether the value is a time beyond the range of nanoseconds in 64 bits."""
    if is_missing(value):
        return False
    if isinstance(value, np.datetime64):
        return not np.isnat(value) and bool(len(of_text.beyond(np.array([value]))))
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            return False
    year = value.year if isinstance(value, date) or hasattr(value, "to_timestamp") else of_text.FIRST_YEAR
    return not of_text.FIRST_YEAR <= year <= of_text.LAST_YEAR


def _since_epoch(value: Any) -> int | None:
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    if not isinstance(value, int | np.integer):
        return None
    number = int(value)
    if _is_compact(number) and (day := _read(str(number))) is not None:  # a date such as 20240105
        return day
    for least, above, factor in _UNITS:
        if least <= abs(number) < above:
            number *= factor
            break
    return number if abs(number) < 1 << 63 else None


def _read(text: str) -> int | None:
    if slashed := _SLASHED.fullmatch(text):
        year, month, day, rest = slashed.groups()
        text = f"{year}-{month:0>2}-{day:0>2}{rest}"
    try:
        return _instant(datetime.fromisoformat(text))
    except ValueError:
        return None
