"""The layout of a batch: distinct sequences once, ordered by length, cut by a budget."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.sentiment.batch import distinct, parts, shares

SEQUENCES = st.lists(st.lists(st.integers(0, 3), max_size=4), min_size=1, max_size=30)


@given(SEQUENCES)
def test_distinct_keeps_every_sequence_once_ordered_by_length(lists: list[list[int]]) -> None:
    given_ids = [np.array(values, dtype=np.int64) for values in lists]
    once, places = distinct(given_ids)
    assert [list(once[place]) for place in places] == lists
    assert len({tuple(ids) for ids in once}) == len(once)
    assert [len(ids) for ids in once] == sorted(len(ids) for ids in once)


LENGTHS = st.lists(st.integers(1, 128), max_size=60).map(sorted)


@given(LENGTHS, st.integers(1, 512))
def test_parts_cover_all_in_order_and_keep_the_budget(lengths: list[int], budget: int) -> None:
    slices = parts(lengths, budget)
    assert [index for part in slices for index in range(part.start, part.stop)] == list(range(len(lengths)))
    for part in slices:
        padded = lengths[part.stop - 1] * (part.stop - part.start)
        assert padded <= budget or part.stop - part.start == 1


@given(st.lists(st.integers(1, 128), min_size=2, max_size=60).map(sorted), st.integers(1, 512))
def test_every_part_is_full(lengths: list[int], budget: int) -> None:
    for part in parts(lengths, budget)[:-1]:
        assert lengths[part.stop] * (part.stop + 1 - part.start) > budget


@given(LENGTHS, st.integers(1, 512), st.integers(1, 4))
def test_shares_cover_all_in_order_and_keep_the_budget(lengths: list[int], budget: int, threads: int) -> None:
    slices = shares(lengths, budget, threads)
    assert [index for part in slices for index in range(part.start, part.stop)] == list(range(len(lengths)))
    for part in slices:
        padded = lengths[part.stop - 1] * (part.stop - part.start)
        assert padded <= budget or part.stop - part.start == 1
    rounds = -(-len(parts(lengths, budget)) // threads)
    assert len(slices) <= rounds * threads


@pytest.mark.parametrize(
    ("lengths", "threads", "sizes"),
    [
        ([20] * 8, 1, [8]),
        ([20] * 8, 2, [4, 4]),
        ([20] * 8, 3, [3, 3, 2]),
        ([20] * 16, 2, [8, 8]),
        ([20] * 26, 2, [7, 7, 7, 5]),
        ([10, 10, 10, 10, 40], 2, [4, 1]),
        ([20], 2, [1]),
        ([], 2, []),
    ],
)
def test_threads_get_even_shares(lengths: list[int], threads: int, sizes: list[int]) -> None:
    assert [part.stop - part.start for part in shares(lengths, 240, threads)] == sizes
