"""The sentiment model for the inference service: texts to chunks, chunks to probabilities, pooling to texts.

Implements models.model.Model and owns the self-test. Loading belongs to source.py, computation to network.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.sentiment import text_warnings
from models.sentiment.batch import distinct
from models.sentiment.chunk import Chunk, Probabilities, pooled
from models.sentiment.company import clauses, masked
from models.sentiment.network import Network
from models.sentiment.text import Windows

# Largest difference to the stored float32 answer.
CHECK_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.05}


class SelfTestError(RuntimeError):
    """A model's answers differ from the stored answers."""


@dataclass(frozen=True)
class Expected:
    """Texts of one chunk each, with probabilities, float32 [n, 3]."""

    texts: tuple[str, ...]
    probabilities: Probabilities


class SentimentModel:
    """A loaded model: `models.model.Model[Chunk, Probabilities]`, with prepare() before and pool() after run().

    One thread calls run() and check(); the other methods are safe from any thread.
    """

    fresh_answers = True

    def __init__(
        self,
        name: str,
        version: str,
        windows: Windows,
        network: Network,
        expected: Expected,
        *,
        english: bool = False,
        masks: bool = False,
    ) -> None:
        """``english``: the model is known to be for English alone, so that other texts get a warning.

        ``masks``: the model was trained to judge the company behind the mask token.
        """
        self._name = name
        self._version = version
        self._windows = windows
        self._network = network
        self._expected = expected
        self._english = english
        self._masks = masks

    @property
    def name(self) -> str:
        return self._name

    @property
    def version(self) -> str:
        return self._version

    @property
    def dtype(self) -> str:
        """The number format in use, as in `float32`."""
        return self._network.dtype

    def towards(self, text: str, company: str) -> str:
        """The text in the form that asks for the sentiment towards the company. Safe from any thread."""
        return masked(text, company) if self._masks else clauses(text, company)

    def prepare(self, texts: Sequence[str]) -> list[list[Chunk]]:
        """The chunks of each text, at least one. CPU work in Python and the tokeniser: run outside the event loop."""
        return [
            [Chunk(ids, float(len(ids) - self._windows.special)) for ids in windows]
            for windows in self._windows.of(texts)
        ]

    def warnings(self, text: str, chunks: Sequence[Chunk]) -> text_warnings.Warnings:
        """Doubts about a text with these chunks; none for an English headline. Safe from any thread."""
        tokens = sum(int(chunk.weight) for chunk in chunks)
        return text_warnings.examine(text, tokens, len(chunks), english=self._english)

    def bucket(self, chunk: Chunk) -> int:
        """One bucket for all lengths, because run() orders by length, so a mixed batch needs no extra padding."""
        return 0

    def units(self, chunk: Chunk) -> int:
        """The chunk's tokens, with the expected padding."""
        return self._network.size(len(chunk.ids))

    def run(self, chunks: Sequence[Chunk]) -> Probabilities:
        """Probabilities, float32 [n, 3], in the order of LABELS. Equal chunks are computed once."""
        if not chunks:
            return np.empty((0, 3), dtype=np.float32)
        sequences, places = distinct([chunk.ids for chunk in chunks])
        return self._network.probabilities(sequences)[places]

    def pool(self, chunks: Sequence[Chunk], probabilities: Probabilities) -> Probabilities:
        """The probabilities of one text, float32 [3]: the mean over the chunks, weighted by tokens."""
        return pooled(chunks, probabilities)

    def check(self) -> None:
        """Run the stored texts. Raises SelfTestError when an answer differs from the stored answer."""
        answers = self.run([chunk for chunks in self.prepare(self._expected.texts) for chunk in chunks])
        if answers.shape != self._expected.probabilities.shape:
            raise SelfTestError(f"{self.name} answered {len(answers)} of {len(self._expected.texts)} self-test texts")
        apart = float(np.abs(answers - self._expected.probabilities).max())
        tolerance = CHECK_TOLERANCE[self._network.dtype]
        if not apart <= tolerance:
            raise SelfTestError(
                f"{self.name} {self.version} is {apart:.4f} from its stored answers (at most {tolerance})"
            )
