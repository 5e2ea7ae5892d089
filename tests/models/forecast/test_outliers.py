"""Isolated outliers are found and replaced; lasting jumps, shocks and heavy tails stay."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.forecast import outliers
from models.forecast.profile import make_profile
from models.forecast.series import Array

FACTORS = [100.0, 0.01, 0.0, 10.0, 0.1, -1.0]


def prices(length: int = 250, seed: int = 0, size: float = 0.01) -> Array:
    return 100 * np.exp(np.cumsum(size * np.random.default_rng(seed).standard_t(4, length)))


def find(values: Array) -> list[int]:
    return outliers.find(make_profile(values)).tolist()


@pytest.mark.parametrize("place", [1, 2, 3, 100, 246, 247, 248])
@pytest.mark.parametrize("factor", FACTORS)
def test_one_bad_print_is_found_wherever_the_next_value_returns(factor: float, place: int) -> None:
    values = prices()
    values[place] *= factor
    assert find(values) == [place]


@pytest.mark.parametrize("run", [2, 3])
@pytest.mark.parametrize("factor", FACTORS)
def test_a_short_run_of_bad_prints_is_found(factor: float, run: int) -> None:
    values = prices()
    values[100 : 100 + run] *= factor
    assert find(values) == list(range(100, 100 + run))


def test_several_bad_prints_are_found() -> None:
    values = prices()
    values[[20, 60, 200]] *= [100, 0.01, 0]
    assert find(values) == [20, 60, 200]


@settings(max_examples=50)
@given(
    length=st.integers(30, 600),
    seed=st.integers(0, 1000),
    factor=st.sampled_from(FACTORS),
    place=st.floats(0, 1),
    size=st.sampled_from([1e-4, 0.003, 0.02]),
)
def test_any_price_series_gets_its_bad_print_replaced_by_a_value_near_its_neighbours(
    length: int, seed: int, factor: float, place: float, size: float
) -> None:
    clean = prices(length, seed, size)
    spot = 1 + int(place * (length - 3))
    values = clean.copy()
    values[spot] *= factor
    profile = make_profile(values)
    positions = outliers.find(profile)
    treated = outliers.replaced(values, positions, logs=profile.logs)
    # Only a real shock beside the print may hide the print.
    if abs(np.log(clean[spot + 1] / clean[spot - 1])) < 4 * size:
        assert positions.tolist() == [spot]
        assert treated[spot] == pytest.approx(np.sqrt(clean[spot - 1] * clean[spot + 1]))
    assert (np.delete(treated, spot) == np.delete(values, spot)).all()


@pytest.mark.parametrize("place", [1, 100, 246, 247, 248, 249])
@pytest.mark.parametrize("factor", [0.25, 0.5, 1.3, 10.0, 100.0])
def test_a_jump_that_lasts_is_no_outlier(factor: float, place: int) -> None:
    values = prices()
    values[place:] *= factor
    assert find(values) == []


def test_the_first_value_has_no_neighbour_before_it() -> None:
    values = prices()
    values[0] *= 100
    assert find(values) == []


def test_the_negative_oil_price_of_2020_is_a_shock_and_no_outlier() -> None:
    before = 50 * np.exp(np.cumsum(0.02 * np.random.default_rng(0).normal(size=200)))
    oil = np.r_[before, 25.6, 22.8, 20.1, 19.9, 18.3, -37.63, 10.0, 13.8, 16.5, 16.9, 12.8, 12.3, 15.1]
    assert find(oil) == []


@pytest.mark.parametrize("seed", range(5))
def test_heavy_tailed_returns_and_spiky_volumes_have_no_outliers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    assert find(0.01 * rng.standard_t(3, 1000)) == []
    assert find(np.exp(12 + 0.6 * rng.standard_t(5, 1000))) == []


def test_a_bad_print_among_returns_is_found() -> None:
    returns = 0.01 * np.random.default_rng(0).standard_t(4, 300)
    returns[150] = 5.0
    assert find(returns) == [150]


def test_values_that_are_often_far_away_are_the_series_nature() -> None:
    values = prices()
    values[10::10] = 0.0
    assert find(values) == []


def test_one_tick_of_a_stale_quote_is_no_outlier_and_a_bad_print_in_it_is() -> None:
    quote = np.full(100, 50.0)
    quote[60] = 50.5
    assert find(quote) == []
    quote[60] = 5000.0
    assert find(quote) == [60]


@pytest.mark.parametrize("values", [np.zeros(64), np.full(64, -3.0), np.where(np.arange(64) == 40, 3.0, 0.0)])
def test_a_series_without_a_scale_has_no_outliers(values: Array) -> None:
    assert find(values) == []
