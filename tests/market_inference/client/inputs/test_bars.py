"""Bars of instruments in the forms that users have them in."""

from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from market_inference.client.inputs.bars import panels, row
from market_inference.client.inputs.items import Given, Panel
from market_inference.client.inputs.times import instants, nanoseconds
from market_inference.errors import ArgumentError

CLOSES = [1.0, 2.0, 4.0]
DAYS = pd.date_range("2026-01-01", periods=3)
BARS: dict[str, Any] = {"Open": [1, 2, 3], "HIGH": [2, 3, 5], "low": [0, 1, 2], "Close": CLOSES, "Volume": [7, 8, 9]}
EXPECTED = {
    "open": [1, 2, 3],
    "high": [2, 3, 5],
    "low": [0, 1, 2],
    "close": CLOSES,
    "volume": [7, 8, 9],
}
EPOCHS = (DAYS.astype("int64") // 10**6).tolist()
ROWS = [[time, *row] for time, *row in zip(EPOCHS, *EXPECTED.values(), strict=True)]
LONG = pd.DataFrame(
    {"ticker": ["A", "B"] * 3, "date": np.repeat(DAYS.to_numpy(), 2), "close": [1.0, 2.0, 2.0, 3.0, 4.0, 5.0]}
)
ONE = {
    "mapping": BARS | {"Date": DAYS.strftime("%Y-%m-%d").tolist(), "note": ["x", "y", "z"]},
    "pandas": pd.DataFrame(BARS),
    "polars": pl.DataFrame(BARS),
    "numbered names": {f"{at}. {name.lower()}": values for at, (name, values) in enumerate(BARS.items(), start=1)},
    "names in brackets": {f"<{name.upper()}>": values for name, values in BARS.items()},
    "letters": dict(zip("ohlcv", EXPECTED.values(), strict=True)),
    "rows of an exchange": ROWS,
    "rows of an exchange as an array": np.array(ROWS),
    "rows of texts with twelve fields": [[*map(str, one), 0, 0, 0, 0, 0, 0] for one in ROWS],
    "rows as mappings": [dict(zip("tohlcv", one, strict=True)) for one in ROWS],
    "structured array": np.array(
        [tuple(one) for one in ROWS],
        dtype=[(name, "f8") for name in ("time", "open", "high", "low", "close", "volume")],
    ),
}


def columns(found: Given[Panel], at: int = 0) -> dict[str, list[float]]:
    return {name: values.tolist() for name, values in found.items[at].columns.items()}


@pytest.mark.parametrize("form", ONE)
def test_one_instrument_under_any_of_the_usual_names(form: str) -> None:
    found = panels(ONE[form])
    assert found.single
    assert columns(found) == EXPECTED


@pytest.mark.parametrize("form", ["mapping", "rows of an exchange", "rows as mappings", "structured array"])
def test_the_times_of_rows_are_read(form: str) -> None:
    times = panels(ONE[form]).items[0].times
    assert times is not None
    assert times.tolist() == DAYS.astype("datetime64[ns]").astype("int64").tolist()


def test_only_the_columns_that_are_read_are_taken_and_checked() -> None:
    broken = BARS | {"Volume": ["a", "b", "c"], "low": [None, 1, 2]}
    assert columns(panels(broken, {"close"})) == {"close": CLOSES}
    assert columns(panels(BARS, {"high", "low"})) == {"high": [2, 3, 5], "low": [0, 1, 2], "close": CLOSES}
    with pytest.raises(ArgumentError, match="Volume: expected numbers, got 'a'"):
        panels(broken)


def test_bars_may_be_the_closes_alone() -> None:
    for closes in (CLOSES, np.array(CLOSES), np.array(CLOSES)[:, None], pd.Series(CLOSES), pl.Series(CLOSES)):
        found = panels(closes)
        assert (found.single, columns(found)) == (True, {"close": CLOSES})


MANY = {
    "mapping of frames": {"A": pd.DataFrame(BARS), "B": pl.DataFrame(BARS)},
    "mapping of closes": {"A": CLOSES, "B": BARS},
    "list of frames": [pd.DataFrame(BARS), CLOSES],
    "wide frame of closes": pd.DataFrame({"A": CLOSES, "B": [2, 3, 5]}, index=DAYS),
    "tickers with names of fields": pd.DataFrame({"LOW": CLOSES, "OPEN": [2, 3, 5]}),
    "tickers of one letter": {"O": CLOSES, "C": CLOSES},
    "long pandas": LONG,
    "long polars": pl.DataFrame({name: LONG[name].to_list() for name in LONG}),
}


@pytest.mark.parametrize("form", MANY)
def test_bars_of_many_instruments(form: str) -> None:
    found = panels(MANY[form])
    assert (len(found.items), found.single) == (2, False)
    assert all(columns(found, at)["close"] in (CLOSES, [2, 3, 5]) for at in range(2))
    assert {one.source.symbol for one in found.items} in ({"A", "B"}, {""}, {"LOW", "OPEN"}, {"O", "C"})


@pytest.mark.parametrize("field_first", [True, False])
def test_the_two_levels_of_yfinance_are_tickers_and_fields(field_first: bool) -> None:
    names = [(field, ticker) for ticker in ("AAPL", "MSFT") for field in ("Close", "High", "Low", "Open", "Volume")]
    data = np.arange(30.0).reshape(3, 10)
    data[:, [1, 6]] += 100
    order = [name if field_first else name[::-1] for name in names]
    levels = ["Price", "Ticker"] if field_first else ["Ticker", "Price"]
    frame = pd.DataFrame(data, index=DAYS, columns=pd.MultiIndex.from_tuples(order, names=levels))
    found = panels(frame)
    assert [one.source.symbol for one in found.items] == ["AAPL", "MSFT"]
    assert columns(found, 1)["close"] == data[:, 5].tolist()
    assert columns(found, 0)["volume"] == data[:, 4].tolist()
    # A day without any price of a ticker, such as a holiday of its exchange, is no bar of it.
    frame.iloc[1, 5:] = np.nan
    holiday = panels(frame).items[1]
    assert holiday.columns["close"].tolist() == data[[0, 2], 5].tolist()
    assert list(holiday.source.index) == [DAYS[0], DAYS[2]]
    assert holiday.source.notes == ("MSFT: 1 rows without its prices were left out",)


@pytest.mark.parametrize(
    ("bars", "message"),
    [
        (
            pd.DataFrame(BARS).rename(columns={"Close": "Adj Close"}),
            "no column 'close'; there are Open, HIGH, low, Adj Close, Volume; to use 'Adj Close', rename it to 'close'",
        ),
        ({"A": BARS, "B": {"open": [1]}}, "B: no column 'close'; there are open"),
        (BARS | {"close": CLOSES}, "'Close' and 'close' are both close"),
        (BARS | {"Volume": [1, 2]}, "columns of different lengths: open 3, .*volume 2"),
        (pd.DataFrame({"Open": CLOSES, "Adj Close": CLOSES}), "no column 'close'; there are Open, Adj Close; to use"),
        (
            pd.DataFrame([[1.0, 2.0]], columns=pd.MultiIndex.from_tuples([("Adj Close", "A"), ("High", "A")])),
            "A: no column 'close'; there are Adj Close, High; to use 'Adj Close', rename it",
        ),
        (np.ones((40, 5)), r"shape \(40, 5\): give the columns by name"),
        (np.ones((40, 5)).tolist(), r"shape \(40, 5\): give the columns by name"),
        (np.ones((40, 6)), r"shape \(40, 6\)"),
        ({}, "at least one instrument"),
        ({1: BARS, "1": BARS}, "two are '1' as text"),
        (pd.DataFrame([[1.0, 2.0]], columns=pd.MultiIndex.from_tuples([("close", 1), ("close", "1")])), "two are '1'"),
        (pd.DataFrame(BARS, index=pd.MultiIndex.from_product([["A"], DAYS])), r"2 levels: .*reset_index\(\)"),
        (pd.DataFrame([[1.0, 2.0]], columns=pd.MultiIndex.from_tuples([("x", "A"), ("y", "A")])), "several levels"),
        (LONG.drop(columns="ticker"), "rows 0 and 1 .* have the same time 2026-01-01: give one symbol's rows"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_bars_that_cannot_be_understood_are_refused_with_the_way_out(bars: object, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        panels(bars)


@pytest.mark.parametrize(
    "bars",
    [
        pd.DataFrame(BARS, index=DAYS).iloc[::-1],
        pd.DataFrame(BARS | {"Date": DAYS}).iloc[::-1],
        pl.DataFrame(BARS | {"Date": DAYS.to_numpy()}).reverse(),
        ROWS[::-1],
    ],
    ids=lambda bars: type(bars).__module__,
)
def test_descending_bars_are_reversed_with_a_note(bars: object) -> None:
    found = panels(bars)
    assert columns(found) == EXPECTED
    assert "descends, newest first" in found.items[0].source.notes[0]


def test_instruments_may_be_called_like_fields() -> None:
    found = panels({"close": BARS, "date": pd.DataFrame(BARS)})
    assert [one.source.symbol for one in found.items] == ["close", "date"]
    assert columns(found, 1) == EXPECTED


def test_a_bar_without_a_value_is_named_by_its_row() -> None:
    frame = pd.DataFrame(BARS, index=DAYS).astype(float)
    frame.iloc[1, 0] = np.nan
    assert panels(frame).items[0].source.missing == ("row 1 (2026-01-02)",)


# One bar of a live session

BAR = {"open": 3.0, "high": 5.0, "low": 2.0, "close": 4.0, "volume": 9.0}
FRAME = pd.DataFrame(BARS, index=DAYS)
ONE_BAR = {
    "mapping": BAR,
    "mapping in other letters": {"Open": 3, "HIGH": 5, "low": 2, "Close": 4, "Volume": 9, "note": "x"},
    "row of pandas": FRAME.iloc[-1],
    "frame of one row": FRAME.iloc[-1:],
    "named tuple of pandas": list(FRAME.itertuples())[-1],
    "row of polars": pl.DataFrame(BARS).row(-1, named=True),
    "frame of one row of polars": pl.DataFrame(BARS)[-1],
    "row of an exchange": ROWS[-1],
    "row of an array": np.array(ROWS)[-1],
}


@pytest.mark.parametrize("form", ONE_BAR)
def test_a_bar_in_any_form(form: str) -> None:
    values, time = row(ONE_BAR[form])
    assert values == BAR
    if form in {"row of pandas", "frame of one row", "named tuple of pandas"}:
        assert time == DAYS[-1]
    elif "exchange" in form or "array" in form:
        assert nanoseconds(time) == DAYS[-1].value
    else:
        assert time is None


def test_a_number_is_the_close() -> None:
    assert row(101.5) == row(np.float32(101.5)) == ({"close": 101.5}, None)
    assert row({"close": 101.5, "time": "2026-01-04"}) == ({"close": 101.5}, "2026-01-04")


@pytest.mark.parametrize(
    ("bar", "message"),
    [
        ({"close": "x"}, "bar.close: expected a number, got 'x'"),
        ({"close": None}, "bar.close: expected a number, got None"),
        ({"close": "4"}, "bar.close: expected a number, got '4'"),
        ({"close": np.str_("4")}, "bar.close: expected a number, got '4'"),
        ({"close": np.nan}, "bar.close: expected a finite number, got nan"),
        ({"cloze": 1.0}, "no field of a bar in cloze; the fields are open, high, low, close, volume"),
        ({}, "no field of a bar in nothing; the fields are open, high, low, close, volume"),
        (np.inf, "bar: expected a finite number, got inf"),
        ("101", "expected a close or a mapping, got '101'"),
        ([1.0, 2.0], "expected a close, a mapping"),
        ("x", "expected a close or a mapping, got 'x'"),
        (None, "expected a close or a mapping, got None"),
    ],
)
def test_a_bar_that_cannot_be_understood_is_refused(bar: object, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        row(bar)


ARRAYS = {name: np.array(values, dtype=np.float64) for name, values in BARS.items()}
UNUSUAL: dict[str, Any] = {
    "lists": {name: values.tolist() for name, values in ARRAYS.items()},
    "single precision": {name: values.astype(np.float32) for name, values in ARRAYS.items()},
    "a column of one dimension more": {name: values[:, None] for name, values in ARRAYS.items()},
    "other names": {name.lower(): values for name, values in ARRAYS.items()},
    "another column": ARRAYS | {"note": np.zeros(9)},
}


@pytest.mark.parametrize("other", UNUSUAL.values(), ids=UNUSUAL)
@pytest.mark.parametrize("wanted", [{"high", "low"}, {"volume"}, set(BARS)])
def test_arrays_of_doubles_are_the_bars_that_any_other_data_is(other: dict[str, Any], wanted: set[str]) -> None:
    """Arrays of doubles take a short way."""

    def plain(given: Given[Panel]) -> list[Any]:
        return [
            ({name: values.tolist() for name, values in one.columns.items()}, one.times, one.source.symbol)
            for one in given.items
        ]

    for usual, unusual in (
        (ARRAYS, other),
        ([ARRAYS, ARRAYS], [ARRAYS, other]),
        ({"A": ARRAYS, "B": ARRAYS}, {"A": other, "B": ARRAYS}),
    ):
        assert plain(panels(usual, wanted)) == plain(panels(unusual, wanted))
        assert panels(usual, wanted).single is panels(unusual, wanted).single


@pytest.mark.parametrize("many", [lambda one: one, lambda one: [ARRAYS, one], lambda one: {"A": ARRAYS, "B": one}])
def test_arrays_that_are_no_bars_are_refused_as_any_other_data_is(many: Any) -> None:
    with pytest.raises(ArgumentError, match=r"columns of different lengths: .*close 2"):
        panels(many(ARRAYS | {"Close": ARRAYS["Close"][:2]}))
    with pytest.raises(ArgumentError, match="close"):
        panels(many({name: values for name, values in ARRAYS.items() if name != "Close"}))
    hole = panels(many(ARRAYS | {"low": np.array([0.0, np.nan, 2.0])})).items[-1]
    assert hole.columns["low"].tolist()[0::2] == [0.0, 2.0]
    assert hole.source.missing == ("row 1",)


@pytest.mark.parametrize(
    "last",
    [np.datetime64("9999-12-31", "s"), datetime(9999, 12, 31, tzinfo=UTC), "9999-12-31", 99_999_999_999],
    ids=["numpy", "datetime", "text", "seconds"],
)
def test_a_time_that_nanoseconds_cannot_hold_is_refused_by_its_row(last):
    """numpy makes a day of 1816 of it without a word."""
    first = {np.datetime64: np.datetime64("2024-01-02", "s"), datetime: datetime(2024, 1, 2, tzinfo=UTC)}.get(
        type(last), "2024-01-02" if isinstance(last, str) else 1_700_000_000
    )
    with pytest.raises(ArgumentError, match="row 1"):
        instants([first, last], "times")


YEARS = "give times within the years 1678 to 2261"


@pytest.mark.parametrize(
    "value",
    [
        pd.Timestamp("1500-01-01"),
        pd.Period("1500-01", "M"),
        date(1500, 1, 1),
        datetime(9999, 1, 1, tzinfo=UTC),
        np.datetime64("1500-01-01"),
        "1500-01-01",
    ],
    ids=["timestamp", "period", "date", "datetime", "numpy", "text"],
)
def test_a_time_beyond_the_years_is_refused_with_the_years(value):
    with pytest.raises(ArgumentError, match=f"^time: got .*: {YEARS}"):
        nanoseconds(value)
    with pytest.raises(ArgumentError, match=rf"^times: row 1 \(counted from 0\) holds .*: {YEARS}"):
        instants([pd.Timestamp("2024-01-02"), value], "times")


@pytest.mark.parametrize("missing", [None, pd.NaT, np.datetime64("NaT")], ids=["none", "pandas", "numpy"])
def test_a_missing_time_is_not_beyond_the_years(missing):
    with pytest.raises(ArgumentError, match=r"^time: expected a datetime"):
        nanoseconds(missing)
