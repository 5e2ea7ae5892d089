"""Jobs to batches on one engine, and outcomes back to jobs.

Owns the queues, admission and the delivery of outcomes, all on the event loop. schedule.py decides which batch runs
next, shares.py keeps the clients' fair shares, the engine runs the batch.
"""

import asyncio
import logging
import math
from bisect import insort
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from itertools import groupby, repeat
from numbers import Real
from operator import attrgetter
from typing import Any, Protocol

from inference.batching.costs import SMALL_SECONDS, SURPRISE, TRUSTED_BATCHES, Costs
from inference.batching.job import DUE, PATIENCE, BatchBounds, BatchResult, Entry, Job, Key
from inference.batching.schedule import BatchPlan, schedule, urgency
from inference.batching.shares import Shares
from market_inference.contract.deadline import now
from market_inference.contract.errors import (
    CallCancelledError,
    DeadlineExceededError,
    InternalError,
    OverloadedError,
    ServiceUnavailableError,
)
from runtime.company import Company
from runtime.foreign import contained

log = logging.getLogger(__name__)

# The share of a request's remaining time that the queue and the device may use. The rest covers the way back and the
# error of the estimate.
DEADLINE_SHARE = 0.7
# Bound and gain of the estimate of how much later than expected jobs complete.
MOST_LATENESS = 8.0
LATENESS_GAIN = 0.05
# Items alike of one job are one entry of the queue, of at most so many expected seconds: other clients' items wait no
# longer for the whole entry.
RUN_SECONDS = 0.005
# Bound of the first slice of a batch if all of its items are of the costliest kind: so many times the batch's bound.
WORST_SLICE = 2.5
# The part of each client in the bound of a batch while several clients call.
SHARE_SECONDS = 0.005
# A smaller excess over the estimate does not change the order of a queue.
_LEAST_CHARGE_SECONDS = 0.005

# Bounds of the time after which a refused client should try again.
_RETRY_SECONDS = (0.05, 10.0)
# A job is hopeless if measured costs say that the job takes so many times longer than its caller waits.
_HOPELESS = 4.0

# An interval between arrivals above this bound does not predict the next arrival.
_LONGEST_GAP = 1.0

_JOB = attrgetter("job")


class Runner(Protocol):
    """The part of an engine that the batcher uses. An engine may import torch; the batcher never does."""

    def run(
        self, model: Any, items: Sequence[Any], done: Callable[[BatchResult], None], *, first: int, seconds: float
    ) -> None:
        """Run a batch on the device's thread and call `done` on the event loop.

        The first slice has `first` items. After `seconds` no further slice begins.
        """
        ...


class Observer(Protocol):
    """Receives the events of one engine's queue, for metrics and traces."""

    def batch(self, plan: BatchPlan, result: BatchResult, units: int) -> None: ...
    def refused(self, reason: str) -> None: ...
    def dropped(self, count: int) -> None: ...


class Waiting(Protocol):
    """A caller: Job and inference.calls.call.ReplicaCall have these fields."""

    @property
    def client(self) -> str: ...
    @property
    def priority(self) -> str: ...
    @property
    def deadline(self) -> float: ...


