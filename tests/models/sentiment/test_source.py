"""Transformers models, from tiny random checkpoints of the same architectures on disk."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from models.model import ModelUnavailableError
from models.sentiment import load
from models.sentiment.minilm import tokenizer
from models.sentiment.model import SentimentModel

NAMES = {0: "Bullish", 1: "Bearish", 2: "Neutral"}


def save(folder: Path, **options: Any) -> Path:
    """A tiny random BERT classifier with a real tokeniser; options go into the configuration."""
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(**{**sizes, "max_position_embeddings": 64, "id2label": NAMES, **options})
    model = BertForSequenceClassification(config).eval()
    with torch.no_grad():
        model.classifier.weight.mul_(30)
    model.save_pretrained(folder)
    special = {f"{name.lower()}_token": f"[{name}]" for name in ("PAD", "CLS", "SEP", "UNK")}
    words = PreTrainedTokenizerFast(tokenizer_object=tokenizer(), **special)
    words.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("hub") / "tiny-finance")


@pytest.fixture(scope="module")
def tiny(folder: Path) -> SentimentModel:
    return load(str(folder), dtype="float32")


def test_answers_equal_the_models_answers_in_the_order_of_labels(folder: Path, tiny: SentimentModel) -> None:
    from transformers import AutoModelForSequenceClassification

    ((chunk,),) = tiny.prepare(["Profit rose sharply."])
    theirs = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        bullish, bearish, neutral = theirs(input_ids=torch.from_numpy(chunk.ids)[None]).logits.softmax(1)[0].tolist()
    np.testing.assert_allclose(tiny.run([chunk])[0], [bearish, neutral, bullish], atol=1e-5)


@settings(max_examples=20)
@given(texts=st.lists(st.text("abc ,.", min_size=1, max_size=80), min_size=1, max_size=10))
def test_an_answer_does_not_depend_on_the_padded_batch(tiny: SentimentModel, texts: list[str]) -> None:
    chunks = [chunk for text in tiny.prepare(texts) for chunk in text]
    alone = np.concatenate([tiny.run([chunk]) for chunk in chunks])
    np.testing.assert_allclose(tiny.run(chunks), alone, rtol=0, atol=1e-5)


def test_the_window_equals_the_networks_positions(tiny: SentimentModel) -> None:
    (chunks,) = tiny.prepare(["word " * 200])
    assert max(len(chunk.ids) for chunk in chunks) == 64


def test_name_and_version_identify_the_loaded_model(folder: Path, tiny: SentimentModel) -> None:
    assert tiny.name == "tiny-finance"
    assert len(tiny.version) == 12
    tiny.check()


def test_labels_that_cannot_be_matched_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match="set id2label"):
        load(str(save(tmp_path, id2label={0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"})))


@pytest.mark.parametrize(
    "kept",
    [
        lambda weights: {key: value for key, value in weights.items() if not key.startswith("classifier")},
        lambda weights: {key: value for key, value in weights.items() if "layer.1" not in key},
        lambda weights: {f"module.{key}": value for key, value in weights.items()},
    ],
    ids=["no head", "no second layer", "other names"],
)
def test_files_that_lack_weights_are_refused(kept: Any, tmp_path: Path) -> None:
    file = save(tmp_path) / "model.safetensors"
    save_file(kept(load_file(file)), file, metadata={"format": "pt"})
    with pytest.raises(ModelUnavailableError, match=r"lack [1-9][0-9]* weights, such as"):
        load(str(tmp_path), dtype="float32")


def test_pickled_weights_are_never_loaded(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    for path in folder.iterdir():
        if path.suffix == ".json":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    torch.save(load_file(folder / "model.safetensors"), tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelUnavailableError):
        load(str(tmp_path))


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match="nowhere"):
        load(str(tmp_path / "nowhere"))
