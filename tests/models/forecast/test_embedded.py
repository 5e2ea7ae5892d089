"""The weight-free forecasters against the plain reference, in batches and on odd series."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.forecast import Series, arrays, coverage, gate, load, sigma_table
from models.forecast.batch import Batch
from models.forecast.selftest import SelfTestError
from models.forecast.structure import AUTOREGRESSION
from models.forecast.structure import MIXED as STRUCTURE_2
from models.forecast.walk import EWMA, POOLED
from tests.models.forecast import reference

LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975)
KINDS = ("price", "seasonal", "noise", "reverting", "volume", "trend")
# The batched code sums in another order than the reference.
CLOSE = 1e-9


def make(kind: str, length: int, seed: int) -> np.ndarray:
    rng, time = np.random.default_rng(seed), np.arange(length)
    if kind == "price":
        return 100 * np.exp(np.cumsum(0.01 * rng.standard_t(4, length)))
    if kind == "seasonal":
        return 50 + 10 * np.sin(2 * np.pi * time / 12) + rng.normal(size=length)
    if kind == "noise":
        return rng.normal(size=length)
    if kind == "reverting":
        return np.convolve(rng.normal(size=length + 50), 0.9 ** np.arange(50), "same")[:length].copy()
    if kind == "volume":
        return np.exp(12 + rng.normal(size=length) * 0.4)
    return 0.5 * time + rng.normal(size=length)


DEGENERATE = {
    "constant": np.full(64, 5.0),
    "zeros": np.zeros(64),
    "one jump": np.where(np.arange(64) < 40, 3.0, 7.0),
    "one spike": np.where(np.arange(64) == 40, 3.0, 0.0),
    "near zero": 1e-300 * (1 + np.random.default_rng(0).random(64)),
    "smallest": np.where(np.arange(64) % 2, 5e-324, 1e-323),
    "huge": 1e300 * np.random.default_rng(0).normal(size=64),
    "huge and positive": 1e307 * (1 + np.random.default_rng(0).random(64)),
    "largest": np.where(np.arange(64) % 2, 1.7e308, -1.7e308),
    "exploding": 1.5 ** np.arange(64.0),
    "alternating": np.where(np.arange(64) % 2, 1.0, 2.0),
    "went quiet": np.concatenate([make("price", 40, 1), np.full(600, 90.0)]),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [30, 65, 300])
@pytest.mark.parametrize("name", ["vol_rw", "ridge_ar", "auto_v1"])
def test_quantiles_are_those_of_the_plain_reference(name: str, length: int, kind: str) -> None:
    values = make(kind, length, seed=length)
    found = load(name).run([Series(values, 30, LEVELS)])[0]
    expected = getattr(reference, name)(values, 30, LEVELS)
    np.testing.assert_allclose(found.quantiles, expected, rtol=CLOSE, atol=CLOSE * np.abs(expected).max())
    np.testing.assert_array_equal(found.point, found.quantiles[:, 3])
    assert found.logs == reference.transform(values)[1]
    assert found.context == length


@pytest.mark.parametrize("kind", KINDS)
def test_gate_is_that_of_the_plain_reference(kind: str) -> None:
    series = [make(kind, length, seed) for seed, length in enumerate((30, 47, 64, 128, 300))]
    items = [Series(values, 1, (0.5,)) for values in series]
    found = [answer.gate for answer in load("auto_v1").run(items)]
    np.testing.assert_allclose(found, [reference.gate(values) for values in series], rtol=1e-8, atol=1e-8)
    found = [answer.gate for answer in load("auto").run(items)]
    np.testing.assert_allclose(found, [reference.clustered_gate(values) for values in series], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [30, 65, 300])
def test_the_walk_of_auto_is_that_of_the_plain_reference(length: int, kind: str) -> None:
    values = make(kind, length, seed=length)
    with arrays.settings("cpu"):
        found = Batch([Series(values, 60, LEVELS)], "cpu", POOLED).random_walk().quantiles[0]
    expected = reference.pooled(values, 60, LEVELS)
    np.testing.assert_allclose(found, expected, rtol=CLOSE, atol=CLOSE * np.abs(expected).max())


def test_the_tails_of_auto_grow_with_the_level_at_every_horizon() -> None:
    levels = tuple(np.arange(1, 1000) / 1000)
    assert (np.diff(sigma_table.edges(levels, "cpu"), axis=1) > 0).all()
    np.testing.assert_allclose(sigma_table.edges(levels, "cpu"), -sigma_table.edges(levels, "cpu")[:, ::-1], atol=1e-12)


def test_gate_opens_on_structure_and_stays_shut_on_random_walks() -> None:
    answers = load("auto").run([Series(make(kind, 256, 3), 1, (0.5,)) for kind in KINDS])
    gates = {kind: answer.gate for kind, answer in zip(KINDS, answers, strict=True)}
    assert gates["price"] == 0
    assert min(gates["seasonal"], gates["noise"], gates["volume"], gates["trend"]) == 1


@pytest.mark.parametrize("horizon", [1, 5, 24, 60])
def test_random_walk_coverage_counts_every_backtest_of_the_plain_reference(horizon: int) -> None:
    series = [make("price", length, seed) for seed, length in enumerate((30, 60, 256, 500))]
    answers = load("vol_rw").run([Series(values, horizon, (0.5,)) for values in series])
    for values, answer in zip(series, answers, strict=True):
        kept, tried = reference.vol_rw_coverage(values, horizon)
        assert answer.coverage_count == tried
        assert answer.coverage == pytest.approx(kept / tried) if tried else np.isnan(answer.coverage)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("horizon", [1, 3, 12])
def test_autoregression_coverage_counts_every_backtest_of_the_plain_reference(horizon: int, kind: str) -> None:
    series = [make(kind, length, seed) for seed, length in enumerate((30, 60, 145, 200))]
    answers = load("ridge_ar").run([Series(values, horizon, (0.5,)) for values in series])
    for values, answer in zip(series, answers, strict=True):
        kept, tried = reference.ridge_coverage(values, horizon)
        assert answer.coverage_count == tried
        assert answer.coverage == pytest.approx(kept / tried) if tried else np.isnan(answer.coverage)


def test_coverage_of_a_promise_kept_by_chance_is_near_eighty_percent() -> None:
    answers = load("auto").run([Series(make("price", 256, seed), 5, (0.5,)) for seed in range(60)])
    tried = sum(answer.coverage_count for answer in answers)
    kept = sum(answer.coverage * answer.coverage_count for answer in answers)
    assert 0.77 < kept / tried < 0.85


items = st.builds(
    lambda kind, length, seed, horizon, levels: Series(make(kind, length, seed), horizon, tuple(sorted(levels))),
    st.sampled_from(KINDS),
    st.integers(30, 300),
    st.integers(0, 1000),
    st.integers(1, 60),
    st.sets(st.floats(1e-6, 1 - 1e-6), min_size=1, max_size=5),
)


@pytest.mark.parametrize("name", ["vol_rw", "ridge_ar", "auto_v1", "auto"])
@settings(max_examples=8)
@given(batch=st.lists(items, min_size=2, max_size=4))
def test_an_answer_is_the_same_alone_and_in_any_batch_at_any_padding(name: str, batch: list[Series]) -> None:
    model = load(name)
    for item, together in zip(batch, model.run(batch), strict=True):
        alone = model.run([item])[0]
        scale = np.abs(alone.quantiles).max()
        np.testing.assert_allclose(together.quantiles, alone.quantiles, rtol=0, atol=CLOSE * scale)
        np.testing.assert_allclose(together.point, alone.point, rtol=0, atol=CLOSE * scale)
        assert together.gate == pytest.approx(alone.gate, abs=CLOSE)
        assert (together.logs, together.context) == (alone.logs, alone.context)
        assert together.coverage_count == alone.coverage_count
        assert together.coverage == pytest.approx(alone.coverage, nan_ok=True)


@pytest.mark.parametrize("name", ["vol_rw", "ridge_ar", "auto_v1", "auto"])
@settings(max_examples=8)
@given(item=items, factor=st.sampled_from([1e-200, 1e-3, 7.0, 1e9, 1e200]))
def test_a_scaled_series_has_the_scaled_forecast(name: str, item: Series, factor: float) -> None:
    model = load(name)
    plain, scaled = model.run([item, Series(item.values * factor, item.horizon, item.levels)])
    scale = np.abs(plain.quantiles).max()
    np.testing.assert_allclose(scaled.quantiles / factor, plain.quantiles, rtol=0, atol=1e-7 * scale)


@pytest.mark.parametrize("name", ["vol_rw", "ridge_ar", "auto_v1", "auto"])
@settings(max_examples=15)
@given(item=items)
def test_quantiles_never_cross_and_arrays_are_contiguous(name: str, item: Series) -> None:
    found = load(name).run([item])[0]
    assert (np.diff(found.quantiles, axis=1) >= 0).all()
    assert found.quantiles.shape == (item.horizon, len(item.levels))
    assert found.point.shape == (item.horizon,)
    assert found.quantiles.flags.c_contiguous
    assert found.point.flags.c_contiguous


@pytest.mark.parametrize("name", ["vol_rw", "ridge_ar", "auto_v1", "auto"])
@pytest.mark.parametrize("kind", DEGENERATE)
def test_degenerate_series_get_finite_answers_with_a_band(name: str, kind: str) -> None:
    values = DEGENERATE[kind]
    found = load(name).run([Series(values, 365, (1e-9, 0.1, 0.5, 0.9, 1 - 1e-9))])[0]
    assert np.isfinite(found.quantiles).all()
    assert np.isfinite(found.point).all()
    assert (found.quantiles[:, 1:] >= found.quantiles[:, :-1]).all()
    assert 0 <= found.gate <= 1
    if kind not in ("smallest", "largest"):
        assert (found.quantiles[:, 3] > found.quantiles[:, 1]).all()


def test_degenerate_rows_leave_their_batch_mates_alone() -> None:
    healthy = Series(make("seasonal", 64, 0), 24, LEVELS)
    model = load("auto")
    together = model.run([healthy, *(Series(values, 365, (0.5,)) for values in DEGENERATE.values())])[0]
    np.testing.assert_allclose(together.quantiles, model.run([healthy])[0].quantiles, rtol=CLOSE)


def test_longest_context_and_horizon_answer() -> None:
    found = load("auto").run([Series(make("seasonal", 10_000, 0), 365, LEVELS)])[0]
    assert found.quantiles.shape == (365, len(LEVELS))
    assert np.isfinite(found.quantiles).all()


@pytest.mark.parametrize("name", ["vol_rw", "ridge_ar", "auto_v1"])
def test_self_test_passes_and_notices_a_changed_formula(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    load(name).check()
    monkeypatch.setattr("models.forecast.volatility.WIDENING", 1.06)
    monkeypatch.setattr("models.forecast.autoregression.AGEING", 0.99)
    with pytest.raises(SelfTestError, match=name):
        load(name).check()


def test_buckets_keep_padding_within_a_factor_of_two() -> None:
    model = load("auto")
    lengths = range(30, 10_001, 7)
    by_bucket: dict[object, list[int]] = {}
    for length in lengths:
        by_bucket.setdefault(model.bucket(Series(np.ones(length), 24, (0.5,))), []).append(length)
    assert all(max(mates) <= max(2 * min(mates), 65) for mates in by_bucket.values())
    item = Series(np.ones(64), 1, (0.5,))
    others = [item._replace(horizon=365), item._replace(period=7), item._replace(times=np.arange(64))]
    assert model.bucket(item) not in map(model.bucket, others)


@pytest.mark.needs("torch")
def test_no_tensor_is_made_on_another_device() -> None:
    """Runs the device code on meta tensors, where any mix with a CPU tensor raises."""
    import torch

    items = [Series(make("seasonal", length, 0), horizon, levels) for length, horizon, levels in MIXED]
    for walk, structure, weigh in ((EWMA, AUTOREGRESSION, gate.weight), (POOLED, STRUCTURE_2, gate.weight_2)):
        batch = Batch(items, torch.device("meta"), walk)
        weight = weigh(batch.path)
        rows = batch.vector([0, 2])
        horizon = batch.vector(batch.horizons)
        outlook = batch.random_walk().mixed(rows, weight[rows][:, None], batch.structured(rows, structure))
        kept = coverage.random_walk(horizon, [5, 4, 3], batch.walk, walk.edges)
        mixed = coverage.mixture(batch.path, horizon, [5, 4, 3], weight, batch.steps, walk, structure).coverage
        assert {tensor.device.type for tensor in (outlook.quantiles, kept.hits, mixed.hits)} == {"meta"}


MIXED = [(64, 5, (0.1, 0.9)), (100, 24, (0.5,)), (200, 3, (0.1, 0.5, 0.9))]
