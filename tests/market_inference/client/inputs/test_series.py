"""Series to forecast, in the forms of users and of any library."""

import math
from collections import namedtuple
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_inference.client.inputs.series import series
from market_inference.errors import ArgumentError

CLOSES = [1.0, 2.0, 4.0]
DAYS = pd.date_range("2026-01-01", periods=3)
ONE = {
    "list": CLOSES,
    "tuple of ints": (1, 2, 4),
    "decimals": [Decimal(1), Decimal(2), Decimal(4)],
    "int32": np.array([1, 2, 4], dtype=np.int32),
    "float32": np.array(CLOSES, dtype=np.float32),
    "column [n, 1]": np.array(CLOSES)[:, None],
    "list of columns [n, 1]": [[1.0], [2.0], [4.0]],
    "pandas": pd.Series(CLOSES, index=DAYS),
    "pandas Int64": pd.Series([1, 2, 4], dtype="Int64"),
    "pandas of objects": pd.Series([1, 2, 4], dtype=object),
    "polars": pl.Series([1, 2, 4]),
    "masked without a mask": np.ma.array(CLOSES),
}
MANY = {
    "mapping": {"A": CLOSES, "B": np.array(CLOSES) + 1},
    "mapping of columns": {"A": pd.Series(CLOSES), "B": pl.Series([2, 3, 5])},
    "pandas": pd.DataFrame({"A": CLOSES, "B": [2, 3, 5]}, index=DAYS),
    "pandas with a column of dates": pd.DataFrame({"Date": DAYS, "A": CLOSES, "B": [2, 3, 5]}),
    "pandas with a column of texts": pd.DataFrame({"date": DAYS.strftime("%Y-%m-%d"), "A": CLOSES, "B": [2, 3, 5]}),
    "polars": pl.DataFrame({"A": CLOSES, "B": [2, 3, 5]}),
    "polars with a column of dates": pl.DataFrame({"ds": DAYS.to_numpy(), "A": CLOSES, "B": [2, 3, 5]}),
    "long pandas": pd.DataFrame(
        {"unique_id": ["A", "B"] * 3, "ds": np.repeat(DAYS.to_numpy(), 2), "y": [1.0, 2.0, 2.0, 3.0, 4.0, 5.0]}
    ),
    "long polars": pl.DataFrame(
        {"unique_id": ["A", "B"] * 3, "ds": np.repeat(DAYS.to_numpy(), 2), "y": [1.0, 2.0, 2.0, 3.0, 4.0, 5.0]}
    ),
    "tickers with names of fields": pd.DataFrame({"LOW": CLOSES, "OPEN": [2, 3, 5]}),
    "tickers of one letter": pd.DataFrame({"C": CLOSES, "V": [2, 3, 5]}),
}
BARS: dict[str, Any] = {"Open": [1, 2, 3], "HIGH": [2, 3, 5], "low": [0, 1, 2], "Close": CLOSES, "Volume": [7, 8, 9]}
ROWS = [[1_700_000_000_000 + 60_000 * at, 1.0, 3.0, 0.5, close, 7.0] for at, close in enumerate(CLOSES)]


def values(found: Any) -> list[list[float]]:
    return [one.values.tolist() for one in found.items]


@pytest.mark.parametrize("form", ONE)
def test_one_series_from_any_library(form: str) -> None:
    found = series(ONE[form])
    assert found.single
    assert found.items[0].values.dtype == np.float64
    assert values(found) == [CLOSES]
    assert found.items[0].source.notes == ()


@pytest.mark.parametrize("form", MANY)
def test_many_series_by_symbol_from_any_library(form: str) -> None:
    found = series(MANY[form])
    assert not found.single
    assert len({one.source.symbol for one in found.items}) == 2
    assert values(found) == [CLOSES, [2, 3, 5]]


