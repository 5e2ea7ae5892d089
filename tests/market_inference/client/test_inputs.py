"""What users hold: recognised whatever library it comes from."""

from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from market_inference.client import inputs

CLOSES = [1.0, 2.0, 4.0]
ONE = [
    CLOSES,
    (1, 2, 4),
    [Decimal(1), Decimal(2), Decimal(4)],
    np.array([1, 2, 4], dtype=np.int32),
    np.array(CLOSES, dtype=np.float32),
    pd.Series(CLOSES, index=pd.date_range("2026-01-01", periods=3)),
    pd.Series([1, 2, 4], dtype="Int64"),
    pl.Series([1, 2, 4]),
]
MANY = [
    {"A": CLOSES, "B": np.array(CLOSES) + 1},
    {"A": pd.Series(CLOSES), "B": pl.Series([2, 3, 5])},
    pd.DataFrame({"A": CLOSES, "B": [2, 3, 5]}),
    pl.DataFrame({"A": CLOSES, "B": [2, 3, 5]}),
]
BARS: dict[str, Any] = {"Open": [1, 2, 3], "HIGH": [2, 3, 5], "low": [0, 1, 2], "Close": CLOSES, "Volume": [7, 8, 9]}


@pytest.mark.parametrize("values", ONE, ids=lambda values: f"{type(values).__module__}.{type(values).__name__}")
def test_one_series_from_any_library(values: object) -> None:
    found = inputs.series(values)
    assert found.single
    assert found.symbols == ("",)
    assert found.values[0].dtype == np.float64
    assert found.values[0].tolist() == CLOSES


@pytest.mark.parametrize("values", MANY, ids=lambda values: f"{type(values).__module__}.{type(values).__name__}")
def test_many_series_by_symbol_from_any_library(values: object) -> None:
    found = inputs.series(values)
    assert not found.single
    assert found.symbols == ("A", "B")
    assert [one.tolist() for one in found.values] == [CLOSES, [2, 3, 5]]


@pytest.mark.parametrize(
    "values", [[CLOSES, [1, 2]], [np.array(CLOSES), pl.Series([1, 2])], (pd.Series(CLOSES), [1, 2])]
)
def test_a_list_of_series_may_have_different_lengths(values: object) -> None:
    assert [len(one) for one in inputs.series(values).values] == [3, 2]


def test_rows_of_a_2_d_array_are_series() -> None:
    found = inputs.series(np.array([CLOSES, CLOSES]))
    assert (len(found.values), found.single) == (2, False)


@pytest.mark.parametrize("bars", [BARS, pd.DataFrame(BARS), pl.DataFrame(BARS)])
def test_bars_are_not_taken_for_symbols(bars: object) -> None:
    with pytest.raises(ValueError, match="bars\\['close'\\]"):
        inputs.series(bars)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["a", "b"], "expected numbers"),
        (np.array(["2026-01-01"], dtype="M8[D]"), "expected numbers"),
        (pl.DataFrame({"A": [1.0], "date": ["x"]}), "date: expected numbers"),
        (np.ones((2, 2, 2)), "expected one dimension"),
        (3.0, "expected one dimension"),
    ],
)
def test_what_holds_no_numbers_is_refused_by_name(values: object, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        inputs.series(values)


def test_missing_values_reach_the_service_as_nan_for_it_to_refuse() -> None:
    for values in ([1, None], pd.Series([1.0, None]), pd.Series([1, None], dtype="Int64"), pl.Series([1, None])):
        assert np.isnan(inputs.series(values).values[0][1])


@pytest.mark.parametrize("bars", [BARS | {"Date": ["x", "y", "z"]}, pd.DataFrame(BARS), pl.DataFrame(BARS)])
def test_bars_have_columns_in_any_case_and_others_are_left_out(bars: object) -> None:
    found = inputs.panels(bars)
    assert found.single
    assert sorted(found.values[0]) == ["close", "high", "low", "open", "volume"]
    assert found.values[0]["high"].tolist() == [2, 3, 5]


def test_bars_may_be_the_closes_alone() -> None:
    assert inputs.panels(CLOSES).values[0]["close"].tolist() == CLOSES
    assert list(inputs.panels({"A": CLOSES}).values[0]) == ["close"]


@pytest.mark.parametrize("bars", [{"A": BARS, "B": pl.DataFrame(BARS)}, {"A": pd.DataFrame(BARS), "B": CLOSES}])
def test_bars_of_many_symbols(bars: object) -> None:
    found = inputs.panels(bars)
    assert (found.symbols, found.single) == (("A", "B"), False)


@pytest.mark.parametrize("bars", [[BARS, pd.DataFrame(BARS)], [pl.DataFrame(BARS), CLOSES]])
def test_a_list_of_bars(bars: object) -> None:
    found = inputs.panels(bars)
    assert (len(found.values), found.single) == (2, False)


def test_bars_without_closes_are_refused_by_symbol() -> None:
    with pytest.raises(ValueError, match="B: no column 'close'; there are open"):
        inputs.panels({"A": BARS, "B": {"open": [1]}})
