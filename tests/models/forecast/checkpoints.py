"""Tiny random checkpoints of the real architectures, saved to disk."""

from collections.abc import Callable
from pathlib import Path

import pytest

DECILES = [round(0.1 * tenth, 1) for tenth in range(1, 10)]


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
        initializer_factor=0.3,  # with smaller weights no row would notice the rows beside it
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
