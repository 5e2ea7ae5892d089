"""Pretrained forecasters: tiny random checkpoints of the real architectures, saved to disk and loaded."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from models.forecast import Forecast, Series, load
from models.model import Model, ModelUnavailableError

DECILES = [round(0.1 * tenth, 1) for tenth in range(1, 10)]
LEVELS = (0.025, 0.1, 0.33, 0.5, 0.9, 0.99)
# Float32 sums in another order; a leak between rows is far larger.
CLOSE = 1e-3


def save_chronos(folder: Path) -> None:
    pytest.importorskip("chronos")
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 2}
    tokens = {"vocab_size": 64, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    config = T5Config(**sizes, **tokens)
    config.chronos_config = {
        "tokenizer_class": "MeanScaleUniformBins",
        "tokenizer_kwargs": {"low_limit": -15.0, "high_limit": 15.0},
        "context_length": 64,
        "prediction_length": 16,
        "n_tokens": 64,
        "n_special_tokens": 2,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "use_eos_token": True,
        "model_type": "seq2seq",
        "num_samples": 10,
        "temperature": 1.0,
        "top_k": 50,
        "top_p": 1.0,
    }
    T5ForConditionalGeneration(config).save_pretrained(folder)


def save_chronos_bolt(folder: Path) -> None:
    pytest.importorskip("chronos")
    from chronos.chronos_bolt import ChronosBoltModelForForecasting
    from transformers import T5Config

    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 2}
    config = T5Config(
        **sizes, pad_token_id=0, decoder_start_token_id=0, architectures=["ChronosBoltModelForForecasting"]
    )
    config.chronos_pipeline_class = "ChronosBoltPipeline"
    config.chronos_config = {
        "context_length": 128,
        "prediction_length": 16,
        "input_patch_size": 16,
        "input_patch_stride": 16,
        "quantiles": DECILES,
        "use_reg_token": True,
    }
    ChronosBoltModelForForecasting(config).save_pretrained(folder)


def save_chronos_2(folder: Path) -> None:
    pytest.importorskip("chronos")
    from chronos.chronos2.config import Chronos2CoreConfig
    from chronos.chronos2.model import Chronos2Model

    forecasting = {
        "context_length": 128,
        "output_patch_size": 16,
        "input_patch_size": 16,
        "input_patch_stride": 16,
        "quantiles": [0.01, 0.05, *DECILES, 0.95, 0.99],
        "use_reg_token": True,
        "use_arcsinh": True,
        "max_output_patches": 2,
    }
    config = Chronos2CoreConfig(
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=1,
        num_heads=2,
        chronos_config=forecasting,
        architectures=["Chronos2Model"],
    )
    config.chronos_pipeline_class = "Chronos2Pipeline"
    Chronos2Model(config).save_pretrained(folder)


def save_timesfm(folder: Path) -> None:
    from transformers import TimesFm2_5Config, TimesFm2_5ModelForPrediction

    config = TimesFm2_5Config(
        context_length=128,
        horizon_length=16,
        output_quantile_len=32,
        num_hidden_layers=1,
        hidden_size=16,
        intermediate_size=16,
        head_dim=8,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
    )
    TimesFm2_5ModelForPrediction(config).save_pretrained(folder)


SAVE: dict[str, Callable[[Path], None]] = {
    "chronos": save_chronos,
    "chronos_bolt": save_chronos_bolt,
    "chronos_2": save_chronos_2,
    "timesfm": save_timesfm,
}


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
    mixed, plain = (load(name).run([item])[0] for name in ("auto_fracast", "auto"))
    assert mixed.gate == plain.gate == 0
    np.testing.assert_array_equal(mixed.quantiles, plain.quantiles)


def test_auto_fracast_mixes_the_network_in_by_the_distance() -> None:
    item = series(128, 30)
    auto, fracast, mixed = (load(name, backtests=0).run([item])[0] for name in ("auto", "fracast", "auto_fracast"))
    share = (0.7 * np.exp(-np.arange(30) / 8) + 0.3)[:, None]
    assert auto.gate == 1
    np.testing.assert_allclose(mixed.quantiles, share * auto.quantiles + (1 - share) * fracast.quantiles, rtol=1e-9)
    assert mixed.coverage_count == 0


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


def test_weights_of_another_kind_are_refused(tmp_path: Path) -> None:
    save_chronos_bolt(tmp_path)
    with pytest.raises(ModelUnavailableError, match="those of a ChronosBoltPipeline"):
        load("chronos_2", source=str(tmp_path))
