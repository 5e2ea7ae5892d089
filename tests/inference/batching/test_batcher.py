"""Batching: items of one batch, and clients of one queue, do not affect each other."""

import asyncio
from threading import Event
from typing import Any

import pytest

from inference.batching import batcher as rooms
from inference.batching.batcher import RUN_SECONDS, Batcher
from inference.batching.job import BatchBounds, BatchResult, Job
from inference.device.engine import _Stopwatch
from market_inference.contract import deadline
from market_inference.contract.errors import (
    CallCancelledError,
    DeadlineExceededError,
    InternalError,
    OverloadedError,
    ServiceUnavailableError,
)
from runtime import company


def submit(batcher: Batcher, model: Any, *items: Any, client: str = "c", **more: Any) -> asyncio.Future:
    job = Job(model, items, asyncio.get_running_loop().create_future(), client=client, **more)
    batcher.submit(job)
    return job.reply


def price(batcher: Batcher, model: Any, *, fixed: float = 0.0, per_unit: float = 0.0) -> None:
    """Let the batcher expect these seconds of a batch."""
    line = batcher.costs.line((model, "short"))
    line.fixed, line.slope, line.scale, line.measured = fixed, per_unit, 1.0, 1


async def hold(batcher: Batcher, model: Any) -> asyncio.Future:
    """Occupy the device until the model's gate opens."""
    model.gate.clear()
    model.entered.clear()
    reply = submit(batcher, model, 0, client="holder")
    assert await asyncio.to_thread(model.entered.wait, 60)
    return reply


@pytest.fixture
def at_once(monkeypatch):
    """No batch takes any time: on a busy machine, a stall would use the time of a short batch up."""
    monkeypatch.setattr(_Stopwatch, "busy", lambda stopwatch: 0.0)


async def test_an_idle_engine_starts_at_once(batcher, model):
    assert await submit(batcher, model, 1) == [2]
    assert model.batches == [[1]]


async def test_a_batch_waits_once_for_an_arrival_that_does_not_come(batcher, model):
    await submit(batcher, model, 1)
    price(batcher, model, fixed=30.0)  # so dear a start that waiting for company looks right
    for _ in range(200):  # arrivals in quick succession
        batcher._note_arrival(deadline.now())
    async with asyncio.timeout(60):
        assert await submit(batcher, model, 2) == [4]


async def test_requests_of_one_loop_turn_share_a_batch(batcher, model):
    replies = [submit(batcher, model, i) for i in range(5)]
    assert await asyncio.gather(*replies) == [[0], [2], [4], [6], [8]]
    assert len(model.batches) == 1


async def test_the_next_batch_forms_while_the_current_one_runs(batcher, model, recorder, at_once):
    held = await hold(batcher, model)
    replies = [submit(batcher, model, i, client=f"c{i}") for i in range(1, 9)]
    model.gate.set()
    await asyncio.gather(held, *replies)
    assert recorder.sizes == [1, 8]


async def test_a_big_request_is_split_and_small_ones_are_joined(engine, recorder, model, at_once):
    batcher = Batcher(engine, recorder, budget=BatchBounds(units=4, items=4), max_queued_seconds=5)
    held = await hold(batcher, model)
    big, small = submit(batcher, model, *range(1, 7)), submit(batcher, model, 100)
    model.gate.set()
    assert await big == [2, 4, 6, 8, 10, 12]
    assert await small == [200]
    await held
    assert sorted(recorder.sizes) == [1, 3, 4]


async def test_a_batch_is_short_while_other_clients_call(batcher, model, recorder, at_once, monkeypatch):
    """The next call of another client waits for the batch that runs, so the batch has a part for each client."""
    monkeypatch.setattr(company, "SECONDS", 3600.0)
    price(batcher, model, per_unit=0.001)
    items = [*range(1, 41)]
    await submit(batcher, model, *items, client="a")
    assert recorder.sizes == [40]
    await submit(batcher, model, 0, client="b")
    recorder.sizes.clear()
    price(batcher, model, per_unit=0.001)
    await submit(batcher, model, *items, client="a")
    assert recorder.sizes[0] == 10
    # Some time later the client is alone again.
    batcher._company.until = deadline.now()
    recorder.sizes.clear()
    price(batcher, model, per_unit=0.001)
    await submit(batcher, model, *items, client="a")
    assert recorder.sizes == [40]


