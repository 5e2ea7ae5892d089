"""The classifier by onnxruntime compared with the classifier in torch, on the same weights."""

import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.manifest import Manifest
from models.sentiment import minilm
from models.sentiment.network import Network
from models.sentiment.onnx_network import BUDGET, OnnxNetwork
from models.sentiment.source import SHIPPED
from models.sentiment.weights import Array, Shape

SMALL = Shape(vocabulary=50, positions=32, width=24, inner=48, heads=3, layers=2)


@pytest.fixture(scope="module")
def weights() -> dict[str, Array]:
    """Random weights of the small shape, large enough to let the answers differ."""
    dice, wide = np.random.default_rng(0), SMALL.width
    sizes = {"words.weight": (SMALL.vocabulary, wide), "places.weight": (SMALL.positions, wide)}
    sizes |= {"embedding_norm.weight": (wide,), "embedding_norm.bias": (wide,)}
    linear = {"qkv": (3 * wide, wide), "out": (wide, wide), "up": (SMALL.inner, wide), "down": (wide, SMALL.inner)}
    for layer in range(SMALL.layers):
        for name, (out, inner) in linear.items():
            sizes |= {f"layers.{layer}.{name}.weight": (out, inner), f"layers.{layer}.{name}.bias": (out,)}
        for norm in ("attention_norm", "output_norm"):
            sizes |= {f"layers.{layer}.{norm}.weight": (wide,), f"layers.{layer}.{norm}.bias": (wide,)}
    sizes |= {"head.weight": (3, wide), "head.bias": (3,)}
    return {name: dice.normal(0, 0.3, size).astype(np.float32) for name, size in sizes.items()}


@pytest.fixture(scope="module")
def small(weights: Mapping[str, Array]) -> OnnxNetwork:
    return OnnxNetwork(weights, SMALL)


@pytest.fixture(scope="module")
def shared(weights: Mapping[str, Array]) -> OnnxNetwork:
    return OnnxNetwork(weights, SMALL, threads=3)


def in_torch(weights: Mapping[str, Array], shape: Shape) -> Network:
    import torch

    from models.sentiment.encoder import Classifier
    from models.sentiment.torch_network import PackedNetwork

    return PackedNetwork(Classifier.of(weights, shape).eval(), torch.device("cpu"), torch.float32)


def sequences(lengths: list[int], vocabulary: int) -> list[np.ndarray[Any, Any]]:
    dice = np.random.default_rng(sum(lengths))
    return [dice.integers(1, vocabulary, length) for length in sorted(lengths)]


@pytest.mark.needs("torch")
@settings(max_examples=40)
@given(lengths=st.lists(st.integers(1, 32), min_size=1, max_size=40))
def test_answers_equal_those_of_torch(small: OnnxNetwork, weights: Mapping[str, Array], lengths: list[int]) -> None:
    asked = sequences(lengths, SMALL.vocabulary)
    theirs = in_torch(weights, SMALL).probabilities(asked)
    np.testing.assert_allclose(small.probabilities(asked), theirs, rtol=0, atol=1e-6)


@settings(max_examples=40)
@given(lengths=st.lists(st.integers(1, 32), min_size=1, max_size=40))
def test_an_answer_is_the_same_alone_and_in_any_batch(small: OnnxNetwork, lengths: list[int]) -> None:
    asked = sequences(lengths, SMALL.vocabulary)
    alone = np.concatenate([small.probabilities([each]) for each in asked])
    np.testing.assert_allclose(small.probabilities(asked), alone, rtol=0, atol=1e-6)


@pytest.mark.needs("torch")
def test_the_shipped_weights_answer_as_in_torch_at_every_length() -> None:
    weights = minilm.embedded(SHIPPED, Manifest.of(SHIPPED))
    asked = sequences([*range(1, 129, 9), *[24] * 16, 128, 128, 128], 30_000)
    assert sum(map(len, asked)) > 3 * BUDGET
    ours = OnnxNetwork(weights, Shape()).probabilities(asked)
    np.testing.assert_allclose(ours, in_torch(weights, Shape()).probabilities(asked), rtol=0, atol=1e-5)


@settings(max_examples=40)
@given(lengths=st.lists(st.integers(1, 32), min_size=1, max_size=60))
def test_threads_share_a_batch_without_changing_an_answer(
    small: OnnxNetwork, shared: OnnxNetwork, lengths: list[int]
) -> None:
    asked = sequences(lengths, SMALL.vocabulary)
    np.testing.assert_allclose(shared.probabilities(asked), small.probabilities(asked), rtol=0, atol=1e-6)


@pytest.mark.parametrize("place", [0, 59])
def test_a_failure_on_any_thread_reaches_the_caller(shared: OnnxNetwork, place: int) -> None:
    asked = sequences([32] * 60, SMALL.vocabulary)
    asked[place] = np.full(32, SMALL.vocabulary)
    with pytest.raises(IndexError):
        shared.probabilities(asked)


@pytest.mark.skipif(sys.platform != "linux", reason="threads have a priority of their own on Linux")
def test_helpers_give_way_to_other_threads(shared: OnnxNetwork) -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    found = shared._helpers.submit(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())).result()
    assert found == max(10, before)
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before


def test_the_given_weights_are_free_afterwards(weights: Mapping[str, Array], small: OnnxNetwork) -> None:
    copies = {name: array.copy() for name, array in weights.items()}
    network = OnnxNetwork(copies, SMALL)
    for name in copies.keys() - {"words.weight", "places.weight"}:
        copies[name].fill(np.nan)
    asked = sequences([3, 9, 32], SMALL.vocabulary)
    np.testing.assert_array_equal(network.probabilities(asked), small.probabilities(asked))


def test_words_without_a_place_for_a_file_stay_in_memory(
    weights: Mapping[str, Array], small: OnnxNetwork, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    network = OnnxNetwork(weights, SMALL)
    assert not isinstance(network._words, np.memmap) and isinstance(small._words, np.memmap)
    asked = sequences([3, 9, 32], SMALL.vocabulary)
    np.testing.assert_array_equal(network.probabilities(asked), small.probabilities(asked))


@pytest.mark.skipif(sys.platform != "linux", reason="threads have a priority of their own on Linux")
def test_helpers_serve_where_a_sandbox_refuses_a_priority(
    weights: Mapping[str, Array], small: OnnxNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", refuse)
    found = OnnxNetwork(weights, SMALL, threads=3)
    assert found._helpers.submit(threading.get_native_id).result() != threading.get_native_id()
    batch = sequences([4, 9, 30] * 3, SMALL.vocabulary)
    np.testing.assert_allclose(found.probabilities(batch), small.probabilities(batch), rtol=0, atol=1e-6)
