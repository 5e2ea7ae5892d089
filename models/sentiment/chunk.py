"""Chunks: pieces of a text that fit a model's window, and pooling of the chunks' probabilities to one text."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.sentiment.text import Ids

Probabilities = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Token ids, int64 [n] with special tokens, and the chunk's weight: the number of ids without special tokens."""

    ids: Ids
    weight: float


def pooled(chunks: Sequence[Chunk], probabilities: npt.ArrayLike) -> Probabilities:
    """The probabilities of a text, float32 [3], from the probabilities of the chunks [k, 3].

    The mean weighted by tokens: the expected answer for a random token of the text. With a single chunk, the chunk's
    answer is returned unchanged. Raises ValueError when the numbers of chunks and rows differ.
    """
    rows = np.asarray(probabilities, dtype=np.float32)
    if rows.ndim != 2 or len(rows) != len(chunks) or not chunks:
        raise ValueError(f"{len(chunks)} chunks need as many rows of probabilities, got shape {rows.shape}")
    if len(chunks) == 1:
        return np.asarray(rows[0])
    weights = np.array([max(chunk.weight, 1.0) for chunk in chunks], dtype=np.float32)
    return np.asarray(weights @ rows / weights.sum(), dtype=np.float32)
