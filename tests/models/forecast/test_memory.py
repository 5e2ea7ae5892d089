"""The memory of the steps: bands of series whose steps continue, or take back, the step before."""

import numpy as np
import pytest
import torch

from models.forecast import Series, arrays, load, memory
from models.forecast.path import Path, make_path
from models.forecast.series import Array

LEVELS = (0.1, 0.5, 0.9)
HORIZON = 24


def path_of(values: Array) -> Path:
    """The paths of ``values`` [B, T]."""
    return make_path(values, np.full(len(values), values.shape[1] - 1.0), padded=False)


def walks(moves: Array) -> Array:
    """[B, T + 1]: prices with the steps ``moves`` [B, T], in percent."""
    return 100 * np.exp(0.01 * np.pad(moves, ((0, 0), (1, 0))).cumsum(1))


def monthly_means(rows: int, months: int, seed: int) -> Array:
    """[rows, months]: means over 21 days of random walks, such as published yields (Working, 1960)."""
    daily = walks(np.random.default_rng(seed).normal(size=(rows, 21 * months - 1)))
    return daily.reshape(rows, months, 21).mean(2)


def bounced(rows: int, length: int, seed: int) -> Array:
    """[rows, length]: random walks seen at bid or ask (Roll, 1984); the spread is as large as a step."""
    rng = np.random.default_rng(seed)
    return walks(rng.normal(size=(rows, length - 1))) * np.exp(0.01 * rng.choice((-1.0, 1.0), (rows, length)))


def growth(values: Array) -> Array:
    """[B]: the growth over HORIZON steps."""
    with arrays.settings("cpu"):
        path = path_of(values)
        found = memory.excess(path, path.step * path.step)
        return np.ones(len(values)) if found is None else memory.growth(found, HORIZON)[:, -1]


def covered(values: Array) -> float:
    """The share of the values HORIZON steps ahead, the last of ``values`` [B, T], inside the 80% band of `auto`."""
    found = load("auto").run([Series(np.ascontiguousarray(row[:-HORIZON]), HORIZON, LEVELS) for row in values])
    inside = [one.quantiles[-1, 0] <= row[-1] <= one.quantiles[-1, 2] for one, row in zip(found, values, strict=True)]
    return float(np.mean(inside))


def test_means_over_months_keep_the_coverage_far_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variance over many months is 1.5 times that of independent months."""
    values = monthly_means(600, 256 + HORIZON, 0)
    assert 1.12 < np.mean(growth(values)) < np.sqrt(1.5)
    assert 0.77 < covered(values) < 0.83
    monkeypatch.setattr(memory, "CHANCE", 1e9)
    assert covered(values) < 0.75


def test_bands_of_bounced_prices_grow_slowly() -> None:
    """Of the variance of a step a third is the walk's."""
    assert np.sqrt(1 / 3) < np.mean(growth(bounced(300, 256, 0))) < 0.7


@pytest.mark.parametrize("kind", ["normal", "t4", "clustered"])
def test_independent_signs_are_hardly_any_memory(kind: str) -> None:
    rng = np.random.default_rng(1)
    moves = rng.standard_t(4, (2000, 255)) if kind == "t4" else rng.normal(size=(2000, 255))
    if kind == "clustered":
        moves *= np.exp(0.3 * rng.normal(size=moves.shape).cumsum(1) * 0.5)
    found = growth(walks(0.2 * moves / moves.std()))
    assert np.mean(found != 1) < 0.07
    assert np.mean(np.abs(found - 1)) < 0.01


def test_two_large_steps_in_a_row_are_no_evidence() -> None:
    moves = np.random.default_rng(2).normal(size=(1, 255))
    moves[0, 100:102] = 40.0
    assert growth(walks(moves))[0] == pytest.approx(1, abs=0.02)


def test_one_step_ahead_there_is_no_growth() -> None:
    path = path_of(monthly_means(5, 256, 3))
    found = memory.excess(path, path.step * path.step)
    assert found is not None
    np.testing.assert_array_equal(memory.growth(found, 1), 1)
    np.testing.assert_array_equal(memory.growth_over(found, 9), memory.growth(found, 9)[:, -1:])
    by_row = memory.growth_over(found, np.array([1, 2, 3, 4, 5]))
    np.testing.assert_array_equal(by_row[:, 0], np.diagonal(memory.growth(found, 5)))


def test_the_growth_of_tensors_has_the_digits_of_arrays() -> None:
    excess = np.array([[1.9], [-0.7], [0.3]])
    for horizon in (7, np.array([3, 7, 49])):
        tensors = torch.from_numpy(excess), horizon if isinstance(horizon, int) else torch.from_numpy(horizon)
        found = memory.growth_over(*tensors).numpy()
        np.testing.assert_allclose(found, memory.growth_over(excess, horizon), rtol=1e-15)


def test_the_band_of_alternating_steps_keeps_a_share() -> None:
    moves = np.resize([1.0, -1.0], (1, 255)) + 0.01 * np.random.default_rng(4).normal(size=(1, 255))
    least = np.sqrt(1 - (1 - memory.LEAST_GROWTH) * (1 - 1 / HORIZON))
    assert growth(walks(moves))[0] == pytest.approx(least)


def test_steps_of_rounding_noise_have_no_memory() -> None:
    """One bit of the mantissa back and forth, or a long way: the answer stays the same on every machine."""
    values = np.full((2, 256), 100.0)
    values[0, ::2] += 1e-13
    values[1] += 1e-13 * (np.arange(256) // 4)
    np.testing.assert_allclose(growth(values), 1, atol=1e-9)