def test_the_labels_of_the_rows_are_kept() -> None:
    assert series(ONE["pandas"]).items[0].source.index.equals(DAYS)
    for form in ("pandas", "pandas with a column of dates", "long pandas"):
        source = series(MANY[form]).items[1].source
        assert (source.symbol, source.library) == ("B", "pandas")
        assert pd.DatetimeIndex(source.index).tolist() == DAYS.tolist()
    for form in ("polars with a column of dates", "long polars"):
        source = series(MANY[form]).items[0].source
        assert source.library == "polars"
        assert pd.DatetimeIndex(np.asarray(source.index)).tolist() == DAYS.tolist()


@pytest.mark.parametrize("data", [[CLOSES, [1, 2]], [np.array(CLOSES), pl.Series([1, 2])], (pd.Series(CLOSES), [1, 2])])
def test_a_list_of_series_may_have_different_lengths(data: object) -> None:
    assert [len(one.values) for one in series(data).items] == [3, 2]


def test_rows_of_a_2_d_array_are_series() -> None:
    found = series(np.array([CLOSES, CLOSES]))
    assert (len(found.items), found.single) == (2, False)


def test_an_array_whose_columns_are_series_is_refused_with_the_way_out() -> None:
    with pytest.raises(ArgumentError, match=r"shape \(500, 6\): rows are series.* give values\.T"):
        series(np.ones((500, 6)))
    with pytest.raises(ArgumentError, match=r"shape \(500, 6\): rows are series"):
        series(np.ones((500, 6)).tolist())
    assert len(series(np.ones((500, 6)).T).items) == 6


@pytest.mark.parametrize(
    "data",
    [
        BARS,
        pd.DataFrame(BARS),
        pl.DataFrame(BARS),
        ROWS,
        np.array(ROWS),
        [dict(zip("tohlcv", row, strict=True)) for row in ROWS],
        pd.DataFrame(BARS).rename(columns={"Close": "Adj Close"}),
        pd.DataFrame(BARS)[["Close", "Volume"]],
    ],
    ids=lambda data: type(data).__name__,
)
def test_bars_are_not_taken_for_symbols(data: object) -> None:
    with pytest.raises(ArgumentError, match=r"one instrument's bars .* bars\['close'\]"):
        series(data)


def test_a_frame_of_several_levels_is_refused_with_the_way_out() -> None:
    frame = pd.DataFrame([[1.0, 2.0]] * 3, columns=pd.MultiIndex.from_tuples([("Close", "A"), ("Volume", "A")]))
    with pytest.raises(ArgumentError, match=r"data\['Close'\]"):
        series(frame)
    assert series(frame["Close"]).items[0].source.symbol == "A"
    nested = pd.Series(CLOSES, index=pd.MultiIndex.from_product([["A"], DAYS]))
    with pytest.raises(ArgumentError, match=r"2 levels: .* unstack\(\)"):
        series(nested)
    assert series(nested.unstack(0)).items[0].source.symbol == "A"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (["a", "b"], "expected numbers, got 'a' at position 0"),
        (["1.5", "2"], "expected numbers, got '1.5'"),
        ([True, False], "series: expected numbers, got bool"),
        (np.array([True, False]), "series: expected numbers, got bool"),
        (pd.Series([True, None], dtype="boolean"), "series: expected numbers, got True at position 0"),
        ({"A": [1.0, 2.0], "B": pl.Series([True, False])}, "B: expected numbers, got bool"),
        ([10**400] * 50, "series: expected numbers within float64, got 10+... at position 0"),
        pytest.param(
            [1.0, 10**5000],
            "series: expected numbers within float64, got a value of type int at position 1",
            id="10**5000",
        ),
        ([[10**400, 1, 1, 1, 1, 1]], r"series\[0\]: expected numbers within float64"),
        (np.array(["2026-01-01"], dtype="M8[D]"), "expected numbers"),
        (pl.DataFrame({"A": [1.0], "date": ["x"]}), "date: row 0: 'x' is not a date or time"),
        (pl.DataFrame({"A": [1.0], "B": ["x"]}), "B: expected numbers, got 'x'"),
        (np.ones((2, 2, 2)), "expected one dimension"),
        (3.0, "expected a list or an array of numbers"),
        (None, "expected a list or an array of numbers .*got None"),
        pytest.param((one for one in CLOSES), "expected a list or an array", id="generator"),
        ({"A": pd.DataFrame(BARS)}, "A: expected one column of numbers, got columns Open"),
        ({}, "at least one series"),
        (pd.DataFrame([[1, 2]], columns=["A", "A"]), "two columns are called 'A'"),
        ({1: CLOSES, "1": CLOSES}, "two are '1' as text"),
        (pd.DataFrame({1: CLOSES, "1": CLOSES}), "two are '1' as text"),
        (pd.DataFrame({"symbol": [1, "1"], "close": [1.0, 2.0]}), "two are '1' as text"),
        (pd.DataFrame({"symbol": ["A"], "p": [1.0], "q": [2.0]}), "a long frame needs 'symbol'"),
    ],
    ids=str,
)
def test_data_without_numbers_is_refused_by_name(data: object, message: str) -> None:
    with pytest.raises(ArgumentError, match=message) as caught:
        series(data)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, TypeError)


