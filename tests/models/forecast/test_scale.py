"""Structured models work on the scale whose steps are even: lines on plain values, growth and volumes on logarithms."""

import numpy as np
import pytest

from models.forecast import Forecast, Series, arrays, load
from models.forecast.batch import Batch
from models.forecast.scale import natural
from models.forecast.series import Array
from tests.models.forecast.test_embedded import make

LEVELS = (0.1, 0.5, 0.9)
AHEAD = np.arange(1.0, 6)


def answer(values: Array) -> Forecast:
    return load("auto").run([Series(np.ascontiguousarray(values), 5, LEVELS)])[0]


def logs(*series: Array) -> list[bool]:
    with arrays.settings("cpu"):
        found: list[bool] = natural(Batch([Series(values, 5, LEVELS) for values in series], "cpu").path).logs.tolist()
    return found


@pytest.mark.parametrize("scale", [1.0, 1e-9, 3.7e8])
@pytest.mark.parametrize(("start", "rise"), [(1.0, 1.0), (1000.0, 1.0), (100.0, -1.0), (7.0, 0.25), (5000.0, -3.0)])
def test_a_straight_line_is_continued(start: float, rise: float, scale: float) -> None:
    values = scale * (start + rise * np.arange(100.0))
    found = answer(values)
    after = values[-1] + scale * rise * AHEAD
    slack = 1e-5 * np.abs(values).max()
    np.testing.assert_allclose(found.point, after, rtol=0, atol=slack)
    assert (found.quantiles[:, 0] <= after + slack).all()
    assert (found.quantiles[:, 2] >= after - slack).all()
    assert found.gate == 1
    assert not found.logs


@pytest.mark.parametrize("length", [60, 120, 250])
def test_a_noisy_line_keeps_its_coverage_and_beats_the_last_value(length: int) -> None:
    rng = np.random.default_rng(0)
    series = [10 + np.arange(length + 5.0) + rng.normal(size=length + 5) for _ in range(40)]
    found = [answer(values[:-5]) for values in series]
    inside = [
        (one.quantiles[:, 0] <= values[-5:]) & (values[-5:] <= one.quantiles[:, 2])
        for one, values in zip(found, series, strict=True)
    ]
    assert 0.7 < np.mean(inside) < 0.9
    error = np.mean([np.abs(one.point - values[-5:]) for one, values in zip(found, series, strict=True)])
    assert error < np.mean([np.abs(values[-6] - values[-5:]) for values in series]) / 2


def test_cumulated_counts_are_continued_with_bands_that_hold() -> None:
    rng = np.random.default_rng(0)
    series = [1 + rng.poisson(5, 205).cumsum().astype(np.float64) for _ in range(40)]
    found = [answer(values[:-5]) for values in series]
    inside = [
        (one.quantiles[:, 0] <= values[-5:]) & (values[-5:] <= one.quantiles[:, 2])
        for one, values in zip(found, series, strict=True)
    ]
    assert np.mean(inside) > 0.6


def test_growth_volumes_and_seasons_keep_their_logarithms() -> None:
    rng, time = np.random.default_rng(0), np.arange(250)
    growth = 100 * np.exp(0.02 * time + 0.005 * rng.normal(size=250))
    rows = [growth, make("volume", 250, 0), make("price", 250, 0), 320 + np.sin(time / 8) + 0.01 * time]
    assert logs(*rows) == [True] * 4
    assert logs(1 + time * 1.0, 105 - 100 * np.exp(-time / 40), *rows) == [False, False, True, True, True, True]


def test_plain_values_come_back_in_the_series_units() -> None:
    values = np.array([3.0 + 2 * np.arange(40), 500.0 - np.arange(40)])
    with arrays.settings("cpu"):
        path = natural(Batch([Series(row, 5, LEVELS) for row in values], "cpu").path)
    assert not path.logs.any()
    np.testing.assert_allclose(path.prices(path.level), values, rtol=1e-14)
    np.testing.assert_allclose(path.unit[:, None] * path.step, np.diff(values), rtol=1e-12)


@pytest.mark.needs("torch")
def test_tensors_choose_as_arrays_do() -> None:
    import torch

    items = [Series(make(kind, length, 0), 5, LEVELS) for kind in ("trend", "volume", "price") for length in (60, 200)]
    with arrays.settings("cpu"):
        plain = natural(Batch(items, "cpu").path)
    device = torch.device("cpu")
    with arrays.settings(device):
        tensors = natural(Batch(items, device).path)
    assert tensors.logs.tolist() == plain.logs.tolist()
    np.testing.assert_allclose(tensors.level.numpy(), plain.level, rtol=0, atol=1e-12)


@pytest.mark.parametrize("fading", [30.0, 100.0, 1e9])
def test_a_swing_about_a_level_has_no_trend(fading: float) -> None:
    """The mean of its steps is the way from where the swing began."""
    rng, time = np.random.default_rng(0), np.arange(280)
    phases = rng.uniform(0, 2 * np.pi, (40, 1))
    level = 100 + 50 * np.exp(-time / fading) * np.sin(2 * np.pi * time / 40 + phases)
    series = level + 0.5 * rng.normal(size=(40, 280))
    found = load("auto").run([Series(values[:256].copy(), 24, LEVELS) for values in series])
    point = np.array([one.point for one in found])
    bias = (point - series[:, 256:])[:, -12:].mean(1)
    assert np.abs(bias).mean() < 0.42


@pytest.mark.parametrize("start", [100.0, 1000.0])
def test_the_trend_beside_a_season_is_continued(start: float) -> None:
    """The steps of a season are large beside the trend, and take each other back."""
    rng, time = np.random.default_rng(0), np.arange(280)
    series = [
        start + 0.5 * time + 20 * np.sin(2 * np.pi * (time + rng.integers(12)) / 12) + 3 * rng.normal(size=280)
        for _ in range(40)
    ]
    found = load("auto").run([Series(values[:256].copy(), 24, LEVELS) for values in series])
    after = np.array([values[256:] for values in series])
    assert np.abs(np.array([one.point for one in found]) - after).mean() < 1.5 * 3
    quantiles = np.array([one.quantiles for one in found])
    assert np.mean((quantiles[:, :, 0] <= after) & (after <= quantiles[:, :, 2])) > 0.8
