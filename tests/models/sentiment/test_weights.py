"""Weights: a safetensors file read in place, the merge of an adapter."""

import json

import numpy as np
import pytest
import safetensors.numpy

from models.sentiment.minilm import BASE, WEIGHTS
from models.sentiment.weights import Array, Weights, merged, tensors

EXAMPLE = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "scalar": np.array(3.5, np.float32),
    "empty": np.zeros((0, 4), np.float32),
    "ids": np.arange(5),
}


def assert_equal(found: Weights, expected: Weights) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


def changed(content: bytes, field: str, value: object) -> bytes:
    """The file with another value of a field of `a.weight`."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["a.weight"][field] = value
    written = json.dumps(header).encode()
    return len(written).to_bytes(8, "little") + written + content[8 + size :]


def test_the_tensors_are_those_of_the_library_without_other_types() -> None:
    content = safetensors.numpy.save(EXAMPLE, metadata={"format": "np"})
    expected = {name: array for name, array in EXAMPLE.items() if name != "ids"}
    assert_equal(tensors(content), expected)


def test_the_published_weights_are_those_of_the_library() -> None:
    content = BASE.read(WEIGHTS)
    expected = {name: array for name, array in safetensors.numpy.load(content).items() if array.dtype == np.float32}
    assert len(expected) > 100
    assert_equal(tensors(content), expected)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x10" + 7 * b"\x00",
        b"not a model" * 100,
        (2).to_bytes(8, "little") + b"[]",
        *(
            changed(safetensors.numpy.save(EXAMPLE), field, value)
            for field, value in [
                ("data_offsets", [0, 1 << 20]),
                ("data_offsets", [24, 0]),
                ("data_offsets", [-24, 0]),
                ("data_offsets", 5),
                ("shape", [7]),
                ("shape", "wide"),
            ]
        ),
    ],
)
def test_bytes_of_another_form_are_refused(content: bytes) -> None:
    with pytest.raises(ValueError):
        tensors(content)


def test_an_adapter_is_added_as_the_product_of_its_parts() -> None:
    dice = np.random.default_rng(0)

    def some(*shape: int) -> Array:
        return dice.standard_normal(shape).astype(np.float32)

    widths = {"qkv": (12, 4, 3), "out": (4, 4, 1), "up": (8, 4, 1), "down": (4, 8, 1)}
    weights = {f"layers.0.{name}.weight": some(out, inner) for name, (out, inner, _) in widths.items()}
    weights |= {"head.weight": some(3, 4), "head.bias": some(3)}
    adapter = {"head.weight": some(3, 4).astype(np.float16), "head.bias": some(3).astype(np.float16)}
    for name, (out, inner, count) in widths.items():
        adapter[f"layers.0.{name}.a"] = some(count * 2, inner).astype(np.float16)
        adapter[f"layers.0.{name}.b"] = some(count, out // count, 2).astype(np.float16)
    before = {name: array.copy() for name, array in weights.items()}
    found = merged(weights, adapter, 2.0)
    for name, (_, _, count) in widths.items():
        a, b = (adapter[f"layers.0.{name}.{part}"].astype(np.float64) for part in "ab")
        change = np.concatenate([2.0 * b[part] @ a[2 * part : 2 * part + 2] for part in range(count)])
        stem = f"layers.0.{name}.weight"
        np.testing.assert_allclose(found[stem], before[stem] + change, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(found["head.bias"], adapter["head.bias"].astype(np.float32))
    assert_equal(weights, before)
    with pytest.raises(ValueError, match="expected"):
        merged(weights, {**adapter, "head.weight": some(4, 4)}, 2.0)