def test_the_key_none_is_a_series() -> None:
    found = series({None: CLOSES, "A": CLOSES})
    assert [one.source.symbol for one in found.items] == ["None", "A"]


# Order of time


DESCENDING = [
    pd.Series(CLOSES[::-1], index=DAYS[::-1]),
    pd.Series(CLOSES[::-1], index=DAYS[::-1].tz_localize("America/New_York")),
    pd.Series(CLOSES[::-1], index=DAYS[::-1].strftime("%Y-%m-%d")),
    pd.Series(CLOSES[::-1], index=[day.date() for day in DAYS[::-1]]),
    pd.Series(CLOSES[::-1], index=pd.PeriodIndex(DAYS[::-1], freq="D")),
]


@pytest.mark.parametrize("data", DESCENDING, ids=lambda data: str(data.index.dtype))
def test_descending_dates_of_an_index_are_reversed_with_a_note(data: pd.Series) -> None:
    found = series(data).items[0]
    assert found.values.tolist() == CLOSES
    assert found.source.notes == ("the index descends, newest first: the rows were reversed to oldest first",)
    assert list(found.source.index) == list(data.index[::-1])


@pytest.mark.parametrize(
    "dates",
    [
        DAYS[::-1],
        DAYS[::-1].strftime("%Y-%m-%d").tolist(),
        DAYS[::-1].strftime("%Y/%m/%d").tolist(),
        (DAYS + pd.Timedelta(days=20))[::-1].strftime("%d/%m/%Y").tolist(),
        (DAYS + pd.Timedelta(days=20))[::-1].strftime("%m/%d/%Y").tolist(),
        DAYS[::-1].strftime("%b %d, %Y").tolist(),
        DAYS[::-1].strftime("%Y%m%d").astype(int).tolist(),
        (DAYS[::-1].astype("int64") // 10**6).tolist(),
        [day.date() for day in DAYS[::-1]],
    ],
    ids=lambda dates: str(dates[0]),
)
@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame, dict])
def test_descending_dates_of_a_column_are_reversed_with_a_note(frame: Any, dates: Any) -> None:
    data = frame({"Date": list(dates), "A": CLOSES[::-1], "B": [5, 3, 2]})
    found = series(data)
    assert values(found) == [CLOSES, [2, 3, 5]]
    assert "Date descends" in found.items[0].source.notes[0]


