"""Which batch runs next: a pure function of the waiting entries, the time and the costs.

Owns the batching policy. Holds no state, reads no clock and touches no device; the batcher carries the plan out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from inference.batching.costs import Costs, Line
from inference.batching.job import BatchBounds, Entry, Key
from market_inference.contract.deadline import NEVER


@dataclass(slots=True)
class BatchPlan:
    """The first `taken` entries leave queue `key`: `batch` for the device, `dropped` because no caller waits for them.

    If `wait` is above zero no entry leaves; schedule again after `wait` seconds or at the next arrival.
    """

    key: Key | None = None
    batch: list[Entry] = field(default_factory=list)
    dropped: list[Entry] = field(default_factory=list)
    wait: float = 0.0

    @property
    def taken(self) -> int:
        return len(self.batch) + len(self.dropped)

    @property
    def items(self) -> int:
        """Items of the batch."""
        return sum([entry.count for entry in self.batch])


def urgency(deadline: float, finish: float, patience: float) -> float:
    """The instant at which an entry is due: its deadline or `finish + patience`, whichever comes first.

    `finish` is the instant at which the client's fair share has served the entry, see shares.py: of entries of several
    clients whose turn begins at once, the shortest runs first.
    """
    return min(deadline, finish + patience)


def schedule(
    waiting: Mapping[Key, Sequence[Entry]],
    now: float,
    costs: Costs,
    budget: BatchBounds,
    gap: float,
) -> BatchPlan:
    """The next batch.

    `waiting` holds a queue per (model, bucket), ordered by `due`; `gap` is the mean time between arrivals in seconds.

    The queue with the earliest due head is served. Entries join the batch in order until the budget is full, or until
    one more entry would make an entry of the batch miss a deadline that the entry could meet.
    """
    key = min((key for key, queue in waiting.items() if queue), key=lambda key: waiting[key][0].due, default=None)
    if key is None:
        return BatchPlan()
    plan, line = BatchPlan(key), costs.line(key)
    # The batch ends line.seconds() from now, computed inline: this loop runs for every item of every request.
    begin, per_unit = now + line.fixed, line.per_unit
    batch, units = plan.batch, min(budget.units, line.ceiling, budget.seconds / per_unit if per_unit else NEVER)
    longest, tightest, items = 0, NEVER, 0
    for entry in waiting[key]:
        job, size = entry.job, entry.units
        deadline = job.deadline
        if deadline <= now or job.done or entry.withdrawn:
            plan.dropped.append(entry)
            continue
        # An entry that is late even alone must not keep the batch small: a small batch makes the next entries late.
        limit = NEVER if begin + per_unit * size * entry.count > deadline else deadline
        longer, sooner, more = max(longest, size), min(tightest, limit), items + entry.count
        if batch:
            padded = longer * more
            if padded > units or more > budget.items or begin + per_unit * padded > sooner:
                return plan
        batch.append(entry)
        longest, tightest, items = longer, sooner, more
    if plan.batch:
        plan.wait = delay(line, items, longest, gap, tightest - now)
        if plan.wait:
            plan.batch, plan.dropped = [], []
    return plan


def delay(line: Line, items: int, longest: int, gap: float, slack: float) -> float:
    """Seconds for which waiting for one more item lowers the mean latency; 0, the common case, when waiting does not.

    If `items` run now, the next arrival, `gap` seconds away, waits for this batch and pays the fixed cost again. If
    they wait, every item waits `gap`, and the batch runs one item longer. Adding up both sides, waiting pays when
    fixed > gap * (items + 1) + per_item * items. Waiting must also leave the tightest deadline twice the batch's time.
    """
    per_item = line.per_unit * longest
    if line.fixed <= gap * (items + 1) + per_item * items:
        return 0.0
    if gap + 2 * line.seconds(longest * (items + 1)) > slack:
        return 0.0
    return gap
