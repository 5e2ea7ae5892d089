"""The classifier recipe on a small BERT made here: adapters, temperature, a transformers folder, exact resume."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
)

from models.model import ModelUnavailableError
from models.sentiment import load
from tests.training.recipes.surroundings import around
from training.recipes import classifier
from training.recipes.recipe import of
from training.recipes.run import DataRefusedError, StoppedError

WORDS = (
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "profit",
    "loss",
    "rose",
    "fell",
    "flat",
    "the",
    "a",
    "shares",
    "sales",
    "on",
)
LABELS = {"fell": 0, "flat": 1, "rose": 2}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    words = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(words, WORDS[1]))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), WORDS, strict=False))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **names)
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, num_labels=2,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    chance = np.random.default_rng(1)
    rows = []
    for n in range(150):
        word = list(LABELS)[n % 3]
        noise = chance.choice(["the", "a", "on", "shares", "sales", "profit", "loss"], size=int(chance.integers(1, 6)))
        rows.append((" ".join([*noise, word]), LABELS[word], f"2026-{1 + n // 28:02d}-{1 + n % 28:02d}"))
    path = tmp_path_factory.mktemp("data") / "data.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label", "time"), *rows])
    return path


def recipe(base: Path, **changes: object) -> classifier.Classifier:
    return of(
        {"kind": "classifier", "base": str(base), "epochs": 14, "rate": 0.008, "rank": 4, "averaging": 0.5, **changes}
    )


def test_it_learns_and_the_folder_serves_without_peft(base: Path, data: Path, tmp_path: Path) -> None:
    made = around(data, tmp_path)
    outcome = classifier.train(recipe(base), made)
    assert outcome.measures["accuracy"] > 0.9
    names = {path.name for path in made.out.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "evaluation.csv"} <= names
    assert not [name for name in names if "adapter" in name or name.endswith((".bin", ".pkl"))]
    served = load(str(made.out), dtype="float32")
    assert served.check() is None
    assert (served.name, served.version) == ("classifier", "1")
    with (made.out / "evaluation.csv").open() as file:
        rows = list(csv.DictReader(file))
    texts = dict(enumerate(data.read_text().splitlines(), start=1))
    asked = [texts[int(row["row"])].split(",")[0] for row in rows]
    answers = served.run([chunk for chunks in served.prepare(asked) for chunk in chunks])
    told = np.array([[float(row[f"p{label}"]) for label in range(3)] for row in rows])
    np.testing.assert_allclose(answers, told, atol=2e-5)


def test_the_registry_serves_no_altered_file_and_reads_no_unlisted_one(base: Path, data: Path, tmp_path: Path) -> None:
    made = around(data, tmp_path)
    classifier.train(recipe(base, epochs=1, steps=2), made)
    (made.out / "added_tokens.json").write_text("{")
    load(str(made.out), dtype="float32").check()
    config = made.out / "config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(ModelUnavailableError, match=r"'config.json' has SHA-256"):
        load(str(made.out), dtype="float32")


def test_interrupted_and_resumed_equals_uninterrupted(base: Path, data: Path, tmp_path: Path) -> None:
    whole = around(data, tmp_path / "whole")
    classifier.train(recipe(base, epochs=2), whole)
    first = around(data, tmp_path / "first", stop_after=7)
    with pytest.raises(StoppedError):
        classifier.train(recipe(base, epochs=2), first)
    second = around(data, tmp_path / "second", resume=tmp_path / "first" / "checkpoint")
    classifier.train(recipe(base, epochs=2), second)
    for name in ("model.safetensors", "evaluation.csv"):
        assert (whole.out / name).read_bytes() == (second.out / name).read_bytes(), name


def test_a_base_that_is_not_there_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataRefusedError, match="cannot be had"):
        classifier.train(recipe(tmp_path / "nothing"), around(data, tmp_path))


@pytest.mark.parametrize("lacking", ["layer.1", "embeddings"])
def test_a_base_that_lacks_weights_is_refused(lacking: str, base: Path, data: Path, tmp_path: Path) -> None:
    """The recipe trained adapters on weights drawn at random."""
    folder = shutil.copytree(base, tmp_path / "base")
    file = folder / "model.safetensors"
    weights = {key: value for key, value in load_file(file).items() if lacking not in key}
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(DataRefusedError, match=r"cannot be had: the files of .* lack [1-9][0-9]* weights"):
        classifier.train(recipe(folder), around(data, tmp_path / "out"))


def test_a_language_model_is_a_base(base: Path, data: Path, tmp_path: Path) -> None:
    """It has neither a head nor a pooler."""
    folder = shutil.copytree(base, tmp_path / "base")
    file = folder / "model.safetensors"
    weights = {key: value for key, value in load_file(file).items() if "pooler" not in key and "class" not in key}
    save_file(weights, file, metadata={"format": "pt"})
    classifier.train(recipe(folder, epochs=1, steps=2), around(data, tmp_path / "out"))


def test_the_head_has_the_recipes_labels(base: Path, data: Path, tmp_path: Path) -> None:
    made = around(data, tmp_path)
    classifier.train(recipe(base, epochs=1, steps=2), made)
    config = AutoModelForSequenceClassification.from_pretrained(made.out).config
    assert config.id2label == {0: "negative", 1: "neutral", 2: "positive"}
