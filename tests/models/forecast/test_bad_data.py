"""Bands and medians on bad prints, splits, halts, limit days, gaps, negative prices and changes of regime."""

import numpy as np
import pytest

from models.forecast import Forecast, Series, load
from models.forecast.series import Array
from models.warning import WarningCode
from tests import extras

LEVELS = (0.1, 0.5, 0.9)
NAMES = ("auto", "vol_rw", "ridge_ar", "auto_fracast", "fracast")


def calm() -> Array:
    """250 prices around 100 with moves of one percent; the score lies just above the threshold of the gate."""
    time = np.arange(250)
    return 100 * np.exp(np.cumsum(0.01 * np.sin(time * time * 1.0)))


def walk(length: int = 250, seed: int = 0) -> Array:
    return 100 * np.exp(np.cumsum(0.01 * np.random.default_rng(seed).normal(size=length)))


def answer(values: Array, name: str = "auto", horizon: int = 5) -> Forecast:
    return load(name).run([Series(values, horizon, LEVELS)])[0]


def width(found: Forecast) -> Array:
    """The width of the 80% band relative to the median, [horizon]."""
    return (found.quantiles[:, 2] - found.quantiles[:, 0]) / found.point


def codes(found: Forecast) -> set[str]:
    return {warning.code for warning in found.warnings}


@pytest.mark.parametrize("place", [1, 100, 200, 248])
@pytest.mark.parametrize("factor", [100.0, 0.01, 0.0, 10.0, -1.0])
def test_a_bad_print_leaves_gate_median_and_bands_as_they_were(factor: float, place: int) -> None:
    values = calm()
    values[place] *= factor
    found, clean = answer(values), answer(calm())
    assert found.gate == clean.gate == 0
    assert found.logs
    np.testing.assert_array_equal(found.point, np.full(5, values[-1]))
    np.testing.assert_allclose(width(found), width(clean), rtol=0.05)
    assert codes(found) == {WarningCode.OUTLIERS_TREATED}


@pytest.mark.parametrize("name", extras.forecasters(*NAMES))
@pytest.mark.parametrize("factor", [100.0, 0.01, 0.0, 10.0])
def test_a_bad_print_hardly_moves_any_forecaster(factor: float, name: str) -> None:
    values = calm()
    values[200] *= factor
    found, clean = answer(values, name), answer(calm(), name)
    np.testing.assert_allclose(found.point, clean.point, rtol=0.01)
    np.testing.assert_allclose(width(found), width(clean), rtol=0.25)
    assert WarningCode.OUTLIERS_TREATED in codes(found)


def test_a_bad_print_as_the_newest_value_is_where_the_forecast_starts() -> None:
    """Only the next value shows whether the price comes back."""
    values = calm()
    values[-1] *= 1.4
    found = answer(values)
    assert found.gate == 0
    np.testing.assert_array_equal(found.point, np.full(5, values[-1]))
    assert codes(found) == set()


@pytest.mark.parametrize("bars_ago", [0, 2, 20, 60])
@pytest.mark.parametrize("ratio", [2.0, 4.0, 10.0])
def test_an_unadjusted_split_keeps_its_step_in_the_bands_and_warns(ratio: float, bars_ago: int) -> None:
    """A real crash can have the same ratio, so the step stays in the volatility; the gate stays shut."""
    values = walk()
    place = len(values) - 1 - bars_ago
    values[place:] /= ratio * values[place] / values[place - 1]
    found = answer(values)
    assert found.gate == 0
    np.testing.assert_array_equal(found.point, np.full(5, values[-1]))
    assert (width(found) > width(answer(walk()))).all()
    assert codes(found) == {WarningCode.SUSPECTED_SPLIT}


@pytest.mark.parametrize("halted", [50, 200, 700])
def test_a_halt_keeps_a_share_of_the_volatility_before(halted: int) -> None:
    before = walk(300)
    values = np.r_[before, np.full(halted, before[-1])]
    found = answer(values, "vol_rw", 1)
    rms = np.sqrt(np.mean(np.diff(np.log(values)) ** 2))
    assert width(found)[0] >= 0.1 * rms * 2
    assert width(found)[0] <= width(answer(before, "vol_rw", 1))[0]
    assert WarningCode.STALE_TAIL in codes(answer(values))


def test_a_series_that_never_moved_has_the_smallest_band_and_warns() -> None:
    found = answer(np.full(200, 42.0))
    assert (width(found) > 0).all()
    assert (width(found) < 1e-4).all()
    assert codes(found) == {WarningCode.STALE_TAIL}


def test_a_limit_day_is_news_that_widens_the_bands() -> None:
    values = walk()
    values[-3:] *= 1.1
    found, clean = answer(values), answer(walk())
    assert found.gate == 0
    assert (width(found) > 1.1 * width(clean)).all()
    assert (width(found) < 4 * width(clean)).all()
    assert codes(found) == set()


def test_a_gap_that_lasts_is_news_and_fades() -> None:
    fresh, old = walk(), walk()
    fresh[-2:] *= 0.7
    old[-150:] *= 0.7
    clean = width(answer(walk()))
    assert answer(fresh).gate == answer(old).gate == 0
    assert (width(answer(fresh)) > 2.5 * clean).all()
    assert (width(answer(old)) < 2 * clean).all()
    assert codes(answer(fresh)) == codes(answer(old)) == set()


def test_a_negative_price_is_a_shock_in_plain_units() -> None:
    """The oil price of April 2020: the band takes in the shock, also below zero."""
    shock = [25.6, 22.8, 20.1, 19.9, 18.3, -37.63, 10.0, 13.8]
    values = np.r_[50 * np.exp(np.cumsum(0.02 * np.random.default_rng(0).normal(size=242))), shock]
    found = answer(values, "vol_rw")
    assert not found.logs
    np.testing.assert_array_equal(found.point, np.full(5, values[-1]))
    assert found.quantiles[0, 0] < 5
    assert found.quantiles[-1, 0] < 0
    assert WarningCode.OUTLIERS_TREATED not in codes(found)


@pytest.mark.parametrize("factor", [3.0, 1 / 3])
def test_a_change_of_regime_is_followed(factor: float) -> None:
    rng = np.random.default_rng(2)
    sizes = np.where(np.arange(300) < 220, 0.01, 0.01 * factor)
    found = answer(100 * np.exp(np.cumsum(sizes * rng.normal(size=300))), "vol_rw", 1)
    old, new = (answer(100 * np.exp(np.cumsum(s * rng.normal(size=300))), "vol_rw", 1) for s in (0.01, 0.01 * factor))
    assert abs(np.log(width(found)[0] / width(new)[0])) < abs(np.log(width(found)[0] / width(old)[0]))
    assert WarningCode.OUTLIERS_TREATED not in codes(found)


def test_batch_mates_of_bad_data_are_left_alone_and_bad_data_is_treated_in_any_batch() -> None:
    bad = calm()
    bad[200] *= 100
    items = [Series(walk(120, 1), 5, LEVELS), Series(bad, 5, LEVELS), Series(walk(300, 2), 9, (0.5,))]
    model = load("auto")
    for item, together in zip(items, model.run(items), strict=True):
        (alone,) = model.run([item])
        np.testing.assert_allclose(together.quantiles, alone.quantiles, rtol=1e-9)
        assert together.warnings == alone.warnings
