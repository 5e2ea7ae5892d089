"""A structured model that loses against the last value inside the series has no part in the forecast."""

import numpy as np
import pytest

from models.forecast import Series, arrays, load, trial
from models.forecast.path import Path, make_path
from models.forecast.series import Array
from models.forecast.volatility import Backtest
from tests.models.forecast.test_embedded import make

LEVELS = (0.1, 0.5, 0.9)


def path_of(values: Array) -> Path:
    with arrays.settings("cpu"):
        return make_path(values[None], np.array([len(values) - 1.0]), padded=False)


def judged(values: Array, error: Array, deviation: float = 1.0, real: Array | None = None) -> trial.Trial:
    """The trial of forecasts that miss ``values`` [T] by ``error`` [O, H] after the latest O origins, H apart."""
    count, steps = error.shape
    width = len(values) - 1
    path = path_of(values)
    ends = (width - steps * np.arange(count, 0, -1))[None]
    after = path.level[0, ends[0][:, None] + np.arange(1, steps + 1)]
    start, target = path.level[:, ends[0]], path.level[:, ends[0] + steps]
    test = Backtest(start, ends, start, target, start, None if real is None else real[None])
    median = (after + error)[None]
    with arrays.settings("cpu"):
        return trial.judge(path, test, np.array([steps]), median, np.full_like(median, deviation))


def stairs(size: float = 1.0) -> Array:
    """Steps up and down: the last value misses every value one step ahead by ``size``."""
    return size * (np.arange(200) % 2 - 3.0)


def test_forecasts_that_lose_close_the_gate_and_others_do_not() -> None:
    step = path_of(stairs()).peak[0]
    for factor, share in ((0.0, 1.0), (1.0, 1.0), (1.8, 0.0), (50.0, 0.0)):
        assert judged(stairs(), np.full((40, 1), factor * step)).share[0] == share
    assert 0 < judged(stairs(), np.full((40, 1), 1.5 * step)).share[0] < 1


def test_few_origins_close_the_gate_on_larger_losses_alone() -> None:
    step = path_of(stairs()).peak[0]
    assert judged(stairs(), np.full((2, 1), 1.9 * step)).share[0] == 1
    assert judged(stairs(), np.full((2, 1), 3.0 * step)).share[0] == 0


def test_newer_origins_count_more() -> None:
    step = path_of(stairs()).peak[0]
    fading = np.linspace(2.4, 0, 40)[:, None] * step
    assert judged(stairs(), fading).share[0] > judged(stairs(), fading[::-1]).share[0]


def test_errors_larger_than_the_deviations_widen_the_bands() -> None:
    error = np.full((40, 1), 0.1)
    assert judged(stairs(), error, 0.125).width[0] == 1
    assert judged(stairs(), error, 0.05).width[0] == pytest.approx(2 / 1.2, rel=0.1)
    assert judged(stairs(), error, 1e-6).width[0] == trial.WIDEST


def test_a_short_half_widens_the_bands_on_larger_errors_alone() -> None:
    values, error = stairs()[:60], np.full((20, 1), 0.1)
    assert judged(values, error, 0.07).width[0] == 1
    assert judged(values, error, 0.02).width[0] > 2


def test_where_the_last_value_is_often_exact_the_quantiles_are_judged() -> None:
    """Of zeros and rare counts the best forecast by absolute errors is zero, whatever the probability of a count."""
    values = np.zeros(200)
    values[::10] = -3.0
    size = np.abs(path_of(values).level).max()
    mean = np.full((80, 1), -0.3 * size) - (values[-80:] / 3 * size)[:, None]
    assert judged(values, mean, size).share[0] == 1
    assert judged(values, mean * 10, size / 1e3).share[0] == 0


@pytest.mark.parametrize("horizon", [1, 5, 24])
def test_counts_that_are_mostly_zero_keep_their_gate(horizon: int) -> None:
    rng = np.random.default_rng(0)
    counts = [np.where(rng.random(256) < 0.1, rng.poisson(3, 256) + 1.0, 0.0) for _ in range(30)]
    found = load("auto").run([Series(values, horizon, LEVELS) for values in counts])
    assert np.mean([one.gate for one in found]) > 0.97


def test_places_without_an_origin_do_not_count() -> None:
    error = np.r_[np.full((30, 1), 1e3), np.zeros((10, 1))]
    found = judged(stairs(), error, real=np.arange(40) >= 30)
    assert (found.share[0], found.width[0]) == (1, 1)
    nothing = judged(stairs(), error, real=np.zeros(40, dtype=bool))
    assert (nothing.share[0], nothing.width[0]) == (1, 1)


def test_growth_that_ends_is_not_continued() -> None:
    rng, time = np.random.default_rng(0), np.arange(205)
    series = [105 - 100 * np.exp(-time / 40) + 0.1 * rng.normal(size=205) for _ in range(30)]
    found = load("auto").run([Series(values[:-5].copy(), 5, LEVELS) for values in series])
    after = np.array([values[-5:] for values in series])
    error = np.abs(after - np.array([one.point for one in found])).mean()
    assert error < 1.5 * np.abs(after - np.array([values[-6:-5] for values in series])).mean()
    quantiles = np.array([one.quantiles for one in found])
    assert np.mean((quantiles[:, :, 0] <= after) & (after <= quantiles[:, :, 2])) > 0.8
    assert np.mean([one.gate for one in found]) < 0.2


@pytest.mark.parametrize("horizon", [1, 5])
def test_the_fit_of_a_short_half_closes_no_gate(horizon: int) -> None:
    """Swings of a price level: half of 60 values is less than a swing, and all of them are enough for a forecast."""
    series = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        time = np.arange(65) + rng.integers(0, 90)
        series.append(20 * np.exp(np.cumsum(0.05 * np.sin(2 * np.pi * time / 90) + 0.03 * rng.normal(size=65))))
    after = np.array([values[60 : 60 + horizon] for values in series])
    found = load("auto").run([Series(values[:60].copy(), horizon, LEVELS) for values in series])
    assert np.mean([one.gate for one in found]) > 0.8
    error = np.abs(np.array([one.point for one in found]) - after).mean()
    assert error < 0.95 * np.abs(np.array([values[59:60] for values in series]) - after).mean()


@pytest.mark.parametrize("kind", ["seasonal", "noise", "volume"])
@pytest.mark.parametrize("horizon", [1, 5, 24])
def test_lasting_structure_keeps_its_gate(horizon: int, kind: str) -> None:
    found = load("auto").run([Series(make(kind, 256, seed), horizon, LEVELS) for seed in range(20)])
    assert np.mean([one.gate for one in found]) > 0.97


@pytest.mark.parametrize("period", [0, 7])
def test_the_nearest_steps_have_the_coverage_of_far_steps(period: int) -> None:
    rng = np.random.default_rng(0)
    values = 100 + rng.normal(size=(400, 258))
    if period:
        values += 10 * np.sin(2 * np.pi * (np.arange(258) + rng.uniform(0, period, (400, 1))) / period)
    found = load("auto").run([Series(row[:-2].copy(), 2, LEVELS) for row in values])
    quantiles = np.array([one.quantiles for one in found])
    inside = (quantiles[:, :, 0] <= values[:, -2:]) & (values[:, -2:] <= quantiles[:, :, 2])
    assert (np.abs(inside.mean(0) - 0.8) < 0.05).all()