async def test_a_client_whose_work_waits_is_company_without_further_calls(batcher, model, recorder):
    price(batcher, model, per_unit=0.001)
    replies = [submit(batcher, model, *range(1, 61), client="a"), submit(batcher, model, 0, client="b")]
    # Long after the calls of both.
    batcher._company.until = deadline.now()
    replies.append(submit(batcher, model, 0, client="b"))
    await asyncio.gather(*replies)
    assert recorder.sizes[0] <= 12


async def test_the_calls_of_many_clients_still_share_a_batch(batcher, model, recorder, at_once):
    price(batcher, model, per_unit=0.001)
    held = await hold(batcher, model)
    replies = [submit(batcher, model, number, client=f"c{number}") for number in range(1, 21)]
    price(batcher, model, per_unit=0.001)
    model.gate.set()
    await asyncio.gather(held, *replies)
    assert recorder.sizes == [1, 20]


async def test_a_job_of_alike_items_is_estimated_by_its_first_item(batcher, model, monkeypatch):
    asked = []
    monkeypatch.setattr(model, "bucket", lambda item: asked.append(item) or "short")
    price(batcher, model, fixed=0.01, per_unit=0.001)
    held = await hold(batcher, model)
    asked.clear()
    each = submit(batcher, model, 1, 2, 3)
    seconds, priced = batcher.shares.total, len(asked)
    alike = submit(batcher, model, 4, 5, 6, alike=True)
    assert batcher.shares.total == pytest.approx(2 * seconds)
    assert (priced, len(asked) - priced) == (3, 1)
    model.gate.set()
    assert (await held, await each, await alike) == ([0], [2, 4, 6], [8, 10, 12])


async def test_alike_items_wait_in_runs_of_few_milliseconds_within_the_bounds_of_a_batch(engine, recorder, model):
    batcher = Batcher(engine, recorder, budget=BatchBounds(units=8, items=7), max_queued_seconds=1e9)
    held = await hold(batcher, model)
    replies, runs = [], []
    for per_unit, ceiling in ((RUN_SECONDS / 3, 100.0), (1e-9, 100.0), (1e-9, 2.0), (1.0, 100.0)):
        price(batcher, model, per_unit=per_unit)
        batcher.costs.line((model, "short")).ceiling = ceiling
        known = sum(map(len, batcher._waiting.values()))
        replies.append(submit(batcher, model, *range(1, 12), alike=True))
        runs.append(sum(map(len, batcher._waiting.values())) - known)
    # Three by time, seven by items, two by memory, one because a single item takes longer than a run may.
    assert runs == [4, 2, 6, 11]
    assert batcher.queued_items == 4 * 11
    batcher.costs.line((model, "short")).ceiling = 100.0
    model.gate.set()
    assert await asyncio.gather(*replies) == [[2 * item for item in range(1, 12)]] * 4
    await held
    assert max(recorder.sizes) <= 7
    assert (batcher.queued_items, batcher.shares.total) == (0, 0.0)


async def test_withdrawn_items_of_a_run_never_reach_the_device(batcher, model, recorder, at_once):
    price(batcher, model, per_unit=RUN_SECONDS / 2)
    held = await hold(batcher, model)
    withdrawn: set[int] = set()
    reply = submit(batcher, model, 1, 2, 3, 4, 5, withdrawn=withdrawn, alike=True)
    withdrawn.update((0, 2, 3))
    model.gate.set()
    outcomes = await reply
    # The second run is gone whole, the first one in part.
    assert [isinstance(outcome, CallCancelledError) for outcome in outcomes] == [True, False, True, True, False]
    assert (outcomes[1], outcomes[4]) == (4, 10)
    await held
    assert model.batches == [[0], [2, 5]]
    assert recorder.dropped_items == 3
    assert (batcher.queued_items, batcher.shares.total) == (0, 0.0)


