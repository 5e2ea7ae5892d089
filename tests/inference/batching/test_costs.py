"""The cost line finds what batches really cost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.batching.costs import MOST_LINES, Costs, Line


@given(st.floats(0.0001, 0.1), st.floats(1e-7, 1e-3), st.lists(st.integers(1, 10_000), min_size=20, max_size=60))
def test_it_predicts_a_straight_cost_inside_the_seen_range(fixed, per_unit, sizes):
    line = Line()
    for size in (min(sizes), max(sizes), *sizes):
        line.learn(size, fixed + per_unit * size)
    for size in (min(sizes), max(sizes)):
        assert line.seconds(size) == pytest.approx(fixed + per_unit * size, rel=0.1)


@given(st.lists(st.tuples(st.integers(1, 10_000), st.floats(0, 10)), min_size=1, max_size=100))
def test_it_never_expects_less_than_nothing(batches):
    line = Line()
    for units, seconds in batches:
        line.learn(units, seconds)
        assert line.fixed >= 0
        assert line.per_unit >= 0


def test_it_forgets_a_machine_that_has_become_slower():
    line = Line()
    for round_ in range(400):
        size = 1 + round_ % 50
        line.learn(size, (1e-3 if round_ < 200 else 4e-3) * size)
    assert line.seconds(50) == pytest.approx(0.2, rel=0.1)


def test_nothing_known_costs_nothing():
    assert Line().seconds(1000) == 0


def test_what_callers_choose_does_not_make_it_grow():
    class Model:
        """Something that a cost can be kept of."""

    model, costs = Model(), Costs()
    for bucket in range(3 * MOST_LINES):
        costs.line((model, bucket))
    assert len(costs._lines[model]) == MOST_LINES
