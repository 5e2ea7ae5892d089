"""Runs of equal values in a series that moves otherwise do not narrow the bands of `auto`."""

import numpy as np
import pytest

from models.forecast import Forecast, Series, arrays, halts, load
from models.forecast.batch import Batch
from models.forecast.series import Array
from models.warning import WarningCode

LEVELS = (0.1, 0.5, 0.9)


def walk(length: int, seed: int = 0) -> Array:
    return 100 * np.exp(np.cumsum(0.012 * np.random.default_rng(seed).normal(size=length)))


def seldom(length: int, share: float, seed: int) -> Array:
    """A walk that is seen at ``share`` of the bars."""
    rng = np.random.default_rng(seed)
    return walk(length, seed)[np.maximum.accumulate(np.where(rng.random(length) < share, np.arange(length), 0))]


def answer(values: Array, horizon: int = 5, name: str = "auto") -> Forecast:
    return load(name).run([Series(np.ascontiguousarray(values), horizon, LEVELS)])[0]


def width(found: Forecast) -> Array:
    return (found.quantiles[:, 2] - found.quantiles[:, 0]) / found.point


def tail_of(found: Forecast) -> str:
    (message,) = [warning.message for warning in found.warnings if warning.code == WarningCode.STALE_TAIL]
    return message


@pytest.mark.parametrize("bars", [4, 10, 15, 30, 120, 250, 2000])
def test_the_bands_after_a_halt_are_those_before(bars: int) -> None:
    before = walk(256)
    found, clean = answer(np.r_[before, np.full(bars, before[-1])]), answer(before)
    np.testing.assert_array_equal(found.quantiles, clean.quantiles)
    assert (found.coverage, found.coverage_count) == (clean.coverage, clean.coverage_count)
    assert found.context == 256 + bars
    if bars >= 10:
        assert "rest on the volatility before, and are too wide if the value stays fixed" in tail_of(found)


def test_a_halt_in_the_past_hardly_moves_the_bands() -> None:
    values = walk(300)
    halted = np.r_[values[:220], np.full(41, values[219]), values[220:]]
    np.testing.assert_array_equal(answer(halted).quantiles, answer(values).quantiles)


def test_of_halts_in_a_short_series_the_warning_says_what_they_do() -> None:
    """Fewer than 30 values would be left."""
    values = np.r_[walk(20), np.full(40, 77.0)]
    assert "may be too narrow" in tail_of(answer(values))
    assert "may be too narrow" in tail_of(answer(np.full(100, 42.0)))


@pytest.mark.parametrize("name", ["vol_rw", "ridge_ar", "auto_v1"])
def test_the_warning_of_other_models_does_not_promise_the_volatility_before(name: str) -> None:
    assert "may be too narrow" in tail_of(answer(np.r_[walk(200), np.full(30, 77.0)], name=name))


def test_with_a_cycle_calm_hours_stay_calm() -> None:
    values = np.r_[walk(240), np.full(12, 77.0)]
    (found,) = load("auto").run([Series(values, 5, LEVELS, period=24)])
    assert "may be too narrow" in tail_of(found)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_series_that_trade_seldom_have_few_halts(share: float) -> None:
    found = [halts.moving(seldom(256, share, seed)) for seed in range(200)]
    assert sum(kept is not None for kept in found) < 20


@pytest.mark.parametrize("share", [0.3, 0.5])
def test_bands_of_series_that_trade_seldom_hold(share: float) -> None:
    series = [seldom(261, share, seed) for seed in range(200)]
    found = load("auto").run([Series(values[:-5].copy(), 5, LEVELS) for values in series])
    inside = [
        one.quantiles[-1, 0] <= values[-1] <= one.quantiles[-1, 2] for one, values in zip(found, series, strict=True)
    ]
    assert np.mean(inside) > 0.68


def test_zeros_are_values_and_no_halts() -> None:
    """Amounts in stock that run out, and volumes with a night."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        stock = np.maximum(0, 5 + np.cumsum(3 * rng.normal(size=256) - 0.2))
        volume = np.where(np.arange(256) % 24 < 9, 0, np.exp(5 + 0.5 * rng.normal(size=256)))
        assert halts.moving(stock) is None
        assert halts.moving(volume) is None


def test_every_halt_is_a_candidate_and_padding_is_none() -> None:
    rows = [walk(40), np.r_[walk(100), np.full(4, walk(100)[-1]), walk(30)], walk(700), np.full(50, 3.0)]
    with arrays.settings("cpu"):
        path = Batch([Series(values, 5, LEVELS) for values in rows], "cpu").path
        assert halts.candidates(path) == [1, 3]
        alone = Batch([Series(rows[0], 5, LEVELS)], "cpu").path
        assert not halts.candidates(alone)


def test_a_halted_series_is_the_same_alone_and_in_a_batch() -> None:
    before = walk(256)
    items = [Series(np.r_[before, np.full(k, before[-1])], h, LEVELS) for k, h in ((10, 5), (100, 24), (0, 3), (40, 5))]
    items.append(Series(50 + 10 * np.sin(np.arange(200) / 2) + np.random.default_rng(0).normal(size=200), 9, (0.5,)))
    model = load("auto")
    for item, together in zip(items, model.run(items), strict=True):
        (alone,) = model.run([item])
        np.testing.assert_allclose(together.quantiles, alone.quantiles, rtol=1e-9)
        assert together.warnings == alone.warnings
        assert together.context == len(item.values)
