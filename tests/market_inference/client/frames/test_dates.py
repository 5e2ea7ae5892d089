"""Dates after the newest row: by the index's frequency, a step without exception, or an exchange's calendar."""

from datetime import UTC, datetime

import numpy as np
import pandas as pd
import polars as pl
import pytest

from market_inference.client.frames.dates import following
from market_inference.errors import ArgumentError

# exchange_calendars itself, with pandas 3.
pytestmark = pytest.mark.filterwarnings("ignore:Series.values returning")


@pytest.mark.parametrize("frequency", ["D", "B", "h", "5min", "W-FRI", "MS", "ME", "QS", "3D", "BME"])
def test_an_index_with_a_frequency_goes_on_by_it(frequency):
    whole = pd.date_range("2024-01-31", periods=60, freq=frequency, name="Date")
    pd.testing.assert_index_equal(following(whole[:50], 10), whole[50:], exact="equiv")


@pytest.mark.parametrize("frequency", ["D", "B", "h", "5min", "W-FRI", "MS", "ME", "QE", "3D"])
@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
def test_rows_without_a_stated_frequency_show_it(frequency, zone):
    whole = pd.date_range("2024-01-31", periods=60, freq=frequency, tz=zone)
    found = following(pd.DatetimeIndex(list(whole[:50])), 10)
    assert list(found) == list(whole[50:])


def test_working_days_with_holidays_go_on_from_monday_to_friday():
    days = pd.bdate_range("2023-12-01", "2024-02-16")
    traded = days[~days.isin(pd.to_datetime(["2023-12-25", "2024-01-01", "2024-01-15"]))]
    assert list(following(traded, 3)) == list(pd.to_datetime(["2024-02-19", "2024-02-20", "2024-02-21"]))


def test_an_exchanges_calendar_knows_its_holidays():
    traded = pd.bdate_range("2024-01-02", "2024-03-27").drop(["2024-01-15", "2024-02-19"])
    found = following(traded, 3, "XNYS")
    assert list(found) == list(pd.to_datetime(["2024-03-28", "2024-04-01", "2024-04-02"]))


def test_intraday_rows_go_on_within_the_exchanges_sessions():
    days = [pd.date_range(f"{day} 09:30", f"{day} 15:55", freq="5min") for day in ("2024-03-27", "2024-03-28")]
    index = days[0].append(days[1]).tz_localize("America/New_York")
    found = following(index, 2, "XNYS")
    assert [str(time) for time in found] == ["2024-04-01 09:30:00-04:00", "2024-04-01 09:35:00-04:00"]
    with pytest.raises(ArgumentError, match="time zone"):
        following(index.tz_localize(None), 2, "XNYS")


def test_a_day_step_keeps_the_wall_time_over_a_clock_change_and_an_hour_step_the_time_passed():
    daily = pd.date_range("2024-02-20 09:00", periods=18, freq="D", tz="America/New_York")
    assert str(following(pd.DatetimeIndex(list(daily)), 3)[-1]) == "2024-03-11 09:00:00-04:00"
    hourly = pd.date_range("2024-03-09 00:00", periods=24, freq="h", tz="America/New_York")
    assert str(following(pd.DatetimeIndex(list(hourly)), 4)[-1]) == "2024-03-10 04:00:00-04:00"


def test_irregular_rows_have_no_dates():
    gaps = pd.DatetimeIndex(["2024-01-01 09:30", "2024-01-01 15:55", "2024-01-02 09:30", "2024-01-02 15:55"])
    assert following(gaps, 3) is None
    assert following(pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-09", "2024-01-30"]), 3) is None
    assert following(pd.RangeIndex(50), 3) is None
    assert following(None, 3) is None


@pytest.mark.parametrize(
    "labels",
    [
        [f"2024-01-{day:02d}" for day in range(1, 10)],
        np.arange("2024-01-01", "2024-01-10", dtype="datetime64[D]"),
        pl.Series("ds", [datetime(2024, 1, day, tzinfo=UTC).date() for day in range(1, 10)]),
        [datetime(2024, 1, day, tzinfo=UTC) for day in range(1, 10)],
    ],
)
def test_every_kind_of_times_goes_on(labels):
    assert [str(day)[:10] for day in following(labels, 2)] == ["2024-01-10", "2024-01-11"]


def test_periods_go_on_as_periods():
    index = pd.period_range("2024-01", periods=12, freq="M")
    assert list(map(str, following(index, 2))) == ["2025-01", "2025-02"]


def test_the_end_of_the_month_stays_the_end():
    index = pd.to_datetime(["2023-11-30", "2023-12-31", "2024-01-31"])
    assert [str(day.date()) for day in following(index, 2)] == ["2024-02-29", "2024-03-31"]


@pytest.mark.parametrize(
    ("horizon", "zone"), [*((steps, "America/New_York") for steps in range(1, 8)), (1, "Asia/Tokyo"), (4, "Asia/Tokyo")]
)
@pytest.mark.parametrize("newest", ["2024-03-14 15:55", "2024-03-15 15:55", "2024-03-18 11:00"])
def test_a_look_ahead_to_a_day_without_a_session_is_no_error(newest, horizon, zone):
    """The calendar ends with a session: horizons of all weekdays, from series of one day and of one bar before."""
    index = pd.date_range(end=pd.Timestamp(newest, tz="America/New_York"), periods=4, freq="5min").tz_convert(zone)
    index.freq = None
    found = following(index, horizon, "XNYS")
    nyse = pd.DatetimeIndex(found).tz_convert("America/New_York")
    assert len(nyse) == horizon
    first = {"2024-03-14 15:55": "2024-03-15 09:30", "2024-03-15 15:55": "2024-03-18 09:30"}.get(newest)
    assert nyse[0] == (pd.Timestamp(first, tz="America/New_York") if first else index[-1] + pd.Timedelta("5min"))
    assert str(found.tz) == zone


def test_a_calendar_that_cannot_serve_is_refused():
    with pytest.raises(ArgumentError, match="no calendar 'NOWHERE'"):
        following(pd.bdate_range("2024-01-02", periods=40), 3, "NOWHERE")
    with pytest.raises(ArgumentError, match="no dates"):
        following(None, 3, "XNYS")