async def test_items_of_other_buckets_are_never_in_the_batch(batcher, model, at_once):
    held = await hold(batcher, model)
    await asyncio.gather(held, submit(batcher, model, 1, 2000, 3), _open(model))
    assert sorted(map(sorted, model.batches)) == [[0], [1, 3], [2000]]


async def _open(model: Any) -> None:
    model.gate.set()


async def test_a_cancelled_call_never_reaches_the_device_and_leaves_its_batch_mates_alone(batcher, model, recorder):
    held = await hold(batcher, model)
    gone, stays = submit(batcher, model, 1), submit(batcher, model, 2)
    gone.cancel()
    model.gate.set()
    assert await stays == [4]
    await held
    assert model.batches == [[0], [2]]
    assert recorder.dropped_items == 1


async def test_a_withdrawn_item_never_reaches_the_device(batcher, model, recorder, at_once):
    held = await hold(batcher, model)
    withdrawn: set[int] = set()
    reply = submit(batcher, model, 1, 2, 3, withdrawn=withdrawn)
    withdrawn.add(1)
    model.gate.set()
    first, second, third = await reply
    assert (first, third) == (2, 6)
    assert isinstance(second, CallCancelledError)
    await held
    assert model.batches == [[0], [1, 3]]
    assert recorder.dropped_items == 1


async def test_a_call_cancelled_while_its_batch_runs_leaves_the_other_answers_alone(batcher, model):
    model.gate.clear()
    gone, stays = submit(batcher, model, 1), submit(batcher, model, 2)
    assert await asyncio.to_thread(model.entered.wait, 60)
    gone.cancel()
    model.gate.set()
    assert await stays == [4]
    assert gone.cancelled()


async def test_work_that_expires_in_the_queue_never_reaches_the_device(batcher, model, recorder):
    held = await hold(batcher, model)
    late = Job(model, [1], asyncio.get_running_loop().create_future(), client="c", deadline=deadline.after(60))
    batcher.submit(late)
    fine = submit(batcher, model, 2)
    late.deadline = deadline.now()  # a short deadline might pass before the queue, on a busy machine
    model.gate.set()
    assert await fine == [4]
    with pytest.raises(DeadlineExceededError):
        await late.reply
    await held
    assert model.batches == [[0], [2]]


async def test_a_deadline_already_past_is_refused_before_it_queues(batcher, model):
    with pytest.raises(DeadlineExceededError):
        submit(batcher, model, 1, deadline=deadline.now() - 1)
    assert batcher.queued_items == 0


async def test_an_item_that_raises_fails_alone(batcher, model):
    held = await hold(batcher, model)
    replies = [submit(batcher, model, item) for item in (1, 2, ValueError("poison"), 4, 5)]
    model.gate.set()
    answers = await asyncio.gather(held, *replies)
    assert [answer[0] for answer in answers[1:] if not isinstance(answer[0], Exception)] == [2, 4, 8, 10]
    assert isinstance(answers[3][0], InternalError)


async def test_batch_work_that_fills_the_queue_does_not_lock_interactive_work_out(engine, recorder, model):
    batcher = Batcher(engine, recorder, budget=BatchBounds(units=4, items=4), max_queued_seconds=1.0)
    held = await hold(batcher, model)
    price(batcher, model, per_unit=0.1)  # seconds an item
    filling = [submit(batcher, model, i, priority="batch") for i in range(1, 10)]
    with pytest.raises(OverloadedError):
        submit(batcher, model, 10, 11, priority="batch")
    urgent = submit(batcher, model, 50, priority="interactive", deadline=deadline.after(30))
    model.gate.set()
    await asyncio.gather(held, urgent, *filling)
    assert model.batches[1][0] == 50


async def test_a_batchs_fixed_cost_counts_towards_the_queue_too(engine, recorder, model):
    batcher = Batcher(engine, recorder, budget=BatchBounds(units=4, items=4), max_queued_seconds=1.0)
    held = await hold(batcher, model)
    price(batcher, model, fixed=2.0)
    waiting = [submit(batcher, model, i) for i in (1, 2)]
    with pytest.raises(OverloadedError):
        submit(batcher, model, 3)
    model.gate.set()
    await asyncio.gather(held, *waiting)


