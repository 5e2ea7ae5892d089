"""Dates after the newest row of a series.

Owns the rule for the step: the index's own frequency; else an exchange's calendar, where the caller names one; else a
step that the rows show without exception (equal steps, months, working days). Where there is none, a forecast has step
numbers: a guessed date would be wrong without a sign.
"""

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from market_inference.client.inputs import times
from market_inference.client.inputs.items import Instants
from market_inference.errors import ArgumentError

DAY = 86_400 * 10**9
# Least share of one-day steps, and longest step in working days, of rows that skip nothing but weekends and holidays.
_WORKING_DAY_SHARE = 0.9
_LONGEST_CLOSURE = 3
_LEAST_ROWS = 3
# Calendar days that hold one session on average, with room for holidays and weekends.
_DAYS_PER_SESSION = 2


def following(index: Any, horizon: int, calendar: str = "") -> Any:
    """The labels of the `horizon` steps after an index's newest row; None where the rows show no regular step.

    `index`: a pandas index, a polars column or an array, oldest first. `calendar`: a name of exchange_calendars, such
    as "XNYS". A pandas index gives a pandas index with the same zone, everything else datetime64[ns] [horizon].
    Raises ArgumentError for an unknown calendar, or one without dates to continue.
    """
    known = index is not None and len(index) and times.are_times(index)
    if calendar:
        if not known:
            raise ArgumentError("calendar", "the series has no dates to continue: give a frame with dates")
        return _of_calendar(index, horizon, calendar)
    if not known:
        return None
    if type(index).__name__ == "PeriodIndex":
        return type(index)([index[-1] + step for step in range(1, horizon + 1)], name=index.name)
    frequency = getattr(index, "freq", None)
    if frequency is not None:
        pandas = import_module("pandas")
        return pandas.date_range(index[-1], periods=horizon + 1, freq=frequency, name=index.name)[1:]
    zone = getattr(index, "tz", None)
    wall = times.instants(index.tz_localize(None) if zone is not None else index, "index")
    found = _equal(times.instants(index, "index"), horizon) if zone is not None and _intraday(wall) else None
    if found is not None:
        return _as_index(found, index, "UTC")
    found = _regular(wall, horizon)
    return None if found is None else _as_index(found, index, zone)


def _intraday(wall: Instants) -> bool:
    """Whether the rows lie at several times of the day: their step is then a span of time, also over a clock change."""
    return len(np.unique(wall % DAY)) > 1


def _as_index(instants: Instants, index: Any, zone: Any) -> Any:
    labels = instants.astype("datetime64[ns]")
    if not hasattr(index, "tz"):
        return labels
    made = import_module("pandas").DatetimeIndex(labels, name=index.name)
    if zone is None:
        return made
    if zone == "UTC":
        return made.tz_localize("UTC").tz_convert(index.tz)
    return made.tz_localize(zone, nonexistent="shift_forward", ambiguous=np.zeros(len(made), dtype=bool))


def _regular(wall: Instants, horizon: int) -> Instants | None:
    """The next instants by a step without exception; None when there is none."""
    if len(wall) < _LEAST_ROWS:
        return None
    if _intraday(wall):
        return _equal(wall, horizon)
    # Months before equal steps: three month ends may lie 31 days apart.
    for rule in (_months, _equal, _working_days):
        if (found := rule(wall, horizon)) is not None:
            return found
    return None


def _equal(instants: Instants, horizon: int) -> Instants | None:
    if len(instants) < _LEAST_ROWS:
        return None
    steps = np.diff(instants)
    return instants[-1] + steps[0] * np.arange(1, horizon + 1) if (steps == steps[0]).all() else None


def _months(wall: Instants, horizon: int) -> Instants | None:
    """Rows on one day of the month, or on the last day of each month, an equal number of months apart."""
    days = wall.astype("datetime64[ns]").astype("datetime64[D]")
    months = days.astype("datetime64[M]")
    steps = np.diff(months.astype(np.int64))
    if steps[0] < 1 or (steps != steps[0]).any():
        return None
    later = months[-1] + steps[0] * np.arange(1, horizon + 1)
    ends = _last_day(months)
    if (days == ends).all():
        found = _last_day(later)
    else:
        place = (days - months.astype("datetime64[D]")).astype(np.int64)
        if (np.minimum(place.max(), (ends - months.astype("datetime64[D]")).astype(np.int64)) != place).any():
            return None
        found = np.minimum(later.astype("datetime64[D]") + place.max(), _last_day(later))
    return _at_time(found, wall)


def _last_day(months: NDArray[Any]) -> NDArray[Any]:
    return (months + 1).astype("datetime64[D]") - 1


def _working_days(wall: Instants, horizon: int) -> Instants | None:
    """Rows on most days from Monday to Friday: the next such days. Holidays need a calendar."""
    days = wall.astype("datetime64[ns]").astype("datetime64[D]")
    if not np.is_busday(days).all():
        return None
    steps = np.busday_count(days[:-1], days[1:])
    if (steps == 1).mean() < _WORKING_DAY_SHARE or steps.max() > _LONGEST_CLOSURE:
        return None
    return _at_time(np.busday_offset(days[-1], np.arange(1, horizon + 1)), wall)


def _at_time(days: NDArray[Any], wall: Instants) -> Instants:
    found: Instants = days.astype("datetime64[ns]").astype(np.int64) + wall[-1] % DAY
    return found


def _of_calendar(index: Any, horizon: int, name: str) -> Any:
    """The next sessions of an exchange for daily rows; the next bars within its sessions for intraday rows."""
    try:
        calendars: Any = import_module("exchange_calendars")
    except ModuleNotFoundError as error:
        raise ImportError("calendar= needs exchange_calendars: pip install exchange_calendars") from error
    pandas = import_module("pandas")
    zone = getattr(index, "tz", None)
    wall = times.instants(index.tz_localize(None) if zone is not None else index, "index")
    day = pandas.Timedelta(days=1)
    # West of the index's zone, the newest row may belong to the session of the day before.
    start = pandas.Timestamp(int(wall[0])).normalize() - day
    last = pandas.Timestamp(int(wall[-1])).normalize()
    span = pandas.Timedelta(days=_DAYS_PER_SESSION * horizon + 30)
    try:
        exchange = calendars.get_calendar(name, start=max(start, last - span), end=last + span)
    except calendars.errors.InvalidCalendarName as error:
        raise ArgumentError("calendar", f"exchange_calendars has no calendar {name!r}") from error
    if not _intraday(wall):
        sessions = exchange.sessions[exchange.sessions > last][:horizon]
        return _as_index(sessions.to_numpy().astype("datetime64[ns]").astype(np.int64) + wall[-1] % DAY, index, zone)
    if zone is None:
        raise ArgumentError(
            "calendar", "intraday rows need a time zone to lie within an exchange's sessions: tz_localize() the index"
        )
    steps, counts = np.unique(np.diff(times.instants(index, "index")), return_counts=True)
    bars = exchange.trading_index(
        # The calendar begins and ends with a session, and refuses days beyond.
        max(last - day, exchange.first_session),
        exchange.last_session,
        pandas.Timedelta(int(steps[counts.argmax()])),
        intervals=False,
        closed="left",
    )
    return bars[bars > index[-1]][:horizon].tz_convert(zone).rename(index.name)
