"""The weights of the MiniLM encoder with mean pooling and a linear head, as numpy arrays by name.

Owns the architecture's sizes, the names of the weights, the reading of a published BERT checkpoint and the merge of an
adapter. encoder.py (torch) and graph.py (ONNX) compute with these weights. Linear weights are [out, in].
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float32]
Weights: TypeAlias = dict[str, Array]

PROJECTIONS = {"qkv": 3, "out": 1, "up": 1, "down": 1}
"""The linear maps of a layer, with the number of equal parts that have an adapter each."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a BERT encoder; the defaults are the sizes of all-MiniLM-L6-v2."""

    vocabulary: int = 30522
    positions: int = 512
    width: int = 384
    inner: int = 1536
    heads: int = 12
    layers: int = 6
    norm_eps: float = 1e-12


def tensors(content: bytes) -> Weights:
    """The float32 tensors of a safetensors file, as views of its bytes: the library's own reader copies every tensor.

    Raises ValueError for bytes of another form.
    """
    start = 8 + int.from_bytes(content[:8], "little")
    found = {}
    try:
        header = json.loads(content[8:start])
        for name, tensor in header.items():
            if tensor.get("dtype") == "F32":
                begin, end = tensor["data_offsets"]
                if not 0 <= begin <= end <= len(content) - start:
                    raise ValueError(f"the tensor {name!r} is not within the file")
                values = np.frombuffer(content, "<f4", (end - begin) // 4, start + begin)
                found[name] = values.reshape(tensor["shape"])
    except (AttributeError, KeyError, TypeError) as other:
        raise ValueError("the bytes are no safetensors file") from other
    return found


def published(checkpoint: Mapping[str, Array], shape: Shape, labels: int) -> Weights:
    """The weights of an encoder with a zero head, from the tensors of a published BERT checkpoint.

    The segment embedding of single texts is added to the position embeddings. Raises KeyError on another layout.
    """
    segment = checkpoint["embeddings.token_type_embeddings.weight"][0]
    found = {
        "words.weight": checkpoint["embeddings.word_embeddings.weight"],
        "places.weight": checkpoint["embeddings.position_embeddings.weight"] + segment,
        **_renamed(checkpoint, "embeddings.LayerNorm", "embedding_norm"),
    }
    for index in range(shape.layers):
        theirs, ours = f"encoder.layer.{index}", f"layers.{index}"
        for part in ("weight", "bias"):
            projections = [checkpoint[f"{theirs}.attention.self.{name}.{part}"] for name in ("query", "key", "value")]
            found[f"{ours}.qkv.{part}"] = np.concatenate(projections)
        found |= _renamed(checkpoint, f"{theirs}.attention.output.dense", f"{ours}.out")
        found |= _renamed(checkpoint, f"{theirs}.attention.output.LayerNorm", f"{ours}.attention_norm")
        found |= _renamed(checkpoint, f"{theirs}.intermediate.dense", f"{ours}.up")
        found |= _renamed(checkpoint, f"{theirs}.output.dense", f"{ours}.down")
        found |= _renamed(checkpoint, f"{theirs}.output.LayerNorm", f"{ours}.output_norm")
    head = {"head.weight": np.zeros((labels, shape.width), np.float32), "head.bias": np.zeros(labels, np.float32)}
    return found | head


def _renamed(checkpoint: Mapping[str, Array], theirs: str, ours: str) -> Weights:
    return {f"{ours}.{part}": checkpoint[f"{theirs}.{part}"] for part in ("weight", "bias")}


def merged(weights: Mapping[str, Array], adapter: Mapping[str, NDArray[np.floating]], scale: float) -> Weights:
    """The weights with the stored low-rank adapters of adapter.py added, and the adapter's head.

    Raises KeyError when a tensor of the adapter is missing, and ValueError when a shape differs.
    """
    found = dict(weights)
    layers = {name.split(".")[1] for name in weights if name.startswith("layers.")}
    for stem in (f"layers.{layer}.{projection}" for layer in sorted(layers) for projection in PROJECTIONS):
        plain, change = weights[f"{stem}.weight"], _delta(adapter[f"{stem}.a"], adapter[f"{stem}.b"], scale)
        found[f"{stem}.weight"] = np.add(_of_shape(change, plain.shape), plain, out=change)
    for part in ("head.weight", "head.bias"):
        found[part] = _of_shape(adapter[part].astype(np.float32), weights[part].shape)
    return found


def _of_shape(array: Array, shape: tuple[int, ...]) -> Array:
    if array.shape != shape:
        raise ValueError(f"a tensor has the shape {list(array.shape)}, expected {list(shape)}")
    return array


def _delta(a: NDArray[np.floating], b: NDArray[np.floating], scale: float) -> Array:
    """Float32 [out, in] from a [parts * rank, in] and b [parts, out / parts, rank]."""
    parts, _, rank = b.shape
    scaled: Array = b.astype(np.float32)
    scaled *= scale
    product: Array = scaled @ a.astype(np.float32).reshape(parts, rank, -1)
    return product.reshape(-1, a.shape[1])


def cooled(weights: Mapping[str, Array], temperature: float) -> Weights:
    """The weights with the head divided by the temperature, so that the softmax of the logits is calibrated."""
    head = {name: weights[name] / np.float32(temperature) for name in ("head.weight", "head.bias")}
    return {**weights, **head}
