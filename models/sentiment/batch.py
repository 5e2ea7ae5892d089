"""The layout of a batch of chunks: duplicates removed, ordered by length, in parts of bounded size, even for threads.

Pure functions of ids and lengths, without torch.
"""

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models.sentiment.text import Ids

Indices = npt.NDArray[np.int64]


def distinct(sequences: Sequence[Ids]) -> tuple[list[Ids], Indices]:
    """The distinct sequences ordered by length, and for each given sequence the index into the distinct sequences."""
    places: dict[bytes, int] = {}
    first: list[Ids] = []
    given = []
    for sequence in sequences:
        place = places.setdefault(sequence.tobytes(), len(first))
        if place == len(first):
            first.append(sequence)
        given.append(place)
    order = sorted(range(len(first)), key=lambda index: len(first[index]))
    rank = np.empty(len(first), dtype=np.int64)
    rank[order] = np.arange(len(first))
    return [first[index] for index in order], rank[given]


def parts(lengths: Sequence[int], budget: int) -> list[slice]:
    """Cut ordered lengths into slices with a padded size (longest times count) of at most the budget.

    A single length above the budget forms a slice alone.
    """
    slices, start = [], 0
    for end, length in enumerate(lengths):
        if end > start and length * (end + 1 - start) > budget:
            slices.append(slice(start, end))
            start = end
    return [*slices, slice(start, len(lengths))] if lengths else []


def shares(lengths: Sequence[int], budget: int, threads: int) -> list[slice]:
    """Cut ordered lengths as parts() does, into so many parts that every thread gets as many, if there are enough.

    The largest part is as small as that number of parts allows.
    """
    rounds = -(-len(parts(lengths, budget)) // threads)
    least = bisect_left(range(budget), True, key=lambda size: len(parts(lengths, size)) <= rounds * threads)
    return parts(lengths, least)