async def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(engine, recorder, model):
    batcher = Batcher(engine, recorder, budget=BatchBounds(units=1, items=1), max_queued_seconds=1.0)
    for _ in range(3):
        await submit(batcher, model, 1)
    price(batcher, model, fixed=0.0, per_unit=0.4)
    held = await hold(batcher, model)
    accepted, refused = [], 0
    for i in range(20):
        try:
            accepted.append(submit(batcher, model, i))
        except OverloadedError as error:
            refused += 1
            assert error.retry_after > 0
    assert refused
    assert accepted
    assert recorder.refusals.count("queue_full") == refused
    model.gate.set()
    await asyncio.gather(held, *accepted)
    assert batcher.queued_items == 0


async def test_work_that_cannot_make_its_deadline_is_refused_at_once(engine, recorder, model):
    batcher = Batcher(engine, recorder, budget=BatchBounds(units=1, items=1), max_queued_seconds=60)
    await submit(batcher, model, 1)
    price(batcher, model, fixed=0.0, per_unit=20.0)
    held = await hold(batcher, model)
    patient = submit(batcher, model, 1)
    with pytest.raises(OverloadedError, match="cannot be answered in time"):
        submit(batcher, model, 2, deadline=deadline.after(15.0))
    model.gate.set()
    await asyncio.gather(held, patient)


@pytest.mark.parametrize("alike", [False, True])
async def test_one_clients_thousand_items_stand_behind_anothers_first(engine, recorder, model, alike):
    batcher = Batcher(engine, recorder, budget=BatchBounds(units=10, items=10), max_queued_seconds=1e9)
    price(batcher, model, fixed=0.0, per_unit=0.01)
    held = await hold(batcher, model)
    greedy = submit(batcher, model, *range(500), client="greedy", alike=alike)
    modest = submit(batcher, model, 999, client="modest")
    model.gate.set()
    assert await modest == [1998]
    assert not greedy.done()
    assert any(999 in batch for batch in model.batches[:3])
    await asyncio.gather(held, greedy)


async def test_interactive_work_goes_before_batch_work(engine, recorder, model):
    batcher = Batcher(engine, recorder, budget=BatchBounds(units=1, items=1), max_queued_seconds=60)
    held = await hold(batcher, model)
    bulk = submit(batcher, model, 1, priority="batch")
    interactive = submit(batcher, model, 2)
    model.gate.set()
    await asyncio.gather(held, bulk, interactive)
    assert model.batches == [[0], [2], [1]]


async def test_closing_fails_every_waiting_job(batcher, model):
    held = await hold(batcher, model)
    waiting = submit(batcher, model, 1)
    batcher.close()
    model.gate.set()
    with pytest.raises(Exception, match="stopping"):
        await waiting
    assert await held == [0]


async def test_a_jobs_phases_follow_each_other(batcher, model):
    held = await hold(batcher, model)
    job = Job(model, [1, 2], asyncio.get_running_loop().create_future())
    batcher.submit(job)
    model.gate.set()
    await asyncio.gather(held, job.reply)
    assert 0 < job.enqueued <= job.started <= job.device_began <= job.device_ended
    # The items run in two batches where the batch before them took long.
    assert 0 < job.device_seconds < job.device_ended - job.device_began + 1e-6


async def test_a_client_with_a_full_queue_leaves_room_for_another(engine, recorder, model):
    batcher = Batcher(engine, recorder, budget=BatchBounds(units=1, items=1), max_queued_seconds=5.0)
    price(batcher, model, per_unit=1.0)
    held = await hold(batcher, model)
    greedy = [submit(batcher, model, item, client="greedy") for item in range(4)]
    with pytest.raises(OverloadedError, match="the queue is full"):
        submit(batcher, model, 9, 9, client="greedy")
    modest = submit(batcher, model, 100, client="modest", deadline=deadline.after(30))
    model.gate.set()
    await asyncio.gather(held, *greedy, modest)


