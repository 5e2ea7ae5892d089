"""The embedded model: protocol, independence of batches, and refusal of altered files."""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.device.cuda import pick_device
from models import manifest
from models.model import Model, ModelUnavailableError
from models.sentiment import LABELS, load
from models.sentiment.chunk import Chunk, Probabilities
from models.sentiment.minilm import ADAPTER
from models.sentiment.model import Expected, SelfTestError, SentimentModel
from models.sentiment.source import SHIPPED
from models.sentiment.text import Ids, Windows

GPU = pick_device("auto") == "cuda"
WORDS = [
    "profit",
    "rose",
    "fell",
    "loss",
    "shares",
    "to",
    "EUR",
    "13.1",
    "mn",
    "unbelievable",
    "board",
    "¥",
    "meeting.",
]
TEXTS = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=90).map(" ".join), min_size=1, max_size=12)


def answers(model: SentimentModel, texts: list[str]) -> Probabilities:
    """The answers of a service: all chunks in one batch, then pooled text by text."""
    prepared = model.prepare(texts)
    rows = iter(model.run([chunk for chunks in prepared for chunk in chunks]))
    return np.stack([model.pool(chunks, np.stack([next(rows) for _ in chunks])) for chunks in prepared])


def test_the_embedded_model_implements_the_protocol(embedded: SentimentModel) -> None:
    model: Model[Chunk, Probabilities] = embedded
    assert model.name == "minilm"
    assert model.version


def test_the_embedded_model_judges_each_company_of_a_text(embedded: SentimentModel) -> None:
    """The manifest says that the model was trained on masked companies; else clauses are asked."""
    text = "Apple jumps 5%, Samsung slips"
    (apple,), (samsung,) = (answers(embedded, [embedded.towards(text, name)]) for name in ("Apple", "Samsung"))
    assert embedded.towards(text, "Samsung") == "Apple jumps 5%, [MASK] slips"
    assert (LABELS[apple.argmax()], LABELS[samsung.argmax()]) == ("positive", "negative")


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Operating profit rose to EUR 21.4 mn from EUR 15.9 mn a year earlier.", "positive"),
        ("Net loss narrowed to $3 million from $11 million.", "positive"),
        ("Shares of the chipmaker plunge 12% after it slashes its outlook", "negative"),
        ("The company will lay off 300 people because of weak demand.", "negative"),
        ("The annual general meeting will be held in Helsinki on 12 April.", "neutral"),
    ],
)
def test_plain_cases_are_classified_correctly(embedded: SentimentModel, text: str, label: str) -> None:
    (answer,) = answers(embedded, [text])
    assert LABELS[int(answer.argmax())] == label
    assert np.sign(answer[2] - answer[0]) == np.sign(LABELS.index(label) - 1) or label == "neutral"


@settings(max_examples=25)
@given(texts=TEXTS)
def test_an_answer_does_not_depend_on_the_batch(embedded: SentimentModel, texts: list[str]) -> None:
    together = answers(embedded, texts)
    alone = np.concatenate([answers(embedded, [text]) for text in texts])
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)


@settings(max_examples=25)
@given(texts=TEXTS)
def test_answers_are_probabilities(embedded: SentimentModel, texts: list[str]) -> None:
    got = answers(embedded, texts)
    assert got.dtype == np.float32 and got.shape == (len(texts), 3)
    assert (got >= 0).all()
    np.testing.assert_allclose(got.sum(axis=1), 1, atol=1e-5)


@pytest.mark.needs("torch")
def test_bfloat16_answers_lie_within_the_stated_tolerance(embedded: SentimentModel) -> None:
    half = load(dtype="bfloat16")
    half.check()
    texts = ["Profit fell.", "Shares rise on strong results " * 3, "The board meets on Monday."]
    together = answers(half, texts)
    alone = np.concatenate([answers(half, [text]) for text in texts])
    np.testing.assert_allclose(together, alone, rtol=0, atol=0.02)
    assert (together.argmax(axis=1) == answers(embedded, texts).argmax(axis=1)).all()


@pytest.mark.needs("torch")
def test_bfloat16_answers_do_not_depend_on_the_batch_where_auto_takes_them() -> None:
    model = load()
    if model.dtype != "bfloat16":
        pytest.skip("the processor has no matrix instructions for bfloat16")
    chance = random.Random(1)
    texts = [" ".join(chance.choices(WORDS, k=chance.randint(1, 90))) for _ in range(16)]
    alone = np.concatenate([answers(model, [text]) for text in texts])
    for _ in range(5):
        places = chance.sample(range(len(texts)), chance.randint(2, 16))
        np.testing.assert_array_equal(answers(model, [texts[place] for place in places]), alone[places])


def test_a_web_address_in_a_text_is_ignored(embedded: SentimentModel) -> None:
    plain, linked = answers(embedded, ["Profit rose", "Profit rose https://t.co/x1"])
    np.testing.assert_array_equal(plain, linked)