@pytest.mark.parametrize(
    ("dates", "message"),
    [
        (["2026-01-01", "2026-01-03", "2026-01-02"], r"rows 1 and 2 \(counted from 0\) are out of order, 2026-01-02"),
        (["2026-01-01", "2026-01-01", "2026-01-02"], r"rows 0 and 1 \(counted from 0\) have the same time 2026-01-01"),
        (["2026-01-03", "2026-01-03", "2026-01-01"], r"rows 0 and 1 \(counted from 0\) have the same time"),
        (["2026-01-03", None, "2026-01-01"], "row 1 .* (holds (None|nan)|has no time)"),
        (["2026-01-03", "total", "2026-01-01"], "row 1: 'total' is not a date"),
    ],
)
def test_unsorted_and_duplicated_rows_are_refused_by_row(dates: list[Any], message: str) -> None:
    for data in (pd.Series(CLOSES, index=dates), pd.DataFrame({"date": dates, "A": CLOSES})):
        with pytest.raises(ArgumentError, match=message):
            series(data)
    with pytest.raises(ArgumentError, match="A: the index: rows 0 and 1"):
        series({"A": pd.Series(CLOSES, index=pd.DatetimeIndex(["2026-01-01"] * 3))})


@pytest.mark.parametrize(
    "index",
    [
        [20240103, 20240102, 20240101],
        [1_700_000_120, 1_700_000_060, 1_700_000_000],
        [1_700_000_120_000, 1_700_000_060_000, 1_700_000_000_000],
        [2024, 2023, 2022],
    ],
    ids=["days", "seconds", "milliseconds", "years"],
)
def test_whole_numbers_that_are_dates_are_an_order_too(index: list[int]) -> None:
    assert values(series(pd.Series(CLOSES[::-1], index=index))) == [CLOSES]
    assert values(series(pd.Series(CLOSES, index=index[::-1]))) == [CLOSES]


def test_days_and_months_that_no_row_tells_apart_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"'03/01/2026' may be .* and no row decides"):
        series(pd.Series(CLOSES, index=["03/01/2026", "02/01/2026", "01/01/2026"]))


def test_a_column_of_dates_decides_over_the_index() -> None:
    found = series(pd.DataFrame({"Date": DAYS[::-1], "A": CLOSES[::-1]}, index=DAYS))
    assert values(found) == [CLOSES]
    assert list(found.items[0].source.index) == list(DAYS)


def test_an_index_without_dates_says_nothing_about_the_order() -> None:
    for index in ([3, 2, 1], ["a", "c", "b"], pd.RangeIndex(3, 0, -1), [2022, 2025, 2021]):
        assert values(series(pd.Series(CLOSES, index=index))) == [CLOSES]


@given(st.lists(st.integers(0, 10**9), min_size=2, max_size=40, unique=True))
def test_any_order_of_dates_is_ascending_reversed_or_refused(seconds: list[int]) -> None:
    index = pd.to_datetime(seconds, unit="s")
    data = pd.Series(np.array(seconds, dtype=float), index=index)
    ascending = sorted(seconds)
    if seconds in (ascending, ascending[::-1]):
        assert values(series(data)) == [ascending]
    else:
        with pytest.raises(ArgumentError, match="out of order"):
            series(data)


# Missing values


def test_masked_values_are_missing_values() -> None:
    found = series(np.ma.array([1.0, -9999.0, 4.0], mask=[False, True, False])).items[0]
    np.testing.assert_array_equal(found.values, [1, np.nan, 4])
    assert found.source.missing == ("row 1",)
    integers = series(np.ma.array([1, -9999, 4], mask=[0, 1, 0])).items[0]
    np.testing.assert_array_equal(integers.values, [1, np.nan, 4])


@pytest.mark.parametrize(
    "data",
    [
        [1, None, 4],
        [1.0, np.nan, 4.0],
        pd.Series([1.0, None, 4.0]),
        pd.Series([1, None, 4], dtype="Int64"),
        pd.Series([1, pd.NA, 4], dtype=object),
        pl.Series([1, None, 4]),
    ],
    ids=repr,
)
def test_a_hole_in_a_series_is_kept_for_the_service_to_refuse_by_row(data: object) -> None:
    found = series(data).items[0]
    assert np.isnan(found.values[1])
    assert found.source.missing == ("row 1",)


