"""Measures against scipy, scikit-free references, and intervals that hold what they promise."""

import tracemalloc

import numpy as np
import pytest
from scipy import stats

from training.plane.gate import statistics
from training.sentiment.measures import Measures


@pytest.fixture
def answers() -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(1)
    return draws.dirichlet([1.0, 1.0, 1.0], 400), draws.integers(0, 3, 400)


def test_measures_equal_those_of_the_training(answers: tuple[np.ndarray, np.ndarray]) -> None:
    probabilities, labels = answers
    found = Measures.of(probabilities, labels)
    assert statistics.nll(probabilities, labels).mean() == pytest.approx(found.nll, abs=1e-9)
    assert statistics.ece(probabilities, labels) == pytest.approx(found.ece)
    assert statistics.f1(probabilities, labels).mean() == pytest.approx(found.macro_f1)


def test_the_loss_at_the_median_is_the_absolute_error() -> None:
    bands, came = np.array([[1.0], [5.0]]), np.array([3.0, 4.0])
    np.testing.assert_allclose(statistics.pinball(bands, came, np.array([0.5])), [2.0, 1.0])


def test_the_true_quantiles_have_the_lowest_loss() -> None:
    levels = np.array([0.1, 0.5, 0.9])
    came = np.random.default_rng(2).standard_normal(5000)
    true = np.tile(stats.norm.ppf(levels), (5000, 1))
    losses = [statistics.pinball(scale * true, came, levels).mean() for scale in (0.6, 0.8, 1.0, 1.2, 1.6)]
    assert np.argmin(losses) == 2


@pytest.mark.parametrize(("hits", "count", "share"), [(0, 10, 0.8), (24, 30, 0.8), (10, 30, 0.8), (3, 500, 0.01)])
def test_tails_equal_scipys(hits: int, count: int, share: float) -> None:
    low, high = statistics.binomial_tails(hits, count, share)
    assert low == pytest.approx(stats.binom.cdf(hits, count, share))
    assert high == pytest.approx(stats.binom.sf(hits - 1, count, share))


@pytest.mark.parametrize("deviations", [-3, -1, 0, 2, 3])
@pytest.mark.parametrize(("count", "share"), [(100_001, 0.01), (3_000_000, 0.8)])
def test_tails_of_large_counts_are_near_scipys(deviations: int, count: int, share: float) -> None:
    hits = round(count * share + deviations * (count * share * (1 - share)) ** 0.5)
    low, high = statistics.binomial_tails(hits, count, share)
    assert low == pytest.approx(stats.binom.cdf(hits, count, share), rel=0.3)
    assert high == pytest.approx(stats.binom.sf(hits - 1, count, share), rel=0.3)


def test_the_tails_of_a_days_items_take_little_memory() -> None:
    """A list of a number for each item took the watchdog some seconds and gigabytes, at each look."""
    tracemalloc.start()
    statistics.binomial_tails(2_200_000, 200_000_000, 0.01)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 100_000


def test_an_interval_of_independent_differences_holds_the_mean_about_as_often_as_it_says() -> None:
    draws = np.random.default_rng(3)
    found = [statistics.paired(draws.normal(0.1, 1.0, 100), 0.1) for _ in range(100)]
    assert 80 <= sum(one.low <= 0.1 <= one.high for one in found) <= 98


def test_blocks_make_the_interval_of_dependent_differences_wider() -> None:
    draws = np.random.default_rng(4)
    steps = draws.standard_normal(400)
    dependent = np.convolve(steps, np.ones(8) / 8, mode="valid")
    plain, blocked = statistics.paired(dependent, 0.05), statistics.blocked(dependent, 0.05)
    assert blocked.high - blocked.low > 1.5 * (plain.high - plain.low)
    assert plain.mean == blocked.mean == pytest.approx(dependent.mean())