def test_the_end_of_a_long_text_counts(embedded: SentimentModel) -> None:
    opening = "The company makes tyres and sells them in many countries. " * 40
    (chunks,) = embedded.prepare([opening])
    assert len(chunks) > 1 and all(len(chunk.ids) <= 128 for chunk in chunks)
    neutral, ended = answers(embedded, [opening, opening + "Profit collapsed and the shares plunged. " * 20])
    assert ended[2] - ended[0] < neutral[2] - neutral[0] - 0.1


def test_cost_is_the_number_of_tokens(embedded: SentimentModel) -> None:
    ((chunk,),) = embedded.prepare(["Profit rose"])
    assert embedded.units(chunk) == len(chunk.ids) == 4


def test_an_empty_batch_has_no_answers(embedded: SentimentModel) -> None:
    assert embedded.run([]).shape == (0, 3)


class Counting:
    """A network with one constant answer that records the sequences."""

    dtype = "float32"

    def __init__(self) -> None:
        self.asked: list[Ids] = []

    def size(self, length: int) -> int:
        return length

    def probabilities(self, sequences: list[Ids]) -> Probabilities:
        self.asked += sequences
        return np.tile(np.array([0.2, 0.3, 0.5], dtype=np.float32), (len(sequences), 1))


@pytest.fixture
def counted(embedded: SentimentModel) -> tuple[SentimentModel, Counting]:
    network = Counting()
    windows: Windows = embedded._windows
    return SentimentModel("counted", "1", windows, network, Expected(("Profit",), np.full((1, 3), 1 / 3))), network


def test_a_text_repeated_within_a_batch_is_computed_once(counted: tuple[SentimentModel, Counting]) -> None:
    model, network = counted
    assert answers(model, ["Profit rose", "Profit fell", "Profit rose", "PROFIT ROSE"]).shape == (4, 3)
    assert len(network.asked) == 2


def test_check_raises_when_an_answer_differs_from_the_stored_answer(counted: tuple[SentimentModel, Counting]) -> None:
    with pytest.raises(SelfTestError, match="stored answers"):
        counted[0].check()


def test_check_passes_on_the_shipped_model(embedded: SentimentModel) -> None:
    embedded.check()


def test_pooling_weights_chunks_by_tokens(embedded: SentimentModel) -> None:
    chunks = [Chunk(np.zeros(5, dtype=np.int64), 3.0), Chunk(np.zeros(3, dtype=np.int64), 1.0)]
    rows = np.array([[1, 0, 0], [0, 0, 1]], dtype=np.float32)
    np.testing.assert_allclose(embedded.pool(chunks, rows), [0.75, 0, 0.25])


def test_pooling_refuses_a_wrong_number_of_rows(embedded: SentimentModel) -> None:
    with pytest.raises(ValueError, match="as many rows"):
        embedded.pool([Chunk(np.zeros(5, dtype=np.int64), 3.0)], np.zeros((2, 3), dtype=np.float32))


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, models.sentiment; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=250).returncode == 0


def test_loading_the_embedded_model_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, models.sentiment as s; s.load(dtype='float32'); "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=250).returncode == 0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED, tmp_path / "copy"))


def test_a_model_folder_loads_like_the_shipped_model(folder: Path, embedded: SentimentModel) -> None:
    assert load(str(folder), dtype="float32").version == embedded.version


def test_an_altered_adapter_is_refused(folder: Path) -> None:
    content = bytearray((folder / ADAPTER).read_bytes())
    content[-1] ^= 1
    (folder / ADAPTER).write_bytes(content)
    with pytest.raises(ModelUnavailableError, match="SHA-256"):
        load(str(folder))


def test_an_altered_base_is_refused(folder: Path) -> None:
    fields = json.loads((folder / manifest.FILE_NAME).read_text())
    fields["base"]["files"]["model/model.safetensors"] = "0" * 64
    (folder / manifest.FILE_NAME).write_text(json.dumps(fields))
    with pytest.raises(ModelUnavailableError, match="SHA-256"):
        load(str(folder))


def test_a_base_that_is_not_installed_is_named(folder: Path) -> None:
    fields = json.loads((folder / manifest.FILE_NAME).read_text())
    fields["base"]["package"] = "no_such_package"
    (folder / manifest.FILE_NAME).write_text(json.dumps(fields))
    with pytest.raises(ModelUnavailableError, match="no_such_package"):
        load(str(folder))


def test_the_shipped_files_are_small_enough() -> None:
    assert (SHIPPED / ADAPTER).stat().st_size < 2_000_000


@pytest.mark.needs("torch")
@pytest.mark.skipif(GPU, reason="a CUDA device is here")
def test_a_missing_device_is_named() -> None:
    with pytest.raises(ModelUnavailableError, match="CUDA"):
        load(device="cuda")


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(ModelUnavailableError, match="float32"):
        load(dtype="float8")


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="no CUDA device here")
def test_cuda_answers_equal_cpu_answers(embedded: SentimentModel) -> None:
    texts = ["Profit rose.", "Shares plunged " * 40, "The meeting is on Monday."]
    on_device = answers(load(device="cuda", dtype="float32"), texts)
    np.testing.assert_allclose(on_device, answers(embedded, texts), rtol=0, atol=1e-3)
