"""Models for batcher and engine with pace and failures controlled by the test."""

from collections.abc import Sequence
from threading import Event, Lock
from typing import Any

import pytest

from inference.batching.batcher import Batcher
from inference.batching.job import BatchBounds
from inference.batching.schedule import BatchPlan
from inference.device.engine import Engine


class Doubler:
    """Answers 2 * item. Items that are exceptions are raised; a closed gate holds a batch on the device."""

    name, version = "doubler", "1"

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.gate = Event()
        self.gate.set()
        self.entered = Event()
        self._alone = Lock()

    def bucket(self, item: Any) -> str:
        return "long" if isinstance(item, int) and item >= 1000 else "short"

    def units(self, item: Any) -> int:
        return 1

    def run(self, items: Sequence[Any]) -> list[Any]:
        assert self._alone.acquire(blocking=False), "two batches at once on one engine"
        try:
            self.batches.append(list(items))
            self.entered.set()
            assert self.gate.wait(60)
            for item in items:
                if isinstance(item, Exception):
                    raise item
            return [2 * item for item in items]
        finally:
            self._alone.release()

    def check(self) -> None:
        assert self.run([21]) == [42]


class Recorder:
    """Records the reports of the batcher."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.refusals: list[str] = []
        self.dropped_items = 0

    def batch(self, plan: BatchPlan, result: Any, units: int) -> None:
        self.sizes.append(plan.items)

    def refused(self, reason: str) -> None:
        self.refusals.append(reason)

    def dropped(self, count: int) -> None:
        self.dropped_items += count


@pytest.fixture
def model():
    return Doubler()


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
async def engine():
    engine = Engine("test")
    yield engine
    engine.close()


@pytest.fixture
async def batcher(engine, recorder):
    return Batcher(engine, recorder, budget=BatchBounds(units=100, items=100), max_queued_seconds=5.0)
