"""The interface of networks from token sequences to probabilities.

onnx_network.py computes on the CPU, torch_network.py on CUDA and in bfloat16, pretrained.py runs the classifiers of
transformers.
"""

from collections.abc import Sequence
from typing import Protocol

from models.sentiment.chunk import Probabilities
from models.sentiment.text import Ids


class Network(Protocol):
    """A loaded network on a device. Called by one thread. `dtype` is "float32" or "bfloat16"."""

    dtype: str

    def size(self, length: int) -> int:
        """The cost of a sequence of this length, in tokens with padding."""
        ...

    def probabilities(self, sequences: Sequence[Ids]) -> Probabilities:
        """Float32 [n, 3], negative, neutral, positive, for n sequences ordered by length."""
        ...