async def test_a_cancelled_job_frees_its_queue_at_once(batcher, model, recorder):
    price(batcher, model, per_unit=0.5)
    held = await hold(batcher, model)
    job = Job(model, range(1, 9), asyncio.get_running_loop().create_future(), client="c")
    batcher.submit(job)
    assert batcher.shares.total == pytest.approx(4.0)
    job.reply.cancel()
    batcher.withdraw(job)
    assert (batcher.queued_items, batcher.shares.total) == (0, 0.0)
    assert recorder.dropped_items == 8
    after = submit(batcher, model, 50, client="c")
    model.gate.set()
    assert await after == [100]
    await held
    assert model.batches == [[0], [50]]


@pytest.mark.parametrize("alike", [False, True])
async def test_items_that_did_not_run_in_the_batchs_time_run_in_the_next_one(recorder, model, alike):
    class Short:
        """An engine that runs three items of each batch."""

        def __init__(self) -> None:
            self.sizes: list[int] = []

        def run(self, model, items, done, *, first, seconds):
            self.sizes.append(len(items))
            at = deadline.now()
            result = BatchResult([2 * item for item in items[:3]], at, at + 0.001, 0.001)
            asyncio.get_running_loop().call_soon(done, result)

    runner = Short()
    batcher = Batcher(runner, recorder, budget=BatchBounds(units=100, items=100), max_queued_seconds=5.0)
    price(batcher, model, per_unit=0.001)
    first = submit(batcher, model, *range(5), alike=alike)
    second = submit(batcher, model, 5, 6, client="d", alike=alike)
    assert await asyncio.gather(first, second) == [[0, 2, 4, 6, 8], [10, 12]]
    assert runner.sizes == [7, 4, 1]
    assert (batcher.queued_items, batcher.shares.total) == (0, 0.0)


async def test_an_engine_that_hangs_is_declared_stuck_and_recovers(engine, recorder, model):
    batcher = Batcher(
        engine, recorder, budget=BatchBounds(units=1, items=1), max_queued_seconds=60, stuck_seconds=0.05, name="test"
    )
    told = asyncio.Event()
    batcher.on_stuck = told.set
    model.gate.clear()
    hung, waiting = submit(batcher, model, 0), submit(batcher, model, 1)
    for reply in (hung, waiting):
        with pytest.raises(ServiceUnavailableError, match="the test engine is stuck"):
            await asyncio.wait_for(reply, 60)
    assert batcher.stuck
    with pytest.raises(ServiceUnavailableError):
        submit(batcher, model, 2)
    assert recorder.refusals == ["stuck"]
    await told.wait()
    told.clear()
    batcher._stuck_seconds = 60.0
    model.gate.set()
    await told.wait()
    assert await submit(batcher, model, 3) == [6]


async def test_a_batch_that_took_much_longer_than_expected_changes_the_order_of_its_queue(engine, recorder, model):
    batcher = Batcher(engine, recorder, budget=BatchBounds(units=1, items=1), max_queued_seconds=1e9)
    price(batcher, model, per_unit=1e-6)
    held = await hold(batcher, model)
    replies = [submit(batcher, model, item, client="costly") for item in range(1, 51)]
    done = []
    modest = submit(batcher, model, 999, client="modest")
    modest.add_done_callback(lambda _: done.append(sum(reply.done() for reply in replies)))
    await asyncio.to_thread(Event().wait, 0.3)  # the held batch takes 0.3 s in place of a microsecond
    model.gate.set()
    await asyncio.gather(held, modest, *replies)
    assert done[0] <= 2


async def test_a_light_client_does_not_stand_behind_what_many_heavy_clients_brought_before(engine, recorder, model):
    batcher = Batcher(engine, recorder, budget=BatchBounds(units=1, items=1), max_queued_seconds=1e9)
    held = await hold(batcher, model)
    price(batcher, model, per_unit=0.01)
    heavy = [submit(batcher, model, 10 * at + i, client=f"heavy{at}") for at in range(8) for i in range(1, 9)]
    await asyncio.sleep(0.3)  # of real time: every entry of the heavy clients is due by then
    light = submit(batcher, model, 500, client="light")
    model.gate.set()
    await asyncio.gather(held, light, *heavy)
    # Behind the first item of each heavy client, and of some the second.
    assert model.batches.index([500]) <= 2 * 8 + 1


