"""The estimates follow the measured batches, and never expect an unmeasured batch to be free."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.batching.costs import MOST_LINES, UNMEASURED_RATE, Costs, Line
from inference.batching.job import BatchBounds


@given(st.floats(0.0001, 0.1), st.floats(1e-7, 1e-3), st.lists(st.integers(1, 10_000), min_size=20, max_size=60))
def test_a_linear_cost_is_predicted_inside_the_measured_range(fixed, per_unit, sizes):
    line = Line()
    for size in (min(sizes), max(sizes), *sizes):
        line.learn(size, fixed + per_unit * size)
    for size in (min(sizes), max(sizes)):
        assert line.seconds(size) == pytest.approx(fixed + per_unit * size, rel=0.1)


@given(st.lists(st.tuples(st.integers(1, 10_000), st.floats(0, 10)), min_size=1, max_size=100))
def test_no_estimate_is_negative(batches):
    line = Line()
    for units, seconds in batches:
        line.learn(units, seconds)
        assert line.fixed >= 0
        assert line.per_unit >= 0


def test_the_line_follows_a_machine_that_becomes_slower():
    line = Line()
    for round_ in range(400):
        size = 1 + round_ % 50
        line.learn(size, (1e-3 if round_ < 200 else 4e-3) * size)
    assert line.seconds(50) == pytest.approx(0.2, rel=0.1)


def test_an_unmeasured_bucket_costs_its_units_at_the_models_worst_rate():
    model, costs = Model(), Costs()
    assert costs.share((model, "new"), 1000, BatchBounds(1 << 20, 512)) == 1000 * UNMEASURED_RATE
    costs.learn((model, "a"), 100, 0.001)
    costs.learn((model, "b"), 100, 0.0015)
    assert costs.share((model, "new"), 1000, BatchBounds(1 << 20, 512)) == pytest.approx(1000 * 0.0015 / 100, rel=0.01)


def test_one_pause_of_the_machine_at_most_doubles_the_worst_rate_which_falls_back_to_the_warm_ups():
    model, costs = Model(), Costs()
    costs.learn_warm_up((model, "a"), 100, 0.001)
    costs.learn((model, "a"), 100, 5.0)
    assert costs.worst_rate(model) == pytest.approx(2e-5)
    for _ in range(1000):
        costs.learn((model, "a"), 100, 0.0001)
    assert costs.worst_rate(model) == pytest.approx(1e-5)


def test_a_slice_is_bounded_by_the_recent_rate_of_its_bucket_and_by_the_worst_rate_of_the_model():
    model, costs = Model(), Costs()
    costs.learn_warm_up((model, "a"), 1000, 0.01)  # 10 us a unit at worst
    costs.learn((model, "b"), 10_000, 0.001)
    assert costs.bounded_units((model, "b"), usual=0.1, worst=0.25) == pytest.approx(25_000)
    costs.learn((model, "b"), 10_000, 0.1)
    assert costs.bounded_units((model, "b"), usual=0.1, worst=0.25) == pytest.approx(10_000, rel=0.1)


class Model:
    """A key of the costs."""


def test_buckets_chosen_by_callers_do_not_grow_the_costs_without_bound():
    model, costs = Model(), Costs()
    for bucket in range(3 * MOST_LINES):
        costs.line((model, bucket))
    assert len(costs._of(model).lines) == MOST_LINES


def test_an_item_alone_costs_the_whole_start_and_the_worst_recent_kind():
    model, costs = Model(), Costs()
    key = model, "bucket"
    assert costs.alone(key, 100) == 100 * costs.worst_rate(model)
    for units in (100, 1000) * 20:
        costs.learn(key, units, 0.002 + 1e-6 * units)
    assert costs.alone(key, 1000) == pytest.approx(0.003, rel=0.05)
    costs.learn(key, 1000, 0.1)
    assert costs.alone(key, 1000) > 0.09
