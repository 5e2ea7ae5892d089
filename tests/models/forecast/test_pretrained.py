"""Pretrained forecasters, loaded from tiny random checkpoints of the real architectures."""

import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models.forecast import Covariates, Forecast, Group, Series, load, pretrained
from models.forecast.backtests import _before
from models.forecast.embedded import bucket
from models.model import Model, ModelUnavailableError
from tests.models.forecast.checkpoints import SAVE, save_chronos, save_chronos_2, save_chronos_bolt
from tests.models.forecast.degenerate import make

LEVELS = (0.025, 0.1, 0.33, 0.5, 0.9, 0.99)
# Float32 sums in another order; a leak between rows is far larger.
CLOSE = 1e-3


@pytest.fixture(scope="module", params=[*SAVE, "fracast", "auto_fracast"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model[Series, Forecast]:
    name: str = request.param
    if name not in SAVE:
        return load(name, backtests=2)
    folder = tmp_path_factory.mktemp(name)
    torch.manual_seed(0)
    SAVE[name](folder)
    return load(name, source=str(folder), backtests=2)


def series(length: int, horizon: int, levels: tuple[float, ...] = LEVELS, seed: int = 0) -> Series:
    noise = np.random.default_rng(seed).normal(size=length)
    return Series(50 + 10 * np.sin(np.arange(length) / 4) + noise, horizon, levels)


def test_forecast_is_finite_ordered_and_of_the_asked_shape(model: Model[Series, Forecast]) -> None:
    items = [series(300, 5), series(64, 9, (0.5,)), series(31, 40, (0.2, 0.8))]
    for item, found in zip(items, model.run(items), strict=True):
        assert found.quantiles.shape == (item.horizon, len(item.levels))
        assert found.point.shape == (item.horizon,)
        assert np.isfinite(found.quantiles).all()
        assert (np.diff(found.quantiles, axis=1) >= 0).all()
        assert found.quantiles.flags.c_contiguous
        assert found.point.flags.c_contiguous
        assert found.gate == 1
        assert 30 <= found.context <= len(item.values)


def test_answers_are_fresh(model: Model[Series, Forecast]) -> None:
    assert vars(type(model))["fresh_answers"]
    items = [series(100, 12), series(90, 12)]
    for one, other in zip(model.run(items), model.run(items), strict=True):
        assert not np.may_share_memory(one.point, other.point)
        assert not np.may_share_memory(one.quantiles, other.quantiles)


def test_point_is_the_median(model: Model[Series, Forecast]) -> None:
    found = model.run([series(100, 12)])[0]
    np.testing.assert_allclose(found.point, found.quantiles[:, LEVELS.index(0.5)], rtol=1e-12)


def test_an_answer_is_the_same_alone_and_among_batch_mates(model: Model[Series, Forecast]) -> None:
    items = [
        series(100, 12),
        series(33, 3, seed=1),
        series(300, 20, (0.5,), seed=2),
        series(128, 12, (0.1, 0.9), seed=3),
    ]
    for item, together in zip(items, model.run(items), strict=True):
        alone = model.run([item])[0]
        reach = np.ptp(item.values)
        np.testing.assert_allclose(together.quantiles, alone.quantiles, rtol=0, atol=CLOSE * reach)
        assert (together.coverage_count, together.context) == (alone.coverage_count, alone.context)


@pytest.mark.parametrize("horizon", [5, 65])
def test_a_series_that_hardly_moves_is_answered_alone_as_beside_any_other(
    model: Model[Series, Forecast], horizon: int
) -> None:
    """The padding of the batch rounds a level in another way. The rounding must not become the spread of the series."""
    moves = [("one jump", 1 + 1e-6), ("one jump", 1.5), ("two values", 1 + 1e-12), ("halt at the end", 1)]
    kinds = [("constant", scale, 1) for scale in (0.1, 17.03, 101.37, 1e-300, 1e12)]
    kinds += [(kind, 17.03, ratio) for kind, ratio in moves]
    items = [Series(make(kind, 97, scale, ratio, 50, 0), horizon, LEVELS) for kind, scale, ratio in kinds]
    alone = [model.run([item])[0] for item in items]
    for length in (34, 257):
        together = model.run([series(length, horizon), *items])[1:]
        for item, found, expected in zip(items, together, alone, strict=True):
            close = 1e-5 * np.ptp(expected.quantiles) + 4 * np.spacing(np.abs(item.values).max())
            np.testing.assert_allclose(found.quantiles, expected.quantiles, rtol=0, atol=close)
            assert found.coverage == pytest.approx(expected.coverage, abs=0, nan_ok=True)


def test_a_scaled_series_has_the_scaled_forecast(model: Model[Series, Forecast]) -> None:
    item = series(100, 12)
    for factor in (2.0**-300, 1024.0, 2.0**900):
        plain, scaled = model.run([item, Series(item.values * factor, 12, LEVELS)])
        np.testing.assert_allclose(scaled.quantiles / factor, plain.quantiles, rtol=0, atol=CLOSE * np.ptp(item.values))


def test_degenerate_series_get_finite_answers(model: Model[Series, Forecast]) -> None:
    flat, jump = np.full(64, 5.0), np.where(np.arange(64) < 40, 3.0, 7.0)
    items = [Series(values, 20, LEVELS) for values in (flat, np.zeros(64), jump, 1.7e308 * np.sin(np.arange(64.0)))]
    for found in model.run(items):
        assert np.isfinite(found.quantiles).all()


def test_coverage_counts_real_past_origins(model: Model[Series, Forecast]) -> None:
    long, short = model.run([series(200, 10), series(31, 10)])
    assert long.coverage_count == 2
    assert 0 <= long.coverage <= 1
    assert short.coverage_count == 0
    assert np.isnan(short.coverage)


def test_self_test_passes(model: Model[Series, Forecast]) -> None:
    model.check()
    assert model.version


def test_short_window_of_fracast_is_near_the_package_and_the_whole_window_equal() -> None:
    from fracast import FracastModel

    from models.forecast.fracast import Fracast

    network = FracastModel.from_pretrained(weights="fp32")
    contexts = [series(200, 1, seed=seed).values / 100 for seed in range(3)]
    expected = network.forecast_batch(np.stack(contexts), horizon=96)
    reach = np.ptp(contexts[0])
    with torch.inference_mode():
        whole = Fracast(network, short=False).quantiles(contexts, 96).numpy()
        short = Fracast(network).quantiles(contexts, 96).numpy()
    np.testing.assert_allclose(whole, expected, rtol=0, atol=1e-4 * reach)
    assert np.abs(short - expected).mean() < 0.1 * reach


def test_auto_fracast_leaves_prices_to_the_random_walk() -> None:
    prices = 100 * np.exp(np.cumsum(0.01 * np.random.default_rng(3).standard_t(4, 256)))
    item = Series(prices, 24, LEVELS)
    mixed, plain = (load(name).run([item])[0] for name in ("auto_fracast", "auto_v1"))
    assert mixed.gate == plain.gate == 0
    np.testing.assert_array_equal(mixed.quantiles, plain.quantiles)


def test_auto_fracast_mixes_the_network_in_by_the_distance() -> None:
    item = series(128, 30)
    auto, fracast, mixed = (load(name, backtests=0).run([item])[0] for name in ("auto_v1", "fracast", "auto_fracast"))
    share = (0.7 * np.exp(-np.arange(30) / 8) + 0.3)[:, None]
    assert auto.gate == 1
    np.testing.assert_allclose(mixed.quantiles, share * auto.quantiles + (1 - share) * fracast.quantiles, rtol=1e-9)
    assert mixed.coverage_count == 0


def test_two_threads_do_not_mix_their_draws(tmp_path: Path) -> None:
    save_chronos(tmp_path)
    model = load("chronos", source=str(tmp_path), backtests=0)
    items = [series(64, 3, seed=seed) for seed in range(12)]
    alone = model.run(items)
    with ThreadPoolExecutor(2) as threads:
        for together in threads.map(model.run, [items] * 4):
            for one, other in zip(together, alone, strict=True):
                np.testing.assert_array_equal(one.quantiles, other.quantiles)


@pytest.mark.parametrize("name", ["chronos", "chronos_bolt", "chronos_2"])
def test_a_call_beyond_the_native_horizon_is_silent_and_leaves_the_filters_of_other_threads(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SAVE[name](tmp_path)
    with warnings.catch_warnings():
        warnings.resetwarnings()
        warnings.simplefilter("error")
        model = load(name, source=str(tmp_path), backtests=0)
        filters = warnings.filters[:]
        monkeypatch.setattr(warnings, "catch_warnings", pytest.fail)
        (found,) = model.run([series(64, 50)])
        monkeypatch.undo()
        assert warnings.filters == filters
    assert np.isfinite(found.point).all()


@pytest.mark.parametrize("name", SAVE)
def test_weights_that_are_not_there_are_reported_with_what_to_do(name: str, tmp_path: Path) -> None:
    if name != "timesfm":
        pytest.importorskip("chronos")
    with pytest.raises(ModelUnavailableError, match="needs a source: a local folder or a hub id"):
        load(name)
    with pytest.raises(ModelUnavailableError, match=f"{name}: no .* weights at"):
        load(name, source=str(tmp_path))


@pytest.mark.parametrize(("name", "package"), [("chronos_2", "chronos"), ("fracast", "fracast")])
def test_missing_package_is_reported_with_what_to_install(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModelUnavailableError, match=f"needs .*{package}.*pip install"):
        load(name, source="somewhere")


@pytest.mark.parametrize("name", SAVE)
def test_files_that_lack_weights_are_refused(name: str, tmp_path: Path) -> None:
    SAVE[name](tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    modules = sorted({key.rsplit(".", 1)[0] for key in weights})
    lacking = [{key: value for key, value in weights.items() if not key.startswith(one)} for one in modules]
    for kept in ({f"_orig_mod.{key}": value for key, value in weights.items()}, *lacking):
        save_file(kept, file, metadata={"format": "pt"})
        with pytest.raises(ModelUnavailableError, match=rf"the files of '{name}' lack [1-9][0-9]* weights"):
            load(name, source=str(tmp_path))


def test_weights_of_another_kind_are_refused(tmp_path: Path) -> None:
    save_chronos_bolt(tmp_path)
    with pytest.raises(ModelUnavailableError, match="those of a ChronosBoltPipeline"):
        load("chronos_2", source=str(tmp_path))


@pytest.fixture(scope="module")
def chronos_2(tmp_path_factory: pytest.TempPathFactory) -> Model[Series | Group, Forecast | tuple[Forecast, ...]]:
    folder = tmp_path_factory.mktemp("joint")
    torch.manual_seed(0)
    save_chronos_2(folder)
    return load("chronos_2", source=str(folder), backtests=2)


def covariates(length: int, horizon: int, *, known: bool, seed: int = 9) -> Covariates:
    """Two columns, the second of them known ahead where asked for."""
    both = np.random.default_rng(seed).normal(size=(2, length + horizon))
    ahead = np.where([[False], [known]], both[:, length:], np.nan)
    return Covariates(both[:, :length], ahead)


def moved(one: Forecast, other: Forecast, item: Series) -> float:
    return float(np.abs(one.quantiles - other.quantiles).max() / np.ptp(item.values))


def test_only_chronos_2_takes_covariates_and_groups(model: Model[Series, Forecast]) -> None:
    expected = ("covariates", "groups") if model.name == "chronos_2" else ()
    assert model.takes == expected


def test_past_and_known_values_of_covariates_change_a_forecast(chronos_2) -> None:
    plain = series(100, 12)
    past_only = plain._replace(covariates=covariates(100, 12, known=False))
    known = plain._replace(covariates=covariates(100, 12, known=True))
    found = chronos_2.run([plain, past_only, known])
    assert moved(found[0], found[1], plain) > CLOSE
    assert moved(found[1], found[2], plain) > CLOSE


def test_a_missing_covariate_is_none(chronos_2) -> None:
    """A column without a single value is masked out, and a column with holes gives a finite answer."""
    item = series(100, 12)
    nothing = Covariates(np.full((1, 100), np.nan), np.full((1, 12), np.nan))
    holes = covariates(100, 12, known=True)
    holes.past[:, ::3] = np.nan
    with_nothing, with_holes = chronos_2.run([item._replace(covariates=nothing), item._replace(covariates=holes)])
    assert np.isfinite(with_nothing.quantiles).all()
    assert np.isfinite(with_holes.quantiles).all()


def test_the_scale_and_the_level_of_a_covariate_do_not_matter(chronos_2) -> None:
    item, given = series(100, 12), covariates(100, 12, known=True)
    small, large = (
        item._replace(covariates=Covariates(given.past * factor, given.future * factor))
        for factor in (2.0**-300, 2.0**900)
    )
    lifted = item._replace(covariates=Covariates(given.past + 3, given.future + 3))
    one, other, third = chronos_2.run([small, large, lifted])
    assert moved(one, other, item) < CLOSE
    assert moved(one, third, item) < CLOSE


def test_series_of_a_group_change_each_others_forecasts(chronos_2) -> None:
    one, other = series(100, 12), series(80, 12, seed=1)
    together = chronos_2.run([Group((one, other))])[0]
    assert len(together) == 2
    for item, found in zip((one, other), together, strict=True):
        assert moved(found, chronos_2.run([item])[0], item) > CLOSE


def test_a_member_is_to_the_others_what_a_past_covariate_is(chronos_2) -> None:
    """The network's own view of a group: a row per series and covariate, and each row attends to all others."""
    one, other = series(100, 12), series(100, 12, seed=1)
    joint = chronos_2.run([Group((one, other))])[0][0]
    beside = Covariates(other.values[None], np.full((1, 12), np.nan))
    alone = chronos_2.run([one._replace(covariates=beside)])[0]
    assert moved(joint, alone, one) < CLOSE


def test_joint_items_are_equal_alone_and_in_any_batch(chronos_2) -> None:
    items = [
        Group((series(100, 12), series(64, 12, seed=1))),
        series(90, 12, seed=2)._replace(covariates=covariates(90, 12, known=True)),
        series(100, 12, seed=3),
        Group((series(300, 20, seed=4)._replace(covariates=covariates(300, 20, known=False)), series(40, 20, seed=5))),
    ]
    for item, together in zip(items, chronos_2.run(items), strict=True):
        alone = chronos_2.run([item])[0]
        pairs = (
            zip(together, alone, item.members, strict=True) if isinstance(item, Group) else [(together, alone, item)]
        )
        for found, expected, member in pairs:
            assert moved(found, expected, member) < CLOSE
            assert (found.coverage_count, found.context) == (expected.coverage_count, expected.context)


def test_backtests_of_a_group_see_what_was_known_then(chronos_2) -> None:
    """Values after an origin change no backtest, except values of a covariate that is known ahead."""
    item = series(100, 12)._replace(covariates=covariates(100, 12, known=True))
    then = _before(item, 24)
    assert len(then.values) == 76
    np.testing.assert_array_equal(then.covariates.past, item.covariates.past[:, :76])
    assert np.isnan(then.covariates.future[0]).all()
    np.testing.assert_array_equal(then.covariates.future[1], item.covariates.past[1, 76:88])
    group = chronos_2.run([Group((item, series(50, 12, seed=1)))])[0]
    assert [found.coverage_count for found in group] == [1, 1]  # the shorter one has 38 values at the first origin


def test_a_group_beyond_the_native_horizon_is_finite(chronos_2) -> None:
    items = (series(300, 100)._replace(covariates=covariates(300, 100, known=True)), series(300, 100, seed=1))
    for found in chronos_2.run([Group(items)])[0]:
        assert np.isfinite(found.quantiles).all()


def test_joint_items_share_a_batch_with_their_like(chronos_2) -> None:
    plain, beside = series(100, 12), series(100, 12)._replace(covariates=covariates(100, 12, known=True))
    group = Group((plain, series(90, 12), series(90, 12)))
    assert chronos_2.bucket(plain) == bucket(plain)
    assert chronos_2.bucket(group) == chronos_2.bucket(beside) != chronos_2.bucket(plain)
    assert chronos_2.units(beside) == chronos_2.units(plain) + 2 * (100 + 12) * 3


def test_a_large_group_reads_a_shorter_window(chronos_2, monkeypatch) -> None:
    """A group is one item of a batch: no batch ends in the middle of it."""
    monkeypatch.setattr(pretrained, "MOST_VALUES", 200)
    items = tuple(series(100, 4, seed=seed) for seed in range(4))
    found = chronos_2.run([Group(items)])[0]
    assert [one.context for one in found] == [50] * 4
    cut = chronos_2.run([Group(tuple(one._replace(values=one.values[-50:].copy()) for one in items))])[0]
    for one, other, item in zip(found, cut, items, strict=True):
        assert moved(one, other, item) < CLOSE
    assert chronos_2.run([items[0]])[0].context == 100
