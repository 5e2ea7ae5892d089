"""Times in any notation are read right, or refused where day and month cannot be told apart."""

from datetime import datetime, timedelta

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from market_inference.client.files import instants
from market_inference.client.files.error import FileError


def read(*texts, date_format=None):
    return instants.read(texts, range(2, len(texts) + 2), date_format)


@pytest.mark.parametrize(
    ("text", "expected", "zone"),
    [
        ("2024-01-02", "2024-01-02", None),
        ("2024-01-02 09:30:00", "2024-01-02T09:30:00", None),
        ("2024-01-02T09:30:00.123456789", "2024-01-02T09:30:00.123456789", None),
        ("2024-01-02T09:30:00Z", "2024-01-02T09:30:00", "UTC"),
        ("2024-01-02 09:30:00-05:00", "2024-01-02T14:30:00", "UTC"),
        ("2024-01-02 09:30:00 -0500", "2024-01-02T14:30:00", "UTC"),
        ("20240102", "2024-01-02", None),
        ("202401020930", "2024-01-02T09:30:00", None),
        ("20240102 093000", "2024-01-02T09:30:00", None),
        ("20240102 09:30:00 US/Eastern", "2024-01-02T14:30:00", "UTC"),
        ("1704187800", "2024-01-02T09:30:00", "UTC"),
        ("1704187800000", "2024-01-02T09:30:00", "UTC"),
        ("1704187800000000", "2024-01-02T09:30:00", "UTC"),
        ("1704187800000000000", "2024-01-02T09:30:00", "UTC"),
        ("1704187800.5", "2024-01-02T09:30:00.5", "UTC"),
        ("31.01.2024 22:00:00.000 GMT-0500", "2024-02-01T03:00:00", "UTC"),
        ("31/01/2024", "2024-01-31", None),
        ("01/31/2024 4:00 PM", "2024-01-31T16:00:00", None),
        ("1/31/24", "2024-01-31", None),
        ("Jan 31, 2024", "2024-01-31", None),
        ("31-Jan-24", "2024-01-31", None),
        ("31. Oktober 2023", "2023-10-31", None),
        ("Wed Jan 31, 2024", "2024-01-31", None),
        ("2024/01/31", "2024-01-31", None),
        ("2024-01", "2024-01-01", None),
    ],
)
def test_a_time_in_a_vendors_notation(text, expected, zone):
    found = read(text)
    assert found.instants[0] == np.datetime64(expected, "ns")
    assert found.zone == zone


@pytest.mark.parametrize("text", ["yesterday", "32/13/2024", "2024-02-30", "99", "09:30", "", "12.5"])
def test_other_cells_are_refused_with_the_row(text):
    with pytest.raises(FileError, match="row 2"):
        read(text)


@pytest.mark.parametrize(
    ("texts", "second"),
    [
        (("01/02/2024", "13/02/2024"), "2024-02-13"),
        (("01/02/2024", "01/13/2024"), "2024-01-13"),
        (("01.02.2024", "02.02.2024"), "2024-02-02"),
        (("30/12/2023", "02/01/2024"), "2024-01-02"),
        # Only day before month is sorted.
        (("05/01/2024", "01/02/2024", "05/02/2024"), "2024-02-01"),
    ],
)
def test_evidence_in_the_column_decides_between_day_and_month(texts, second):
    assert read(*texts).instants[1] == np.datetime64(second, "ns")


def test_an_ambiguous_column_is_refused_and_the_format_decides():
    texts = ("02/01/2024", "03/01/2024", "04/01/2024")
    with pytest.raises(FileError, match=r"row 2: '02/01/2024' may be .*give --date-format DMY or MDY"):
        read(*texts)
    assert read(*texts, date_format="DMY").instants[1] == np.datetime64("2024-01-03", "ns")
    assert read(*texts, date_format="MDY").instants[1] == np.datetime64("2024-03-01", "ns")
    assert read(*texts, date_format="%d/%m/%Y").instants[1] == np.datetime64("2024-01-03", "ns")


def test_mixed_orders_are_refused_with_the_row():
    with pytest.raises(FileError, match="row 3: '31/01/2024'"):
        read("01/30/2024", "31/01/2024")


def test_serial_dates_need_the_option():
    with pytest.raises(FileError, match="--date-format excel"):
        read("45293", "45294")
    assert read("45293", "45294.5", date_format="excel").instants[1] == np.datetime64("2024-01-03T12:00:00", "ns")


