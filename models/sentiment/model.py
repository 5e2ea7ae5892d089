"""The sentiment model as the inference service sees it: texts to chunks, chunks to probabilities, chunks back to texts.

Owns the protocol of models.model for sentiment and the self-test. Where a network comes from is source's; how it
computes is network's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from models.sentiment.batch import distinct
from models.sentiment.chunk import Chunk, Probabilities, pooled
from models.sentiment.network import Network
from models.sentiment.text import Windows

# How far an answer may lie from the same text's answer in another batch, and from the stored float32 answer.
BATCH_TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.02}
CHECK_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.05}


class SelfTestError(RuntimeError):
    """A model no longer gives the answers that it is known to give."""


@dataclass(frozen=True)
class Expected:
    """Texts of one chunk each and their probabilities, float32 [n, 3]."""

    texts: tuple[str, ...]
    probabilities: Probabilities


class SentimentModel:
    """A loaded model: `models.model.Model[Chunk, Probabilities]`, with prepare() before and pool() after run().

    One thread calls run() and check(); the rest is safe from any thread.
    """

    def __init__(self, name: str, version: str, windows: Windows, network: Network, expected: Expected) -> None:
        self._name = name
        self._version = version
        self._windows = windows
        self._network = network
        self._expected = expected

    @property
    def name(self) -> str:
        return self._name

    @property
    def version(self) -> str:
        return self._version

    @property
    def dtype(self) -> str:
        """The number format in use, as in `float32`."""
        return str(self._network.dtype).removeprefix("torch.")

    def prepare(self, texts: Sequence[str]) -> list[list[Chunk]]:
        """The chunks of each text, at least one. Pure Python and the tokeniser: belongs off the event loop."""
        return [
            [Chunk(ids, float(len(ids) - self._windows.special)) for ids in windows]
            for windows in self._windows.of(texts)
        ]

    def bucket(self, chunk: Chunk) -> int:
        """One bucket for all lengths: run() orders by length itself, so a mixed batch wastes nothing on padding."""
        return 0

    def units(self, chunk: Chunk) -> int:
        """The chunk's tokens, with the padding that it may get."""
        return self._network.size(len(chunk.ids))

    def run(self, chunks: Sequence[Chunk]) -> Probabilities:
        """Float32 [n, 3], in the order of LABELS. A chunk given more than once is computed once."""
        if not chunks:
            return np.empty((0, 3), dtype=np.float32)
        sequences, places = distinct([chunk.ids for chunk in chunks])
        return self._network.probabilities(sequences)[places]

    def pool(self, chunks: Sequence[Chunk], probabilities: Probabilities) -> Probabilities:
        """One text's probabilities, float32 [3], from those of its chunks: their mean, weighted by tokens."""
        return pooled(chunks, probabilities)

    def check(self) -> None:
        """Run the stored texts. Raises SelfTestError when an answer is not the stored one."""
        answers = self.run([chunk for chunks in self.prepare(self._expected.texts) for chunk in chunks])
        if answers.shape != self._expected.probabilities.shape:
            raise SelfTestError(f"{self.name} answered {len(answers)} of {len(self._expected.texts)} self-test texts")
        apart = float(np.abs(answers - self._expected.probabilities).max())
        tolerance = CHECK_TOLERANCE[self._network.dtype]
        if not apart <= tolerance:
            raise SelfTestError(
                f"{self.name} {self.version} is {apart:.4f} from its stored answers (at most {tolerance})"
            )
