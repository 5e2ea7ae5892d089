"""A split has the ratio of a split among steps of unchanged size; crashes and other jumps are no splits."""

import numpy as np
import pytest

from models.forecast import splits
from models.forecast.profile import make_profile
from models.forecast.series import Array


def prices(length: int = 250, seed: int = 0) -> Array:
    return 100 * np.exp(np.cumsum(0.01 * np.random.default_rng(seed).normal(size=length)))


def find(values: Array) -> splits.Split | None:
    return splits.find(make_profile(values))


@pytest.mark.parametrize("ratio", [2, 3, 4, 5, 10, 20, 1.5, 0.5, 0.1, 0.05])
@pytest.mark.parametrize("bars_ago", [0, 1, 20, 200])
def test_a_split_is_found_with_its_ratio_and_place(ratio: float, bars_ago: int) -> None:
    values = prices()
    place = len(values) - 1 - bars_ago
    values[place:] = values[place:] / ratio * values[place - 1] / values[place]
    assert find(values) == (pytest.approx(ratio), bars_ago)


def test_the_newest_of_two_splits_is_reported() -> None:
    values = prices()
    values[100:] /= 4
    values[200:] /= 2
    assert find(values) == (2, 49)


@pytest.mark.parametrize("fall", [0.3, 0.45, 0.6, 0.7, 1.4])
def test_a_jump_of_another_size_is_no_split(fall: float) -> None:
    values = prices()
    values[150:] *= 1 - fall if fall < 1 else fall
    assert find(values) is None


def test_a_halving_into_a_wilder_market_is_a_crash() -> None:
    rng = np.random.default_rng(1)
    steps = np.r_[0.01 * rng.normal(size=150), np.log(0.5), 0.06 * rng.normal(size=100)]
    assert find(100 * np.exp(np.cumsum(steps))) is None


def test_values_that_are_not_positive_and_constants_have_no_splits() -> None:
    values = prices()
    values[100:] /= 4
    for odd in (values - 200, np.where(np.arange(250) == 30, 0, values), np.full(64, 2.0), np.zeros(64)):
        assert find(odd) is None
