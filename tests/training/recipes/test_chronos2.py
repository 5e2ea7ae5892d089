"""The Chronos-2 recipe on a small network made here: it learns, serves without peft, and resumes exactly."""

import csv
import dataclasses
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from chronos import Chronos2Pipeline
from chronos.chronos2.config import Chronos2CoreConfig
from chronos.chronos2.model import Chronos2Model
from safetensors.torch import load_file, save_file

from models import forecast
from models.forecast import Series
from models.manifest import Manifest
from tests.training.recipes.surroundings import around
from training.recipes import chronos2
from training.recipes.bars import read
from training.recipes.recipe import of
from training.recipes.run import DataRefusedError, StoppedError

LEVELS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    inner = {
        "context_length": 128, "output_patch_size": 8, "input_patch_size": 8, "input_patch_stride": 8,
        "quantiles": LEVELS, "use_reg_token": True, "use_arcsinh": True, "max_output_patches": 2,
        "time_encoding_scale": 128,
    }  # fmt: skip
    config = Chronos2CoreConfig(
        d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, dropout_rate=0.1, vocab_size=2, chronos_config=inner
    )
    config.chronos_pipeline_class = "Chronos2Pipeline"
    torch.manual_seed(0)
    Chronos2Pipeline(Chronos2Model(config)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two waves, which a network learns from few steps."""
    path = tmp_path_factory.mktemp("data") / "data.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["symbol", "time", "open", "high", "low", "close"])
        for symbol in ("A", "B"):
            for n in range(160):
                close = 100 + 10 * math.sin(n / 3 + (symbol == "B"))
                writer.writerow([symbol, f"2026-{1 + n // 28:02d}-{1 + n % 28:02d}", close, close, close, close])
    return path


def recipe(base: Path, **changes: object) -> chronos2.Chronos2:
    usual = {"horizon": 8, "context": 64, "steps": 25, "rate": 0.01, "averaging": 0.5}
    return of({"kind": "chronos2", "base": str(base), **usual, **changes})


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_it_learns_and_the_folder_serves_without_peft(base: Path, data: Path, tmp_path: Path, mode: str) -> None:
    made = around(data, tmp_path)
    outcome = chronos2.train(recipe(base, mode=mode), made)
    assert outcome.measures["loss"] < outcome.measures["loss_before"]
    assert not [path.name for path in made.out.iterdir() if "adapter" in path.name]
    manifest = Manifest.of(made.out)
    served = forecast.of_folder(dataclasses.replace(manifest, name="tuned", version="7"), made.out)
    assert (served.name, served.version) == ("tuned", "7")
    assert "evaluation.csv" not in manifest.files
    closes = read(data)["A"]
    [answer] = served.run([Series(closes[:100], 8, (0.1, 0.5, 0.9))])
    with (made.out / "evaluation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert np.isfinite(answer.quantiles).all()
    told = {(row["symbol"], int(row["end"])): row for row in rows}
    (symbol, end), row = next(iter(told.items()))
    [again] = served.run([Series(read(data)[symbol][end - 64 : end], 8, tuple(LEVELS))])
    np.testing.assert_allclose(again.quantiles[-1], [float(row[f"q{level:g}"]) for level in LEVELS], rtol=2e-4)


def test_no_window_to_train_on_sees_the_validation(base: Path, data: Path) -> None:
    asked = recipe(base)
    older, newest, held = chronos2.divide({s: v.astype(np.float32) for s, v in read(data).items()}, asked)
    first = {symbol: min(w.end for w in newest if w.symbol == symbol) for symbol in ("A", "B")}
    assert all(window.end + asked.horizon <= first[window.symbol] for window in older)
    assert len(newest) >= 2
    begins = {symbol: min(w.end for w in held if w.symbol == symbol) for symbol in ("A", "B")}
    assert all(window.end + asked.horizon <= begins[window.symbol] for window in newest)


def test_interrupted_and_resumed_equals_uninterrupted(base: Path, data: Path, tmp_path: Path) -> None:
    asked = recipe(base, steps=8)
    whole = around(data, tmp_path / "whole")
    chronos2.train(asked, whole)
    first = around(data, tmp_path / "first", stop_after=3)
    with pytest.raises(StoppedError):
        chronos2.train(asked, first)
    second = around(data, tmp_path / "second", resume=tmp_path / "first" / "checkpoint")
    chronos2.train(asked, second)
    for name in ("model.safetensors", "evaluation.csv"):
        assert (whole.out / name).read_bytes() == (second.out / name).read_bytes(), name


def test_what_cannot_be_trained_is_refused(base: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataRefusedError, match="horizon"):
        chronos2.train(recipe(base, horizon=90), around(data, tmp_path / "a"))
    with pytest.raises(DataRefusedError, match="cannot be had"):
        chronos2.train(recipe(tmp_path / "nothing"), around(data, tmp_path / "b"))
    with pytest.raises(DataRefusedError, match=r"has no quantile 0\.95"):
        chronos2.train(recipe(base, levels=(0.1, 0.9, 0.95)), around(data, tmp_path / "c"))
    file = shutil.copytree(base, tmp_path / "base") / "model.safetensors"
    lacking = {key: value for key, value in load_file(file).items() if "output_patch_embedding" not in key}
    save_file(lacking, file, metadata={"format": "pt"})
    with pytest.raises(DataRefusedError, match=r"cannot be had: the files of .* lack [1-9][0-9]* weights"):
        chronos2.train(recipe(file.parent), around(data, tmp_path / "d"))
