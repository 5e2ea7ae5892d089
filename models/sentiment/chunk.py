"""A piece of a text that a model can see at once, and how the pieces of one text are put together again."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.sentiment.text import Ids

Probabilities = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Token ids, int64 [n] with special tokens, and the chunk's weight in its text: how many tokens are the text's."""

    ids: Ids
    weight: float


def pooled(chunks: Sequence[Chunk], probabilities: npt.ArrayLike) -> Probabilities:
    """The probabilities of a whole text, float32 [3], from those of its chunks [k, 3].

    The mean weighted by tokens: the answer expected for a token drawn at random from the text. A text of one chunk
    keeps that chunk's answer unchanged. Raises ValueError when the numbers of chunks and rows differ.
    """
    rows = np.asarray(probabilities, dtype=np.float32)
    if rows.ndim != 2 or len(rows) != len(chunks) or not chunks:
        raise ValueError(f"{len(chunks)} chunks need as many rows of probabilities, got shape {rows.shape}")
    if len(chunks) == 1:
        return np.asarray(rows[0])
    weights = np.array([max(chunk.weight, 1.0) for chunk in chunks], dtype=np.float32)
    return np.asarray(weights @ rows / weights.sum(), dtype=np.float32)
