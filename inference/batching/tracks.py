"""The two queues of one engine: for quick items, and for long items.

Owns the choice of the queue, and the view of both queues as one engine. An item runs to the end: in a single queue, a
call of one millisecond would wait for 40 ms behind an item of 40 ms. Each queue has a separate thread of the device,
and the operating system, or the GPU, shares the device between the threads.
"""

import asyncio
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

from inference.batching.batcher import Batcher, Waiting
from inference.batching.job import Job, Key

LONG_SECONDS = 0.005
"""An item above this number of expected seconds is long."""

_EXPECTED = attrgetter("expected_seconds")


class Tracks:
    """One engine's queues, with the methods of a Batcher. `long` is None for an engine of one thread.

    All items of a job run on one track, chosen by the costliest item. The tracks share the costs of models.
    """

    def __init__(self, quick: Batcher, long: Batcher | None = None) -> None:
        self.quick, self.long = quick, long
        self._all = (quick,) if long is None else (quick, long)

    @property
    def name(self) -> str:
        return self.quick.name

    @property
    def queued_items(self) -> int:
        return sum(track.queued_items for track in self._all)

    @property
    def stuck(self) -> bool:
        """Whether a track is stuck. The other one serves on."""
        return any(track.stuck for track in self._all)

    def on_stuck(self, changed: Callable[[], object]) -> None:
        """Call `changed` when `stuck` of a track changes."""
        for track in self._all:
            track.on_stuck = changed

    def queued_seconds(self, at: float) -> float:
        """Expected seconds until the device has run everything that was admitted."""
        return max([track.queued_seconds(at) for track in self._all])

    def learn_warm_up(self, model: Any, items: Sequence[Any], seconds: float) -> None:
        self.quick.learn_warm_up(model, items, seconds)

    def submit(self, job: Job) -> None:
        """Admit a job, see Batcher.submit()."""
        if self.long is None:
            self.quick.submit(job)
            return
        entries = self.quick.entries(job)
        costliest = entries[0] if job.alike else max(entries, key=_EXPECTED)
        job.long = self._takes_long(costliest.key, costliest.units)
        (self.long if job.long else self.quick).submit(job, entries)

    async def outcomes(self, job: Job) -> list[Any]:
        """The outcomes of a job after submit(). The end of the wait withdraws the job. Raises the job's error."""
        try:
            return await job.reply
        except asyncio.CancelledError:
            self.withdraw(job)
            raise

    def withdraw(self, job: Job) -> None:
        """Free the queue of a cancelled job, see Batcher.withdraw()."""
        (self.long if self.long and job.long else self.quick).withdraw(job)

    def check_early(self, model: Any, item: Any, count: int, job: Waiting) -> None:
        """See Batcher.check_early()."""
        track = (
            self.long if self.long and self._takes_long((model, model.bucket(item)), model.units(item)) else self.quick
        )
        track.check_early(model, item, count, job)

    def check_units(self, model: Any, units: float, job: Waiting) -> None:
        """See Batcher.check_units()."""
        self.quick.check_units(model, units, job)

    def _takes_long(self, key: Key, units: int) -> bool:
        return self.quick.costs.alone(key, units) > LONG_SECONDS

    def close(self) -> None:
        for track in self._all:
            track.close()
