"""A request's work for one model: items, reply and deadline; and the bounds and the result of a batch of such items.

Owns the completion of a job. Knows neither queues nor devices.
"""

import asyncio
from collections.abc import Hashable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, TypeAlias

from market_inference.contract.deadline import NEVER

# Seconds after which an entry without a nearer deadline is due, so that every entry runs eventually.
PATIENCE = {"interactive": 0.25, "batch": 5.0}


def _new_reply() -> asyncio.Future[list[Any]]:
    return asyncio.get_running_loop().create_future()


@dataclass(slots=True, eq=False)
class Job:
    """Items of one request for one model, answered together.

    `reply` resolves to one outcome per item, in the order of `items`: the model's answer, or the exception of that item
    alone. An error of the whole job is the reply's exception. A caller that no longer waits cancels the reply.
    """

    model: Any
    items: Sequence[Any]
    reply: asyncio.Future[list[Any]] = field(default_factory=_new_reply)
    client: str = ""
    priority: str = "interactive"
    deadline: float = NEVER
    enqueued: float = 0.0
    # Seconds from admission to completion, as estimated at admission.
    expected_seconds: float = 0.0
    # Expected device seconds of the items that wait in the queue.
    queued_seconds: float = 0.0
    outcomes: list[Any] = field(default_factory=list)
    remaining: int = 0
    # Instants: the first item joins a batch; the device begins that batch; the device ends the last batch.
    started: float = 0.0
    device_began: float = 0.0
    device_ended: float = 0.0
    # The job's share of the run time of its batches, and the size of the largest of these batches.
    device_seconds: float = 0.0
    batch_items: int = 0
    # The request's runtime.tracing.Span, None unless the request is traced.
    span: Any = None
    # Indices of items whose caller no longer waits. The owner of the job may add indices at any time.
    withdrawn: Set[int] = frozenset()
    # Every item has the bucket and the units of the first item.
    alike: bool = False
    # The job has an item that takes long, see tracks.py.
    long: bool = False

    def __post_init__(self) -> None:
        self.remaining = len(self.items)
        self.outcomes = [None] * self.remaining

    @property
    def done(self) -> bool:
        """Completed, failed or cancelled."""
        return self.reply.done()

    def complete(self, indices: Sequence[int], outcomes: Iterator[Any]) -> None:
        """Take the next outcome for each of these items. The last one resolves the reply."""
        for index in indices:
            self.outcomes[index] = next(outcomes)
        self.remaining -= len(indices)
        if self.remaining == 0 and not self.reply.done():
            self.reply.set_result(self.outcomes)

    def fail(self, error: Exception) -> None:
        """Complete the whole job with an error."""
        if not self.reply.done():
            self.reply.set_exception(error)


Key: TypeAlias = tuple[Any, Hashable]
"""(model, bucket): entries with equal keys may share a batch."""


@dataclass(slots=True, eq=False)
class Entry:
    """An item of a job in a queue, or `count` items alike from `index` on. `due` orders the queue, see urgency()."""

    job: Job
    index: int
    key: Key
    # Of each item.
    units: int
    # Expected device seconds at admission, of all items.
    expected_seconds: float
    # Instant at which the client's fair share reaches the entry, see shares.py.
    start: float = 0.0
    due: float = 0.0
    count: int = 1

    @property
    def indices(self) -> range:
        return range(self.index, self.index + self.count)

    @property
    def withdrawn(self) -> bool:
        """No caller waits for any of the items."""
        withdrawn = self.job.withdrawn
        return self.index in withdrawn and all(index in withdrawn for index in self.indices)

    def parts(self) -> "list[Entry]":
        """Each item as an entry of its own."""
        if self.count == 1:
            return [self]
        each = self.expected_seconds / self.count
        starts = [self.start + place * each for place in range(self.count)]
        made = zip(self.indices, starts, strict=True)
        return [Entry(self.job, index, self.key, self.units, each, start, self.due) for index, start in made]

    def without(self, count: int) -> "Entry":
        """The entry without the first items."""
        rest = self.count - count
        seconds = self.expected_seconds * rest / self.count
        start = self.start + self.expected_seconds - seconds
        return Entry(self.job, self.index + count, self.key, self.units, seconds, start, self.due, rest)


DUE = attrgetter("due")
"""The order of a queue."""


@dataclass(frozen=True, slots=True)
class BatchBounds:
    """Bounds of a batch: padded units (longest item x items), items, and expected seconds beyond the fixed cost.

    An item that is above a bound runs alone.
    """

    units: int
    items: int
    seconds: float = 0.1


@dataclass(slots=True)
class BatchResult:
    """What an engine reports of a batch.

    `outcomes` has an answer or an exception for each of the first items of the batch. Items beyond did not run: the
    batch had used up its time. `started` and `ended` are instants in seconds. `busy` is the batch's cost in seconds,
    without the time of other threads and processes on the CPU.
    """

    outcomes: Sequence[Any]
    started: float
    ended: float
    busy: float
    # The number of items that fit the device's memory together, if the whole batch did not fit.
    fitted: int | None = None
    oom_recoveries: int = 0
    # Outcomes of the wrong type, layout or values, which are errors now.
    invalid: int = 0