class Batcher:
    """One engine's queues. Every method is called on the event loop's thread.

    `stuck_seconds`: an engine whose batch runs longer is stuck. A stuck engine's jobs fail, and new jobs are refused,
    until the batch ends.
    """

    def __init__(
        self,
        runner: Runner,
        observer: Observer,
        *,
        budget: BatchBounds,
        max_queued_seconds: float,
        stuck_seconds: float = math.inf,
        name: str = "",
        costs: Costs | None = None,
    ) -> None:
        self._runner = runner
        self._observer = observer
        self._budget = budget
        self._max_queued = max_queued_seconds
        self._stuck_seconds = stuck_seconds
        self.name = name
        self.costs = costs or Costs()
        self.shares = Shares()
        self._waiting: defaultdict[Key, list[Entry]] = defaultdict(list)
        self._queued_items = 0
        # Upper bound of the queued entries whose job was withdrawn.
        self._stale_items = 0
        # Running average of (seconds until completion) / (expected seconds), at least 1.
        self._lateness = 1.0
        self._running: BatchPlan | None = None
        self._running_until = 0.0
        self._watchdog: asyncio.TimerHandle | None = None
        self.stuck = False
        # Called when `stuck` changes.
        self.on_stuck: Callable[[], object] = lambda: None
        # Whether a dispatch is due in this loop turn, and the timer of a dispatch waiting for an arrival.
        self._dispatch_due = False
        self._delayed: asyncio.TimerHandle | None = None
        self._last_arrival = 0.0
        self._gap = _LONGEST_GAP
        self._company = Company()

    @property
    def queued_items(self) -> int:
        return self._queued_items

    def learn_warm_up(self, model: Any, items: Sequence[Any], seconds: float) -> None:
        """Learn the cost of a model from a batch of its warm-up."""
        with contained:
            units = _checked_units(model, max(map(model.units, items))) * len(items)
            self.costs.learn_warm_up((model, model.bucket(items[0])), units, seconds)

    def queued_seconds(self, at: float) -> float:
        """Expected seconds until the device has run everything that was admitted."""
        return self.shares.total + self._running_seconds(at)

    def _running_seconds(self, at: float) -> float:
        return max(0.0, self._running_until - at) if self._running else 0.0

    def submit(self, job: Job, entries: Sequence[Entry] | None = None) -> None:
        """Admit a job, whose reply resolves later. `entries`: those of entries(), where they are known already.

        Raises OverloadedError, DeadlineExceededError, or ServiceUnavailableError if the engine is stuck.
        """
        at = now()
        entries = entries or self.entries(job)
        seconds = sum([entry.expected_seconds for entry in entries])
        if all(self.costs.line(key).measured >= TRUSTED_BATCHES for key in {entry.key for entry in entries}):
            self._refuse_hopeless(seconds, job.deadline, at)
        self._admit(job, seconds, at)
        job.enqueued, job.queued_seconds = at, seconds
        start = self.shares.add(job.client, job.priority, seconds, at)
        deadline, patience = job.deadline, PATIENCE[job.priority]
        for entry in entries:
            entry.start = start
            start += entry.expected_seconds
            entry.due = urgency(deadline, start, patience)
            queue = self._waiting[entry.key]
            # The new entry is usually the last in order.
            if not queue or queue[-1].due <= entry.due:
                queue.append(entry)
            else:
                insort(queue, entry, key=DUE)
        self._queued_items += len(job.items)
        self._company.note(job.client, at, others=not self.shares.alone(job.client))
        self._note_arrival(at)
        if not self._running:
            self._dispatch_soon()

    def withdraw(self, job: Job) -> None:
        """Free the queue of a cancelled job at once. Running items of the job run to the end."""
        self.shares.remove(job.client, job.priority, job.queued_seconds)
        self.shares.correct(job.client, -job.queued_seconds)
        job.queued_seconds = 0.0
        self._stale_items += job.remaining
        if 2 * self._stale_items >= self._queued_items:
            self._purge()

    def _purge(self) -> None:
        """Drop the entries of all jobs that are done. The cost per withdrawn entry is constant on average."""
        self._stale_items = 0
        for key, queue in tuple(self._waiting.items()):
            kept = [entry for entry in queue if not entry.job.done]
            if dropped := sum(entry.count for entry in queue if entry.job.done):
                self._replace(key, kept)
                self._queued_items -= dropped
                self._observer.dropped(dropped)

    def _replace(self, key: Key, queue: list[Entry]) -> None:
        if queue:
            self._waiting[key] = queue
        else:
            self._waiting.pop(key, None)

    def entries(self, job: Job) -> list[Entry]:
        """The entries of a job that is not admitted yet."""
        with contained:
            return self._alike(job) if job.alike else self._each(job)

    def _alike(self, job: Job) -> list[Entry]:
        model, budget, first = job.model, self._budget, job.items[0]
        key, units = (model, model.bucket(first)), _checked_units(model, model.units(first))
        seconds, items = self.costs.share(key, units, budget), len(job.items)
        bounds = ((budget.units, units), (self.costs.line(key).ceiling, units), (RUN_SECONDS, seconds))
        run = max(1, int(min(budget.items, *(most / one for most, one in bounds if one))))
        counts = [(index, min(run, items - index)) for index in range(0, items, run)]
        return [Entry(job, index, key, units, seconds * count, count=count) for index, count in counts]

    def _each(self, job: Job) -> list[Entry]:
        model, budget, entries = job.model, self._budget, []
        # Few estimates serve all items.
        known: dict[tuple[Hashable, int], tuple[Key, float]] = {}
        for index, item in enumerate(job.items):
            kind = bucket, units = model.bucket(item), model.units(item)
            if kind not in known:
                key = model, bucket
                known[kind] = key, self.costs.share(key, _checked_units(model, units), budget)
            key, seconds = known[kind]
            entries.append(Entry(job, index, key, units, seconds))
        return entries

    def _refuse_hopeless(self, seconds: float, deadline: float, at: float) -> None:
        """Refuse work that takes far longer than its caller waits, even on an idle engine."""
        if seconds > _HOPELESS * (deadline - at):
            self._observer.refused("deadline")
            raise DeadlineExceededError(
                f"the request takes about {_shown(seconds)} s of an idle engine, and {_shown(deadline - at)} s are "
                "left: send fewer items at once, or allow more time"
            )

    def _admit(self, job: Job, seconds: float, at: float) -> None:
        if job.deadline <= at:
            raise DeadlineExceededError("the deadline had passed before the request reached the queue")
        job.expected_seconds = self.check_room(job.client, job.priority, job.deadline, seconds)

    def check_room(self, client: str, priority: str, deadline: float, seconds: float) -> float:
        """The expected seconds until new work of `seconds` is done.

        Raises OverloadedError or ServiceUnavailableError where submit() would refuse the work.
        """
        if self.stuck:
            self._observer.refused("stuck")
            raise self._stuck_error()
        at = now()
        running = max(0.0, self._running_until - at) if self._running else 0.0
        ahead = running + self.shares.ahead(client, priority, seconds) if self._queued_items else running
        # An idle engine takes any work: no measurement would ever correct an estimate that is too high otherwise.
        if not ahead:
            return seconds
        room = self._max_queued - running - seconds
        if self.shares.total > room and not self.shares.fits(client, priority, seconds, running, self._max_queued):
            self._observer.refused("queue_full")
            raise OverloadedError(
                f"the queue is full ({self.queued_seconds(at):.2f} s of work waiting, max {self._max_queued:.2f} s)",
                # A client that asks for more than a queue holds waits as long as one that has filled the queue.
                retry_after=_retry_after(max(ahead, min(seconds, self._max_queued)) / 2),
            )
        likely = (ahead + seconds) * self._lateness
        if likely > (deadline - at) * DEADLINE_SHARE:
            self._observer.refused("deadline")
            raise OverloadedError(
                f"cannot be answered in time (expected to take {likely:.3f} s, {deadline - at:.3f} s left)",
                retry_after=_retry_after(ahead),
            )
        return ahead + seconds

    def check_early(self, model: Any, item: Any, count: int, job: Waiting) -> None:
        """Refuse a job of `count` items, of which `item` is the largest, before anything is spent on its parts.

        Raises what submit() would raise. A kind of item with few measured batches passes.
        """
        key = model, model.bucket(item)
        if self.costs.line(key).measured >= TRUSTED_BATCHES:
            self._check_seconds(count * self.costs.share(key, model.units(item), self._budget), job)

    def check_units(self, model: Any, units: float, job: Waiting) -> None:
        """Refuse a job of about so many units at the lowest rate of the model, before its items are known.

        Raises what submit() would raise.
        """
        self._check_seconds(units * self.costs.lowest_rate(model), job)

    def _check_seconds(self, seconds: float, job: Waiting) -> None:
        self._refuse_hopeless(seconds, job.deadline, now())
        self.check_room(job.client, job.priority, job.deadline, seconds)

    def _note_arrival(self, at: float) -> None:
        gap = min(at - self._last_arrival, _LONGEST_GAP)
        self._gap += 0.05 * (gap - self._gap)
        self._last_arrival = at

    def _next_arrival(self, at: float) -> float:
        """Seconds until the next expected arrival; infinite for an overdue one, so that no batch waits for it."""
        remaining = self._last_arrival + self._gap - at
        return remaining if remaining > 0 else math.inf

    def _dispatch_soon(self) -> None:
        """Dispatch after every request of this loop turn was submitted, so that they share a batch."""
        if not self._dispatch_due:
            self._dispatch_due = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._dispatch_due = False
        if self._delayed is not None:
            self._delayed.cancel()
            self._delayed = None
        while self._running is None:
            at = now()
            budget = self._present_budget(at)
            plan = schedule(self._waiting, at, self.costs, budget, self._next_arrival(at))
            if plan.wait:
                self._delayed = asyncio.get_running_loop().call_later(plan.wait, self._dispatch)
                return
            if not plan.taken:
                return
            self._remove(plan)
            if plan.batch:
                self._run(plan, budget.seconds)

    def _present_budget(self, at: float) -> BatchBounds:
        """The bounds of the next batch. Several clients: the next call of another one waits for a short batch only."""
        if at >= self._company.until:
            return self._budget
        seconds = SHARE_SECONDS * max(2, self.shares.clients)
        return self._budget if seconds >= self._budget.seconds else replace(self._budget, seconds=seconds)

    def _remove(self, plan: BatchPlan) -> None:
        """Take the plan's entries out of the queue, and complete the dropped entries."""
        key = (plan.batch or plan.dropped)[0].key
        queue = self._waiting[key]
        self._replace(key, queue[plan.taken :])
        self._queued_items -= sum([entry.count for entry in queue[: plan.taken]])
        for job, entries in groupby(queue[: plan.taken], _JOB):
            seconds = min(job.queued_seconds, sum([entry.expected_seconds for entry in entries]))
            job.queued_seconds -= seconds
            self.shares.remove(job.client, job.priority, seconds)
        if any(entry.count > 1 and entry.job.withdrawn for entry in plan.batch):
            parts = [part for entry in plan.batch for part in entry.parts()]
            plan.batch = [part for part in parts if not part.withdrawn]
            plan.dropped += [part for part in parts if part.withdrawn]
        at = now()
        for entry in plan.dropped:
            job = entry.job
            if entry.withdrawn and job.deadline > at:
                job.complete(entry.indices, repeat(CallCancelledError("the call of this item was cancelled")))
                continue
            if not job.done:
                self._learn_lateness(job, at)
            job.fail(DeadlineExceededError("the deadline passed while the request was waiting"))
        if plan.dropped:
            self._observer.dropped(sum(entry.count for entry in plan.dropped))

    def _run(self, plan: BatchPlan, seconds: float) -> None:
        key, longest, items = plan.batch[0].key, max([entry.units for entry in plan.batch]), plan.items
        at = now()
        self.shares.serve(plan.batch[0].start, at)
        for job, _ in groupby(plan.batch, _JOB):
            job.started = job.started or at
        line = self.costs.line(key)
        first = int(self.costs.bounded_units(key, seconds, WORST_SLICE * seconds) / longest)
        self._running = plan
        expected = line.seconds(longest * items)
        self._running_until = at + expected
        if self._stuck_seconds < math.inf:
            self._watchdog = asyncio.get_running_loop().call_later(self._stuck_seconds, self._declare_stuck)
        self._runner.run(
            key[0],
            [item for entry in plan.batch for item in entry.job.items[entry.index : entry.index + entry.count]],
            lambda result: self._deliver(plan, longest, expected, result),
            first=max(1, first),
            seconds=seconds + line.fixed,
        )

    def _deliver(self, plan: BatchPlan, longest: int, expected: float, result: BatchResult) -> None:
        self._running = None
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None
        ran, items = len(result.outcomes), plan.items
        if ran < items:
            expected *= ran / items
            plan.batch, rest = _divided(plan.batch, ran)
            self._put_back(rest)
        self._learn(plan, longest, expected, result)
        outcomes, seconds = iter(result.outcomes), result.ended - result.started
        for job, entries in groupby(plan.batch, _JOB):
            indices = [index for entry in entries for index in entry.indices]
            job.device_began = job.device_began or result.started
            job.device_ended = result.ended
            job.device_seconds += seconds * len(indices) / ran
            job.batch_items = max(job.batch_items, ran)
            job.complete(indices, outcomes)
            if job.remaining == 0:
                self._learn_lateness(job, result.ended)
        if result.fitted is not None:
            self.costs.line(plan.batch[0].key).ceiling = result.fitted * longest
        self._observer.batch(plan, result, longest * ran)
        if self.stuck:
            self._recover()
        self._dispatch()

    def _put_back(self, entries: Sequence[Entry]) -> None:
        """Return entries to the head of the queue if the batch's time was used up before the entries ran."""
        queue = self._waiting[entries[0].key]
        queue[:0] = entries
        queue.sort(key=DUE)
        self._queued_items += sum(entry.count for entry in entries)
        for job, group in groupby(entries, _JOB):
            if not job.done:
                seconds = sum(entry.expected_seconds for entry in group)
                job.queued_seconds += seconds
                self.shares.put_back(job.client, job.priority, seconds)

    def _learn(self, plan: BatchPlan, longest: int, expected: float, result: BatchResult) -> None:
        """Learn from a batch's run time. A batch that took longer than expected delays its clients' waiting entries."""
        key, count, seconds = plan.batch[0].key, plan.items, result.busy
        self.costs.learn(key, longest * count, seconds)
        if not expected or (seconds > SMALL_SECONDS and seconds > SURPRISE * expected):
            self._estimate_again(key)
        elif (real := result.ended - result.started) > SMALL_SECONDS:
            # Deadlines and turns are instants of real time: fair shares count the real time of a batch.
            self._charge(plan.batch, real / count)

    def _charge(self, entries: Sequence[Entry], seconds: float) -> None:
        """Charge clients for items that took `seconds` each, and delay the clients' entries of the same queue."""
        extra: defaultdict[str, float] = defaultdict(float)
        for entry in entries:
            extra[entry.job.client] += seconds * entry.count - entry.expected_seconds
        for client, change in extra.items():
            self.shares.correct(client, max(0.0, change))
        queue = self._waiting.get(entries[0].key)
        if not queue or max(extra.values()) < _LEAST_CHARGE_SECONDS:
            return
        for entry in queue:
            change = extra.get(entry.job.client, 0.0)
            if change > 0:
                entry.start += change
                finish = entry.start + entry.expected_seconds
                entry.due = urgency(entry.job.deadline, finish, PATIENCE[entry.job.priority])
        queue.sort(key=DUE)

    def _estimate_again(self, key: Key) -> None:
        """Estimate the waiting entries of a queue anew, and order the queue by the clients' new shares."""
        queue = self._waiting.get(key)
        if not queue:
            return
        at, started = self.shares.clock(now()), dict[str, float]()
        for entry in queue:
            job = entry.job
            if job.done:
                continue
            seconds = self.costs.share(key, entry.units, self._budget) * entry.count
            change, entry.expected_seconds = seconds - entry.expected_seconds, seconds
            job.queued_seconds += change
            self.shares.put_back(job.client, job.priority, change)
            start = started.get(job.client, at)
            entry.start, entry.due = start, urgency(job.deadline, start + seconds, PATIENCE[job.priority])
            started[job.client] = start + seconds
        for client, finish in started.items():
            self.shares.restart(client, finish)
        queue.sort(key=DUE)

    def _learn_lateness(self, job: Job, at: float) -> None:
        """Compare the end of a job, completed or dropped, with the estimate, so that admission stays correct."""
        if job.expected_seconds > SMALL_SECONDS:
            seen = min(MOST_LATENESS, max(1.0, (at - job.enqueued) / job.expected_seconds))
        elif at - job.enqueued <= SMALL_SECONDS:
            seen = 1.0  # too small to measure lateness by, and in time
        else:
            return
        self._lateness += LATENESS_GAIN * (seen - self._lateness)

    def _declare_stuck(self) -> None:
        """Fail every job: the batch on the device has run for `stuck_seconds`."""
        self._watchdog = None
        self.stuck = True
        log.error("engine stuck", extra={"fields": {"engine": self.name, "seconds": self._stuck_seconds}})
        for entry in self._running.batch if self._running else ():
            entry.job.fail(self._stuck_error())
        self._fail_waiting(self._stuck_error())
        self.on_stuck()

    def _recover(self) -> None:
        self.stuck = False
        log.warning("engine runs again", extra={"fields": {"engine": self.name}})
        self.on_stuck()

    def _stuck_error(self) -> ServiceUnavailableError:
        return ServiceUnavailableError(
            f"the {self.name or 'model'} engine is stuck: its batch has run for over {self._stuck_seconds:g} s",
            retry_after=1.0,
        )

    def _fail_waiting(self, error: Exception) -> None:
        for queue in self._waiting.values():
            for entry in queue:
                entry.job.fail(error)
        self._waiting.clear()
        self._queued_items = 0
        self.shares.clear()

    def close(self) -> None:
        """Fail every waiting job. The outcomes of the batch that runs are delivered."""
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None
        self._fail_waiting(CallCancelledError("the service is stopping"))


