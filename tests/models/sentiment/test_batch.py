"""The layout of a batch: distinct sequences once, ordered by length, cut by a budget."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.sentiment.batch import distinct, parts

SEQUENCES = st.lists(st.lists(st.integers(0, 3), max_size=4), min_size=1, max_size=30)


@given(SEQUENCES)
def test_distinct_keeps_every_sequence_once_ordered_by_length(lists: list[list[int]]) -> None:
    given_ids = [np.array(values, dtype=np.int64) for values in lists]
    once, places = distinct(given_ids)
    assert [list(once[place]) for place in places] == lists
    assert len({tuple(ids) for ids in once}) == len(once)
    assert [len(ids) for ids in once] == sorted(len(ids) for ids in once)


@given(st.lists(st.integers(1, 128), max_size=60).map(sorted), st.integers(1, 512))
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
