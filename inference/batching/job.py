"""A request's work: its items, its reply and its deadline.

Owns what it means for a job to be settled. Knows neither queues nor devices.
"""

import asyncio
from collections.abc import Hashable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, TypeAlias

from market_inference.contract.deadline import NEVER

# Seconds by which an entry without a nearer deadline is treated as due, so that everything ages into its turn.
PATIENCE = {"interactive": 0.25, "batch": 5.0}


@dataclass(slots=True, eq=False)
class Job:
    """Items of one request for one model, answered together.

    `reply` resolves to the answers in the order of `items`: each the model's answer, or the exception that befell that
    item alone. It is cancelled when the caller goes away; a whole job that cannot be served gets an exception.
    """

    model: Any
    items: Sequence[Any]
    reply: asyncio.Future[list[Any]]
    client: str = ""
    priority: str = "interactive"
    deadline: float = NEVER
    enqueued: float = 0.0
    # Seconds until the answer, as estimated when it was accepted.
    expected: float = 0.0
    answers: list[Any] = field(default_factory=list)
    left: int = 0
    # For the caller's timing: when its first item was taken into a batch, when the device began with that batch and was
    # done with the last one, the job's share of the device's seconds, and the largest batch it was in.
    started: float = 0.0
    device_began: float = 0.0
    device_ended: float = 0.0
    device_seconds: float = 0.0
    batch_items: int = 0
    # The request's runtime.tracing.Span, where it is traced.
    span: Any = None
    # Items that nobody waits for, by place; whoever made the job may add to them.
    gone: Set[int] = frozenset()

    def __post_init__(self) -> None:
        self.left = len(self.items)
        self.answers = [None] * self.left

    @property
    def settled(self) -> bool:
        """Nobody waits for it any more: answered, failed or cancelled."""
        return self.reply.done()

    def answer(self, indices: Sequence[int], answers: Iterator[Any]) -> None:
        """Hand in the next of ``answers``, one for each of these items; the last one resolves the reply."""
        for index in indices:
            self.answers[index] = next(answers)
        self.left -= len(indices)
        if self.left == 0 and not self.reply.done():
            self.reply.set_result(self.answers)

    def fail(self, error: Exception) -> None:
        """Settle the whole job with an error."""
        if not self.reply.done():
            self.reply.set_exception(error)


Key: TypeAlias = tuple[Any, Hashable]
"""A (model, bucket): entries with equal keys may share a batch."""


@dataclass(slots=True, eq=False)
class Entry:
    """One item waiting for the device. `due` orders it, see schedule.urgency."""

    job: Job
    index: int
    key: Key
    size: int
    # Expected device seconds when it was accepted: what the queue's cost is made of.
    seconds: float
    due: float = 0.0

    @property
    def item(self) -> Any:
        return self.job.items[self.index]


DUE = attrgetter("due")
"""What a queue is ordered by."""
