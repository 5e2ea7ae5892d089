"""Turns submitted jobs into batches on one engine.

Owns the waiting queues, admission and delivery, all on the event loop. What runs next is schedule's decision, how it
runs is the engine's.
"""

import asyncio
import math
from bisect import insort
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, Protocol

from inference.batching.costs import Costs, Line
from inference.batching.job import DUE, PATIENCE, Entry, Job, Key
from inference.batching.schedule import Budget, Plan, schedule, urgency
from market_inference.contract.deadline import now
from market_inference.contract.errors import CallCancelledError, DeadlineExceededError, OverloadedError

# Of a request's time left, what may be spent here: the rest is for the way back, and for the error of the estimate.
DEADLINE_SHARE = 0.7
# How much later than estimated answers may be believed to come, and how fast that belief follows them.
MOST_LATENESS = 8.0
LATENESS_GAIN = 0.05
# Below this an estimate's error is the clock's and the scheduler's, and says nothing of the queue.
SMALL_ESTIMATE_SECONDS = 0.02

# Arrivals further apart than this say nothing about the next one.
_LONGEST_GAP = 1.0

# A batch's entries by job: those of one mostly stand together, and share its bookkeeping.
_JOB = attrgetter("job")


class Ran(Protocol):
    """A batch that has run."""

    # An answer or an exception per item.
    answers: Sequence[Any]
    started: float
    ended: float
    # Items that fit the device's memory at once, when the whole batch did not; else None.
    fitted: int | None
    oom_recoveries: int


class Runner(Protocol):
    """What the batcher needs of an engine: run a batch elsewhere and call back on the event loop."""

    def run(self, model: Any, items: Sequence[Any], done: Callable[[Ran], None]) -> None: ...


class Observer(Protocol):
    """Told what happens, for metrics."""

    def batch(self, plan: Plan, ran: Ran, units: int) -> None: ...
    def refused(self, reason: str) -> None: ...
    def dropped(self, count: int) -> None: ...