def test_a_hole_is_named_by_its_date() -> None:
    assert series(pd.Series([1.0, None, 4.0], index=DAYS)).items[0].source.missing == ("row 1 (2026-01-02)",)


def test_missing_values_before_the_first_are_left_out_with_a_note() -> None:
    found = series(pd.Series(CLOSES, index=DAYS).pct_change()).items[0]
    assert found.values.tolist() == [1.0, 1.0]
    assert list(found.source.index) == list(DAYS[1:])
    assert found.source.notes == ("1 missing value before its first value was left out",)


def test_a_wide_frame_has_for_each_symbol_the_rows_with_its_values() -> None:
    frame = pd.DataFrame({"OLD": [1.0, 2.0, 4.0], "NEW": [np.nan, 3.0, 5.0], "GONE": [1.0, np.nan, np.nan]}, index=DAYS)
    old, new, gone = series(frame).items
    assert (old.values.tolist(), new.values.tolist(), gone.values.tolist()) == (CLOSES, [3, 5], [1])
    assert (old.source.notes, list(new.source.index)) == ((), list(DAYS[1:]))
    assert new.source.notes == new.source.usual == ("NEW: 1 missing value before its first value was left out",)
    assert gone.source.notes[-1] == "GONE: the newest value is of 2026-01-01"
    assert gone.source.notes[-1] not in gone.source.usual


def test_a_hole_inside_a_wide_frame_is_kept_for_the_service_to_refuse_by_row() -> None:
    days = pd.date_range("2026-01-01", periods=5)
    frame = pd.DataFrame({"A": [1.0, 2, 3, 4, 5], "B": [np.nan, 2.0, np.nan, 4.0, np.nan]}, index=days)
    good, holed = series(frame).items
    assert (good.source.missing, good.source.notes) == ((), ())
    np.testing.assert_array_equal(holed.values, [2.0, np.nan, 4.0])
    assert holed.source.missing == ("row 1 (2026-01-03)",)
    assert holed.source.notes == (
        "B: 1 missing value before its first value was left out",
        "B: 1 missing value after its last value was left out",
        "B: the newest value is of 2026-01-04",
    )


def test_named_tuples_as_rows_are_refused() -> None:
    row = namedtuple("row", "a b")
    with pytest.raises(ArgumentError):
        series([row("x", 1.0)] * 3)


@pytest.mark.parametrize("values", [2.0, math.nan], ids=["clean", "with a hole"])
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_wide_frame_of_floats_is_read_as_its_columns_one_by_one(library, values):
    table = {f"S{at}": np.arange(40.0) + at for at in range(3)}
    table["S1"][0] = values
    made = {"pandas": pd.DataFrame, "polars": pl.DataFrame}[library](table)
    for found, (name, expected) in zip(series(made).items, table.items(), strict=True):
        assert found.source.symbol == name
        np.testing.assert_array_equal(found.values, expected[~np.isnan(expected)])
        assert found.source.library == library
        assert (found.source.index is None) == (library == "polars")


def test_arrays_in_a_list_are_used_without_a_copy_unless_they_need_one():
    arrays = [np.arange(40.0), np.arange(50.0)]
    assert [found.values is given for found, given in zip(series(arrays).items, arrays, strict=True)] == [True, True]
    mixed = [np.arange(40.0), np.arange(40, dtype=np.float32), list(range(40))]
    assert [found.values.dtype for found in series(mixed).items] == [np.float64] * 3
    holes = [np.arange(40.0), np.r_[np.nan, np.arange(39.0)]]
    assert [len(found.values) for found in series(holes).items] == [40, 39]


def test_the_largest_values_are_read_without_a_warning_and_a_hole_beside_them_is_found():
    """Warnings are errors in tests: the squares of such values are infinite."""
    large = np.array([1e300, -1e308, 2e300])
    np.testing.assert_array_equal(series(large).items[0].values, large)
    np.testing.assert_array_equal(series([large, np.r_[np.nan, large]]).items[1].values, large)