def _checked_units(model: Any, units: Any) -> Any:
    """An item's units. Raises InternalError for a size that no queue can order or bound."""
    is_number = isinstance(units, Real)
    if not (is_number and 0 < units < math.inf):
        raise InternalError(f"the model {model.name!r} gave no size of this item (units: {units!r})")
    return units


def _divided(batch: Sequence[Entry], items: int) -> tuple[list[Entry], list[Entry]]:
    """The entries of the first `items` items of a batch, and those of the others."""
    done: list[Entry] = []
    for place, entry in enumerate(batch):
        if not items:
            return done, list(batch[place:])
        if entry.count > items:
            rest = entry.without(items)
            entry.count, entry.expected_seconds = items, entry.expected_seconds - rest.expected_seconds
            return [*done, entry], [rest, *batch[place + 1 :]]
        items -= entry.count
        done.append(entry)
    return done, []


def _shown(seconds: float) -> str:
    """Seconds with two digits at least: 3000, 12, 0.06."""
    return f"{seconds:.0f}" if seconds >= 10 else f"{max(seconds, 0.0):.2g}"


def _retry_after(seconds: float) -> float:
    """A useful time until the next try: a queue of minutes empties earlier, with the deadlines of its callers."""
    least, most = _RETRY_SECONDS
    return min(max(seconds, least), most)
