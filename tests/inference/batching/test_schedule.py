"""The next batch is a pure function of the waiting entries, the time and the costs."""

import asyncio
import math
from bisect import insort

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.batching.costs import Costs
from inference.batching.job import DUE, BatchBounds, Entry, Job, Key
from inference.batching.schedule import delay, schedule, urgency
from market_inference.contract.deadline import NEVER

BUDGET = BatchBounds(units=100, items=8)
NOW = 1000.0


class Model:
    """Something that a cost can be kept of."""


MODEL = Model()


def entry(size: int = 1, bucket: str = "k", deadline: float = NEVER, due: float = NOW, done: bool = False) -> Entry:
    reply: asyncio.Future = asyncio.Future(loop=_LOOP)
    if done:
        reply.cancel()
    return Entry(Job(None, [None], reply, deadline=deadline), 0, (MODEL, bucket), size, 0.0, due=due)


_LOOP = asyncio.new_event_loop()


@pytest.fixture(autouse=True, scope="module")
def _close_loop():
    yield
    _LOOP.close()


entries = st.lists(
    st.builds(
        entry,
        size=st.integers(1, 120),
        bucket=st.sampled_from(["a", "b"]),
        deadline=st.one_of(st.just(NEVER), st.floats(NOW - 5, NOW + 5)),
        due=st.floats(NOW - 5, NOW + 5),
        done=st.booleans(),
    ),
    max_size=30,
)
lines = st.tuples(st.floats(0, 0.5), st.floats(0, 0.01))


def queues(items: list[Entry]) -> dict[Key, list[Entry]]:
    waiting: dict[Key, list[Entry]] = {}
    for item in items:
        insort(waiting.setdefault(item.key, []), item, key=DUE)
    return waiting


def costs_of(fixed: float, slope: float) -> Costs:
    costs = Costs()
    for key in ("a", "b", "k"):
        line = costs.line((MODEL, key))
        line.fixed, line.slope, line.measured = fixed, slope, 1
    return costs


@given(entries, lines, st.floats(0.001, 1), st.integers(1, 100))
def test_a_batch_is_of_one_queue_within_its_budget_and_holds_nobody_who_has_gone(items, line, gap, ceiling):
    waiting, costs = queues(items), costs_of(*line)
    costs.line((MODEL, "a")).ceiling = ceiling
    plan = schedule(waiting, NOW, costs, BUDGET, gap)
    assert {e.key for e in plan.batch} <= {plan.key}
    assert all(not e.job.done and e.job.deadline > NOW for e in plan.batch)
    assert all(e.job.done or e.job.deadline <= NOW for e in plan.dropped)
    units = min(BUDGET.units, ceiling) if plan.key == (MODEL, "a") else BUDGET.units
    assert len(plan.batch) <= BUDGET.items
    assert len(plan.batch) <= 1 or max(e.units for e in plan.batch) * len(plan.batch) <= units
    if plan.taken:
        assert set(plan.batch) | set(plan.dropped) == set(waiting[plan.key][: plan.taken])


@given(entries, lines)
def test_the_queue_whose_head_is_due_first_goes_first(items, line):
    waiting = queues(items)
    plan = schedule(waiting, NOW, costs_of(*line), BUDGET, 1.0)
    if waiting:
        assert waiting[plan.key][0].due == min(queue[0].due for queue in waiting.values())


@given(entries, lines)
def test_something_always_moves_or_a_time_to_ask_again_is_given(items, line):
    plan = schedule(queues(items), NOW, costs_of(*line), BUDGET, 0.01)
    assert plan.taken or plan.wait > 0 or not items


@given(entries, lines, st.floats(0.0001, 0.1))
def test_growing_a_batch_never_makes_a_taken_entry_miss_its_deadline(items, line, gap):
    costs = costs_of(*line)
    plan = schedule(queues(items), NOW, costs, BUDGET, gap)
    if len(plan.batch) > 1:
        line = costs.line(plan.key)
        seconds = line.seconds(max(e.units for e in plan.batch) * len(plan.batch))
        could = [e.job.deadline for e in plan.batch if NOW + line.seconds(e.units) <= e.job.deadline]
        assert NOW + seconds <= min(could, default=math.inf)


def test_one_that_is_late_anyway_does_not_keep_the_batch_small():
    waiting = {(MODEL, "k"): [entry(deadline=NOW + 0.01), *[entry(deadline=NOW + 9.0) for _ in range(5)]]}
    assert len(schedule(waiting, NOW, costs_of(0.5, 0.001), BUDGET, gap=1.0).batch) == 6


def test_an_idle_engine_with_rare_arrivals_never_waits():
    assert schedule({(MODEL, "k"): [entry()]}, NOW, costs_of(0.003, 0.0001), BUDGET, gap=0.5).wait == 0


def test_waiting_pays_when_the_fixed_cost_outweighs_the_gap_between_arrivals():
    line = costs_of(0.010, 0.0).line((MODEL, "k"))
    assert delay(line, items=1, longest=1, gap=0.001, slack=NEVER) == 0.001
    assert delay(line, items=9, longest=1, gap=0.001, slack=NEVER) == 0
    assert delay(line, items=1, longest=1, gap=0.001, slack=0.02) == 0


@given(st.floats(0, 100), st.floats(0, 100), st.floats(0.01, 10))
def test_everything_ages_into_its_turn(deadline, start, patience):
    assert urgency(deadline, start, patience) <= min(deadline, start + patience)
