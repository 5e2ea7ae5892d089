"""The sentiment recipe: a folder that the inference service loads, the answers in the evaluation, exact resume."""

import csv
from pathlib import Path

import numpy as np
import pytest

from models.sentiment import load
from tests.training.recipes.surroundings import around
from training.recipes import sentiment
from training.recipes.recipe import of
from training.recipes.run import DataRefusedError, StoppedError
from training.sentiment.phrases import phrases

RECIPE = {"kind": "sentiment", "epochs": 1, "steps": 6, "batch": 8, "rank": 4, "version": "9"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "rows.csv"
    rows = [(row.text, row.label, f"2026-0{1 + n // 28}-{1 + n % 28:02d}") for n, row in enumerate(phrases(80, 1))]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label", "time"), *rows])
    return path


def test_interrupted_resumed_and_served(data: Path, tmp_path: Path) -> None:
    whole = around(data, tmp_path / "whole")
    outcome = sentiment.train(of(RECIPE), whole)
    first = around(data, tmp_path / "first", stop_after=3)
    with pytest.raises(StoppedError):
        sentiment.train(of(RECIPE), first)
    second = around(data, tmp_path / "second", resume=tmp_path / "first" / "checkpoint")
    assert sentiment.train(of(RECIPE), second).measures == outcome.measures
    for name in ("adapter.safetensors", "manifest.json", "evaluation.csv"):
        assert (whole.out / name).read_bytes() == (second.out / name).read_bytes(), name
    served = load(str(second.out), dtype="float32")
    assert served.name == sentiment.NAME != "minilm"
    served.check()
    assert served.version == "9"
    with (second.out / "evaluation.csv").open() as file:
        rows = list(csv.DictReader(file))
    with data.open() as file:
        texts = [line[0] for line in csv.reader(file)]
    answers = served.run([c for chunks in served.prepare([texts[int(row["row"]) - 1] for row in rows]) for c in chunks])
    told = np.array([[float(row[f"p{label}"]) for label in range(3)] for row in rows])
    assert np.abs(answers - told).max() < 2e-3


def test_labels_beyond_the_three_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\n" + "up,2\ndown,3\n" * 20)
    with pytest.raises(DataRefusedError, match="row 3"):
        sentiment.train(of(RECIPE), around(tmp_path / "rows.csv", tmp_path / "x"))
