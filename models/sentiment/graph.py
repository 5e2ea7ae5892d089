"""The layers of the MiniLM classifier as an ONNX graph over packed tokens.

Owns the formulas; the same as encoder.py computes in torch, from the embeddings' norm to the softmax. The linear maps
run over the tokens of all sequences laid end to end, without padding. Attention and pooling, a hundredth of the work,
run over a rectangle of sequences, padded to the longest.
"""

from collections.abc import Mapping

import numpy as np

from models.onnx import MICROSOFT, Graph
from models.sentiment.weights import Array, Shape

EMBEDDINGS = "embeddings"
"""Float32 [tokens, width]: word plus position embeddings."""
ROWS = "rows"
"""Int64 [sequences, length]: the row in tokens of each place of the rectangle, 0 for padding."""
PLACES = "places"
"""Int64 [tokens]: the place in the rectangle, row by row, of each token."""
MASK = "mask"
"""Float32 [sequences, 1, 1, length]: 0 for a token, a large negative number for padding."""
SHARES = "shares"
"""Float32 [sequences, 1, length]: the weight of each place in the mean, 1 / tokens or 0."""
PROBABILITIES = "probabilities"
"""Float32 [sequences, labels]."""


def classifier(weights: Mapping[str, Array], shape: Shape) -> Graph:
    """The graph of the classifier from EMBEDDINGS to PROBABILITIES."""
    graph = Graph()
    graph.input(EMBEDDINGS, np.float32, ["tokens", shape.width])
    graph.input(ROWS, np.int64, ["sequences", "length"])
    graph.input(PLACES, np.int64, ["tokens"])
    graph.input(MASK, np.float32, ["sequences", 1, 1, "length"])
    graph.input(SHARES, np.float32, ["sequences", 1, "length"])
    builder = _Builder(graph, weights, shape)
    hidden = graph.add(
        "LayerNormalization", [EMBEDDINGS, *builder.norm("embedding_norm")], "hidden", axis=-1, epsilon=shape.norm_eps
    )
    for index in range(shape.layers):
        hidden = builder.layer(f"layers.{index}", hidden)
    rectangle = graph.add("Gather", [hidden, ROWS], "rectangle", axis=0)
    mean = graph.add("Reshape", [graph.add("MatMul", [SHARES, rectangle], "mean"), builder.flat], "means")
    head = [graph.constant("head.weight", weights["head.weight"].T), graph.constant("head.bias", weights["head.bias"])]
    graph.add("Softmax", [graph.add("Gemm", [mean, *head], "logits")], PROBABILITIES, axis=-1)
    graph.output(PROBABILITIES, np.float32, ["sequences", len(weights["head.bias"])])
    return graph


class _Builder:
    """Adds the layers to the graph. `flat` is the shape [-1, width]."""

    def __init__(self, graph: Graph, weights: Mapping[str, Array], shape: Shape) -> None:
        self._graph = graph
        self._weights = weights
        self._shape = shape
        size = shape.width // shape.heads
        self.flat = graph.constant("flat", np.array([-1, shape.width]))
        self._heads = graph.constant("heads", np.array([0, 0, 3, shape.heads, size]))
        self._first = graph.constant("first", np.array([0]))
        self._scale = size**-0.5

    def norm(self, name: str) -> list[str]:
        """The two parameters of a layer norm."""
        return [self._graph.constant(f"{name}.{part}", self._weights[f"{name}.{part}"]) for part in ("weight", "bias")]

    def layer(self, name: str, hidden: str) -> str:
        """Self-attention and feed-forward, each followed by residual and norm; [tokens, width] in and out."""
        hidden = self._residual(f"{name}.attention_norm", self._attention(name, hidden), hidden)
        up = self._graph.add("FusedMatMul", [hidden, self._matrix(f"{name}.up")], f"{name}.wide", MICROSOFT, transB=1)
        gelu = self._graph.add("BiasGelu", [up, self._bias(f"{name}.up")], f"{name}.gelu", MICROSOFT)
        return self._residual(f"{name}.output_norm", self._linear(f"{name}.down", gelu), hidden)

    def _attention(self, name: str, hidden: str) -> str:
        graph = self._graph
        packed = self._linear(f"{name}.qkv", hidden)
        rectangle = graph.add("Gather", [packed, ROWS], f"{name}.rectangle", axis=0)
        heads = graph.add("Reshape", [rectangle, self._heads], f"{name}.heads")
        # [3, sequences, heads, length, size]
        ordered = graph.add("Transpose", [heads], f"{name}.ordered", perm=[2, 0, 3, 1, 4])
        parts = graph.split("Split", [ordered], [f"{name}.{part}1" for part in "qkv"], axis=0, num_outputs=3)
        query, key, value = (graph.add("Squeeze", [part, self._first], part.removesuffix("1")) for part in parts)
        scores = graph.add("FusedMatMul", [query, key], f"{name}.scores", MICROSOFT, transB=1, alpha=self._scale)
        masked = graph.add("Add", [scores, MASK], f"{name}.masked")
        shares = graph.add("Softmax", [masked], f"{name}.shares", axis=-1)
        mixed = graph.add("MatMul", [shares, value], f"{name}.mixed")
        joined = graph.add("Transpose", [mixed], f"{name}.joined", perm=[0, 2, 1, 3])
        tokens = graph.add("Gather", [graph.add("Reshape", [joined, self.flat], f"{name}.flat"), PLACES], f"{name}.at")
        return self._linear(f"{name}.out", tokens)

    def _residual(self, norm: str, change: str, hidden: str) -> str:
        total = self._graph.add("Add", [change, hidden], f"{norm}.in")
        return self._graph.add(
            "LayerNormalization", [total, *self.norm(norm)], f"{norm}.out", axis=-1, epsilon=self._shape.norm_eps
        )

    def _linear(self, name: str, values: str) -> str:
        return self._graph.add("Gemm", [values, self._matrix(name), self._bias(name)], f"{name}.values", transB=1)

    def _matrix(self, name: str) -> str:
        return self._graph.weight(f"{name}.weight", self._weights[f"{name}.weight"])

    def _bias(self, name: str) -> str:
        return self._graph.constant(f"{name}.bias", self._weights[f"{name}.bias"])