def test_epochs_that_change_the_unit_within_a_file_are_read_and_noted():
    found = read("1704067200", "1704067260000")
    assert found.instants[1] - found.instants[0] == np.timedelta64(60, "s")
    assert "change the unit" in found.note


def test_offsets_across_daylight_saving_time_are_converted_to_utc():
    found = read("2024-03-08 16:00:00-05:00", "2024-03-11 16:00:00-04:00")
    assert found.instants[1] == np.datetime64("2024-03-11T20:00:00", "ns")
    assert "-04:00 and -05:00" in found.note


def test_a_zone_on_some_rows_only_is_refused():
    with pytest.raises(FileError, match="some times have a time zone"):
        read("2024-01-02 09:30:00", "2024-01-02 09:31:00+00:00")


FORMATS = {
    "DMY": ("%d/%m/%Y", "%d-%m-%Y", "%d.%m.%Y", "%d/%m/%y", "%d/%m/%Y %H:%M"),
    "MDY": ("%m/%d/%Y", "%m-%d-%Y", "%m/%d/%y", "%m/%d/%Y %I:%M %p"),
    "YMD": ("%Y-%m-%d", "%Y/%m/%d", "%Y%m%d", "%y/%m/%d", "%Y-%m-%d %H:%M:%S"),
    "named": ("%d %b %Y", "%b %d, %Y", "%d-%b-%y", "%B %d, %Y"),
}


@given(
    st.sampled_from([text for texts in FORMATS.values() for text in texts]),
    st.datetimes(datetime(1990, 1, 1), datetime(2029, 1, 1)),  # noqa: DTZ001
    st.integers(1, 40),
    st.integers(2, 30),
    st.booleans(),
)
def test_sorted_dates_in_one_format_are_read_right_or_refused(form, first, step, count, newest_first):
    days = [(first + timedelta(days=step * at)).replace(second=0, microsecond=0) for at in range(count)]
    if "%H" not in form and "%I" not in form:
        days = [day.replace(hour=0, minute=0) for day in days]
    texts = [day.strftime(form) for day in (days[::-1] if newest_first else days)]
    expected = [datetime.strptime(text, form) for text in texts]  # noqa: DTZ007
    assume(len(set(texts)) == count)
    try:
        found = read(*texts)
    except FileError as refusal:
        assert "--date-format" in str(refusal)
        return
    np.testing.assert_array_equal(found.instants, np.array(expected, dtype="datetime64[ns]"))


@pytest.mark.parametrize(
    "text",
    [
        "9999-12-31",
        "0001-01-01 00:00:00",
        "31.12.9999",
        "1 Jan 1600",
        "3000-01-01T00:00:00Z",
        "99991231",
        "99999999999999999999",
    ],
)
def test_a_time_that_nanoseconds_cannot_hold_is_refused_and_not_another_time(text):
    """9999-12-31, which stands for "no end", was read as a day of 1816."""
    with pytest.raises(FileError, match="row 2"):
        read(text, text.replace("31", "30"))


def test_an_epoch_that_nanoseconds_cannot_hold_is_refused():
    with pytest.raises(FileError, match="row 3: '99999999999'"):
        read("1700000000", "99999999999", date_format="s")


@pytest.mark.parametrize("offset", ["+99:99", "-23:00", "+05:75"])
def test_an_offset_that_no_zone_has_is_refused(offset):
    with pytest.raises(FileError, match="row 2"):
        read(f"2024-01-02 09:30 {offset}")


@pytest.mark.parametrize("text", ["2024-01-02 10:30", "2024-01-02T10:30", "2024-01-02 10:30:00"])
def test_a_uniform_column_of_iso_times_is_read_as_the_cells_alone(text):
    found = instants.read([text, text.replace("10", "11")], [2, 3], None)
    assert (str(found.instants[0]), found.zone, found.format) == ("2024-01-02T10:30:00.000000000", None, "ISO 8601")


def test_a_column_with_offsets_as_long_as_a_uniform_one_keeps_the_zone():
    found = instants.read(["2024-01-02 10:30+05", "2024-01-02 11:30+05"], [2, 3], None)
    assert (str(found.instants[0]), found.zone) == ("2024-01-02T05:30:00.000000000", "UTC")


def test_nanoseconds_hold_all_their_times():
    assert len(instants.beyond(np.array([2**63 - 1, -(2**63)], dtype="datetime64[ns]"))) == 0
    assert instants.beyond(np.array(["2024", "1500"], dtype="datetime64[s]")).tolist() == [1]