async def test_work_that_takes_far_longer_than_its_caller_waits_is_refused_by_an_idle_engine(batcher, model, recorder):
    for _ in range(10):
        await submit(batcher, model, 1)
    price(batcher, model, per_unit=1000.0)
    batcher.costs.line((model, "short")).measured = 10
    with pytest.raises(DeadlineExceededError, match=r"takes about 3000 s of an idle engine, and [0-9.]+ s are left"):
        submit(batcher, model, 1, 2, 3, deadline=deadline.after(60.0))
    assert recorder.refusals == ["deadline"]
    price(batcher, model, per_unit=0.6)
    batcher.costs.line((model, "short")).measured = 10
    with pytest.raises(DeadlineExceededError, match=r"takes about 0\.6 s of an idle engine, and 0\.[0-9]+ s are left"):
        submit(batcher, model, 1, deadline=deadline.after(0.1))
    price(batcher, model, per_unit=1000.0)
    # A few measurements may be wrong: then the work is tried.
    batcher.costs.line((model, "short")).measured = 2
    assert await submit(batcher, model, 1, 2, 3, deadline=deadline.after(60.0)) == [2, 4, 6]


async def test_a_refusal_quotes_a_useful_time_for_the_next_try(engine, recorder, model):
    batcher = Batcher(engine, recorder, budget=BatchBounds(units=1, items=1), max_queued_seconds=5.0)
    price(batcher, model, per_unit=300.0)
    held = await hold(batcher, model)
    with pytest.raises(OverloadedError) as caught:
        submit(batcher, model, 1, 2)
    assert 0.05 <= caught.value.retry_after <= 10.0
    model.gate.set()
    await held


async def test_work_that_fills_a_queue_by_itself_is_told_to_wait_as_behind_a_full_queue(
    engine, recorder, model, monkeypatch
):
    """Told to come back after 50 ms, a client with hours of work sends megabytes again 20 times a second."""
    batcher = Batcher(engine, recorder, budget=BatchBounds(units=1, items=1), max_queued_seconds=5.0)
    price(batcher, model, per_unit=0.02)
    held = await hold(batcher, model)
    with monkeypatch.context() as clock:  # stands still, with 20 ms left of the batch that runs
        clock.setattr(rooms, "now", lambda: batcher._running_until - 0.02)
        with pytest.raises(OverloadedError) as large:
            submit(batcher, model, *range(1, 1000), client="large")
        assert large.value.retry_after == 2.5
        waiting = submit(batcher, model, *range(1, 249), client="full")
        with pytest.raises(OverloadedError) as small:
            submit(batcher, model, *range(1, 11), client="full")
        assert small.value.retry_after == pytest.approx(2.5, rel=0.01)
    model.gate.set()
    await asyncio.gather(held, waiting)


async def test_work_is_refused_early_by_what_was_measured(batcher, model, recorder):
    job = Job(model, [1], asyncio.get_running_loop().create_future(), deadline=deadline.after(60.0))
    for _ in range(2):
        # Nothing, or little, was measured: nothing is refused.
        batcher.check_units(model, 1e12, job)
        batcher.check_early(model, 1, 10**12, job)
        await submit(batcher, model, 1)
    for _ in range(10):
        await submit(batcher, model, 1)
    price(batcher, model, per_unit=1.0)
    batcher.costs.line((model, "short")).measured = 10
    batcher.check_units(model, 1, job)
    batcher.check_early(model, 1, 100, job)
    for refused in (lambda: batcher.check_units(model, 1e12, job), lambda: batcher.check_early(model, 1, 300, job)):
        with pytest.raises(DeadlineExceededError, match="of an idle engine"):
            refused()
    assert recorder.refusals == ["deadline", "deadline"]