class Batcher:
    """One engine's queues. Every method is called on the event loop's thread."""

    def __init__(self, runner: Runner, observer: Observer, *, budget: Budget, max_queued_seconds: float) -> None:
        self._runner = runner
        self._observer = observer
        self._budget = budget
        self._max_queued = max_queued_seconds
        self.costs = Costs()
        self._waiting: defaultdict[Key, list[Entry]] = defaultdict(list)
        self._finish: dict[str, float] = {}
        # Expected seconds of what waits, by priority.
        self._queued = dict.fromkeys(PATIENCE, 0.0)
        self._queued_items = 0
        # How many times longer than estimated answers take, of late.
        self._lateness = 1.0
        self._running_until = 0.0
        self._running = False
        # Whether to schedule in this loop turn, and the timer of one that waits.
        self._asked = False
        self._later: asyncio.TimerHandle | None = None
        self._last_arrival = 0.0
        self._gap = _LONGEST_GAP

    @property
    def queued_items(self) -> int:
        return self._queued_items

    def queued_seconds(self, at: float) -> float:
        """Expected seconds until the device is free of everything accepted so far."""
        return sum(self._queued.values()) + self._running_seconds(at)

    def _running_seconds(self, at: float) -> float:
        return max(0.0, self._running_until - at) if self._running else 0.0

    def submit(self, job: Job) -> None:
        """Accept a job, or refuse it at once with OverloadedError or DeadlineExceededError. Its reply then resolves."""
        at = now()
        entries = self._entries(job)
        seconds = sum(entry.seconds for entry in entries)
        self._admit(job, seconds, at)
        job.enqueued = at
        self._share(job, entries, at)
        for entry in entries:
            queue = self._waiting[entry.key]
            # Mostly it is the last in order.
            if not queue or queue[-1].due <= entry.due:
                queue.append(entry)
            else:
                insort(queue, entry, key=DUE)
        self._queued_items += len(entries)
        self._queued[job.priority] += seconds
        self._note_arrival(at)
        if not self._running:
            self._ask_soon()

    def _entries(self, job: Job) -> list[Entry]:
        model, entries = job.model, []
        # Most items of a job are alike, so that few estimates serve them all.
        known: dict[tuple[Hashable, int], tuple[Key, float]] = {}
        for index, item in enumerate(job.items):
            kind = bucket, size = model.bucket(item), model.units(item)
            if kind not in known:
                key = model, bucket
                known[kind] = key, self._share_of_a_batch(self.costs.line(key), size)
            key, seconds = known[kind]
            entries.append(Entry(job, index, key, size, seconds))
        return entries

    def _share_of_a_batch(self, line: Line, size: int) -> float:
        """An item's expected seconds under load: its own, and its part of a full batch's fixed cost."""
        return line.per_unit * size + line.fixed * max(size / self._budget.units, 1 / self._budget.items)

    def _admit(self, job: Job, seconds: float, at: float) -> None:
        if job.deadline <= at:
            raise DeadlineExceededError("the deadline had passed before the request reached the queue")
        ahead = self._ahead(job.priority, at)
        job.expected = ahead + seconds
        self._check_room(ahead, seconds, job.deadline, at)

    def check_room(self, priority: str, deadline: float) -> None:
        """Refuse what submit() would refuse whatever it asks for, before work is spent on preparing it.

        Raises OverloadedError.
        """
        at = now()
        self._check_room(self._ahead(priority, at), 0.0, deadline, at)

    def _ahead(self, priority: str, at: float) -> float:
        """Seconds of work before new work's turn. Interactive work does not wait for batch work."""
        return self.queued_seconds(at) - (self._queued["batch"] if priority == "interactive" else 0.0)

    def _check_room(self, ahead: float, seconds: float, deadline: float, at: float) -> None:
        if ahead + seconds > self._max_queued and ahead > 0:
            self._observer.refused("queue_full")
            raise OverloadedError(
                f"the queue is full ({ahead:.2f} s of work waiting, max {self._max_queued:.2f} s)",
                retry_after=ahead / 2,
            )
        # An idle engine always takes work: were its estimate too high, nothing else would ever correct it.
        likely = (ahead + seconds) * self._lateness
        if ahead and likely > (deadline - at) * DEADLINE_SHARE:
            self._observer.refused("deadline")
            raise OverloadedError(
                f"cannot be answered in time (expected to take {likely:.3f} s, {deadline - at:.3f} s left)",
                retry_after=ahead,
            )

    def _share(self, job: Job, entries: Sequence[Entry], at: float) -> None:
        """Start-time fair queueing (Goyal, Vin, Cheng 1996): a client's next item starts where its last one ended."""
        start = max(at, self._finish.get(job.client, 0.0))
        deadline, patience = job.deadline, PATIENCE[job.priority]
        for entry in entries:
            entry.due = urgency(deadline, start, patience)
            start += entry.seconds
        self._finish[job.client] = start
        if len(self._finish) > 4096:
            self._finish = {client: finish for client, finish in self._finish.items() if finish > at}

    def _note_arrival(self, at: float) -> None:
        gap = min(at - self._last_arrival, _LONGEST_GAP)
        self._gap += 0.05 * (gap - self._gap)
        self._last_arrival = at

    def _next_arrival(self, at: float) -> float:
        """Seconds until the next arrival is expected; one that is overdue is not waited for, lest all wait for ever."""
        left = self._last_arrival + self._gap - at
        return left if left > 0 else math.inf

    def _ask_soon(self) -> None:
        """Schedule after everything that is ready in this loop turn has been submitted, so that it shares a batch."""
        if not self._asked:
            self._asked = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._asked = False
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if self._running:
            return
        while True:
            at = now()
            plan = schedule(self._waiting, at, self.costs, self._budget, self._next_arrival(at))
            if plan.wait:
                self._later = asyncio.get_running_loop().call_later(plan.wait, self._dispatch)
                return
            if not plan.taken:
                return
            self._remove(plan)
            if plan.batch:
                self._run(plan)
                return

    def _remove(self, plan: Plan) -> None:
        key = (plan.batch or plan.dropped)[0].key
        queue = self._waiting[key]
        left = queue[plan.taken :]
        if left:
            self._waiting[key] = left
        else:
            del self._waiting[key]
        self._queued_items -= plan.taken
        for entry in queue[: plan.taken]:
            self._queued[entry.job.priority] -= entry.seconds
        if not self._queued_items:
            self._queued = dict.fromkeys(PATIENCE, 0.0)  # sheds the rounding
        at = now()
        for entry in plan.dropped:
            job = entry.job
            if entry.index in job.gone and job.deadline > at:
                job.answer([entry.index], iter([CallCancelledError("nobody waits for this item")]))
                continue
            if not job.settled:
                self._learn_lateness(job, at)
            job.fail(DeadlineExceededError("the deadline passed while the request was waiting"))
        if plan.dropped:
            self._observer.dropped(len(plan.dropped))

    def _run(self, plan: Plan) -> None:
        units = max(entry.size for entry in plan.batch) * len(plan.batch)
        at = now()
        for job, _ in groupby(plan.batch, _JOB):
            job.started = job.started or at
        self._running = True
        self._running_until = at + self.costs.line(plan.batch[0].key).seconds(units)
        model = plan.batch[0].job.model
        self._runner.run(model, [entry.item for entry in plan.batch], lambda ran: self._deliver(plan, ran, units))

    def _deliver(self, plan: Plan, ran: Ran, units: int) -> None:
        seconds = ran.ended - ran.started
        line = self.costs.line(plan.batch[0].key)
        line.learn(units, seconds)
        size, answers = len(plan.batch), iter(ran.answers)
        for job, entries in groupby(plan.batch, _JOB):
            indices = [entry.index for entry in entries]
            job.device_began = job.device_began or ran.started
            job.device_ended = ran.ended
            job.device_seconds += seconds * len(indices) / size
            job.batch_items = max(job.batch_items, size)
            job.answer(indices, answers)
            if job.left == 0:
                self._learn_lateness(job, ran.ended)
        if ran.fitted is not None:
            line.ceiling = ran.fitted * max(entry.size for entry in plan.batch)
        self._running = False
        self._observer.batch(plan, ran, units)
        self._dispatch()

    def _learn_lateness(self, job: Job, at: float) -> None:
        """Compare a job's end, or its being given up, with what was expected, so that admission stays honest."""
        if job.expected > SMALL_ESTIMATE_SECONDS:
            seen = min(MOST_LATENESS, max(1.0, (at - job.enqueued) / job.expected))
        elif at - job.enqueued <= SMALL_ESTIMATE_SECONDS:
            seen = 1.0  # too small to measure lateness by, yet in time
        else:
            return
        self._lateness += LATENESS_GAIN * (seen - self._lateness)

    def close(self) -> None:
        """Fail everything that still waits; what runs on the device is delivered."""
        for queue in self._waiting.values():
            for entry in queue:
                entry.job.fail(CallCancelledError("the service is stopping"))
        self._waiting.clear()
        self._queued_items, self._queued = 0, dict.fromkeys(PATIENCE, 0.0)
