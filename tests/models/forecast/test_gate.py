"""The gate skips the exact evidence of a row only where the exact gate is shut."""

import numpy as np
import pytest
from hypothesis import given, settings

from models.forecast import Series, arrays, gate
from models.forecast.batch import Batch
from models.forecast.path import Path
from tests.models.forecast.degenerate import batches
from tests.models.forecast.test_embedded import DEGENERATE, KINDS, make

EXACT = {gate.weight: gate.exact_weight, gate.weight_2: gate.exact_weight_2}


def path_of(items: list[Series]) -> Path:
    with arrays.settings("cpu"):
        return Batch(items, "cpu").path


def assert_exact(path: Path) -> None:
    with arrays.settings("cpu"):
        for weight, exact in EXACT.items():
            np.testing.assert_allclose(weight(path), exact(path, gate.OPENS_AT), rtol=0, atol=1e-9)


@settings(max_examples=60)
@given(batch=batches())
def test_skipped_rows_have_a_shut_gate(batch: list[Series]) -> None:
    assert_exact(path_of(batch))
    for item in batch:
        assert_exact(path_of([item]))


@pytest.mark.parametrize("length", [30, 31, 100, 257, 1000])
def test_skipped_rows_of_ordinary_series_have_a_shut_gate(length: int) -> None:
    items = [Series(make(kind, length, seed), 1, (0.5,)) for kind in KINDS for seed in range(20)]
    assert_exact(path_of(items))
    for item in items[::7]:
        assert_exact(path_of([item]))


def test_a_weak_pull_and_weak_waves_are_in_doubt_or_open() -> None:
    """Between clearly shut and clearly open: the evidence of every kind passes the threshold."""
    rng, time, items = np.random.default_rng(7), np.arange(300), []
    for share in np.linspace(0.5, 1, 25):
        noise = rng.normal(size=300)
        levels = [noise[0]]
        for shock in noise[1:]:
            levels.append(share * levels[-1] + shock)
        items.append(Series(100 + np.array(levels), 1, (0.5,)))
        items.append(Series(100 + noise.cumsum() + (1 - share) * time, 1, (0.5,)))
        items.append(Series(100 + noise.cumsum() + 3 * (1 - share) * np.sin(time), 1, (0.5,)))
    path = path_of(items)
    assert_exact(path)
    with arrays.settings("cpu"):
        shares = gate.weight_2(path)
    assert 5 < (shares > 0).sum() < len(items) - 5
    for item in items:
        assert_exact(path_of([item]))


def test_a_batch_of_random_walks_is_skipped_whole() -> None:
    """Exact evidence of a random walk takes several times as long as everything else."""
    path = path_of([Series(make("price", 256, seed), 1, (0.5,)) for seed in range(300)])
    with arrays.settings("cpu"):
        assert len(gate.doubtful(path, gate.REVERSION_LEVEL, gate.OPENS_AT + gate.LATER)) <= 3
    assert_exact(path)


def test_degenerate_series_together_are_those_alone() -> None:
    assert_exact(path_of([Series(values, 1, (0.5,)) for values in DEGENERATE.values()]))


def test_padding_skips_no_row_with_steps_near_the_resolution_of_numbers() -> None:
    """Steps of 1e-15 of the values are as small as the floors of the evidence, which count real steps alone."""
    rng = np.random.default_rng(11)
    items = [Series(1e12 + 1e-3 * rng.normal(size=100).cumsum(), 1, (0.5,)) for _ in range(40)]
    path = path_of([*items, Series(make(KINDS[0], 500, 0), 1, (0.5,))])
    with arrays.settings("cpu"):
        assert (gate.exact_weight(path, gate.OPENS_AT) > 0).any()
    assert_exact(path)
