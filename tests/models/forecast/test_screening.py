"""The screening includes all findings of the search, and few clean series."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.forecast import Series, answer_warnings, arrays
from models.forecast.batch import Batch
from models.forecast.screening import suspects
from models.forecast.series import Array
from tests.models.forecast.test_outliers import FACTORS, prices


def found(*series: Array) -> list[int]:
    with arrays.settings("cpu"):
        return list(suspects(Batch([Series(values, 5, (0.5,)) for values in series], "cpu").path))


@settings(max_examples=100)
@given(
    length=st.integers(30, 2000),
    seed=st.integers(0, 1000),
    factor=st.sampled_from([*FACTORS, 1.5]),
    place=st.floats(0, 1),
    lasting=st.booleans(),
)
def test_what_the_search_would_find_is_suspect(
    length: int, seed: int, factor: float, place: float, lasting: bool
) -> None:
    values = prices(length, seed)
    spot = 1 + int(place * (length - 2))
    values[spot : length if lasting and factor > 0 else spot + 1] *= factor
    if answer_warnings.examine(Series(values, 5, (0.5,)))[1]:
        assert 1 in found(prices(100, 1), values, prices(600, 2))


def test_padding_does_not_make_a_short_row_suspect() -> None:
    assert found(prices(60, 3), prices(2000, 4)) == []


@pytest.mark.parametrize("bars", [10, 29, 60])
def test_a_stale_tail_is_suspect(bars: int) -> None:
    values = prices(60)
    values[-bars:] = 7.0
    assert found(values, prices(60, 1)) == [0]


def test_clean_prices_are_seldom_suspect() -> None:
    rows = [prices(256, seed) for seed in range(500)]
    assert len(found(*rows)) < 40
