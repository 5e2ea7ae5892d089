"""Two queues of one engine: items that take long do not delay quick ones."""

import asyncio
import os
import sys
from collections.abc import Sequence
from threading import Event, get_native_id
from typing import Any

import pytest

from inference.batching.batcher import Batcher
from inference.batching.costs import TRUSTED_BATCHES, Costs
from inference.batching.job import BatchBounds, Job
from inference.batching.tracks import LONG_SECONDS, Tracks
from inference.device.engine import Engine
from market_inference.contract import deadline
from market_inference.contract.errors import OverloadedError, ServiceUnavailableError
from tests.eventually import eventually_async
from tests.inference.conftest import Recorder

LONG = 1000


class Mixed:
    """Items from 1000 up take long: until `gate` is set. The others take no time."""

    name, version = "mixed", "1"

    def __init__(self) -> None:
        self.gate, self.entered = Event(), Event()
        self.batches: list[list[int]] = []

    def bucket(self, item: int) -> str:
        return "long" if item >= LONG else "short"

    def units(self, item: int) -> int:
        return item

    def run(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        if max(items) >= LONG:
            self.entered.set()
            assert self.gate.wait(60)
        return [2 * item for item in items]


@pytest.fixture
async def tracks():
    engines = Engine("quick"), Engine("long")
    costs = Costs()
    made = [
        Batcher(
            engine, Recorder(), budget=BatchBounds(10**6, 100), max_queued_seconds=5.0, stuck_seconds=60.0, costs=costs
        )
        for engine in engines
    ]
    yield Tracks(*made)
    for engine in engines:
        engine.close()


@pytest.fixture
def model():
    model = Mixed()
    yield model
    model.gate.set()


def submit(tracks: Tracks, model: Any, *items: int, client: str = "c") -> Job:
    job = Job(model, items, asyncio.get_running_loop().create_future(), client=client, deadline=deadline.after(60))
    tracks.submit(job)
    return job


async def hold(tracks: Tracks, model: Mixed) -> Job:
    job = submit(tracks, model, LONG, client="attacker")
    assert await asyncio.to_thread(model.entered.wait, 60)
    return job


async def test_a_quick_item_does_not_wait_for_one_that_takes_long(tracks, model):
    held = await hold(tracks, model)
    assert await submit(tracks, model, 1).reply == [2]
    assert not held.reply.done()
    model.gate.set()
    assert await held.reply == [2 * LONG]


async def test_a_job_runs_whole_on_the_track_of_its_costliest_item(tracks, model):
    held = await hold(tracks, model)
    mixed = submit(tracks, model, 1, LONG + 1, 2)
    assert (tracks.quick.queued_items, tracks.long.queued_items, tracks.queued_items) == (0, 3, 3)
    model.gate.set()
    assert await mixed.reply == [2, 2 * LONG + 2, 4]
    await held.reply


async def test_the_track_follows_the_measured_cost(tracks, model):
    model.gate.set()
    key = model, "short"
    for seconds, long in ((2 * LONG_SECONDS, True), (LONG_SECONDS / 2, False)):
        for _ in range(500):
            tracks.quick.costs.learn(key, 100, seconds)
        job = submit(tracks, model, 100)
        await job.reply
        assert job.long is long


async def test_withdrawn_long_work_leaves_its_queue(tracks, model):
    held = await hold(tracks, model)
    waiting = submit(tracks, model, LONG + 1)
    seconds = tracks.long.shares.total
    assert seconds > LONG_SECONDS
    waiting.reply.cancel()
    tracks.withdraw(waiting)
    assert (tracks.long.shares.total, tracks.queued_items) == (0.0, 0)
    model.gate.set()
    await held.reply


async def test_a_full_queue_of_long_work_refuses_long_work_alone(tracks, model):
    held = await hold(tracks, model)
    with pytest.raises(OverloadedError):
        for _ in range(1000):
            submit(tracks, model, *[LONG] * 50)
    for _ in range(TRUSTED_BATCHES):
        for bucket, units in (("long", LONG), ("short", 1)):
            tracks.quick.costs.learn((model, bucket), units, units * 1e-5)
    with pytest.raises(OverloadedError):
        tracks.check_early(model, LONG, 1000, held)
    tracks.check_early(model, 1, 100, held)
    assert await submit(tracks, model, 1).reply == [2]
    at = deadline.now()
    assert tracks.queued_seconds(at) == tracks.long.queued_seconds(at) > 0


async def test_a_stuck_track_leaves_the_other_one_to_serve(tracks, model):
    changes: list[bool] = []
    tracks.on_stuck(lambda: changes.append(tracks.stuck))
    tracks.long._stuck_seconds = 0.05
    held = await hold(tracks, model)
    await eventually_async(lambda: changes == [True])
    with pytest.raises(ServiceUnavailableError):
        await held.reply
    with pytest.raises(ServiceUnavailableError):
        submit(tracks, model, LONG)
    assert await submit(tracks, model, 1).reply == [2]
    model.gate.set()
    await eventually_async(lambda: changes == [True, False])


async def test_an_engine_of_one_thread_has_one_queue(tracks, model):
    single = Tracks(tracks.quick)
    model.gate.set()
    job = submit(single, model, LONG)
    assert await job.reply == [2 * LONG]
    assert not job.long
    single.withdraw(job)


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux")
async def test_the_thread_for_long_items_gives_way():
    engine = Engine("long", nice=10)
    try:
        nice = await engine.call(lambda: os.getpriority(os.PRIO_PROCESS, get_native_id()))
        assert nice == min(19, os.getpriority(os.PRIO_PROCESS, get_native_id()) + 10)
    finally:
        engine.close()
