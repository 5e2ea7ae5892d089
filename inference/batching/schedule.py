"""Which batch runs next: a pure function of what waits, the time and the costs.

Owns the policy. Holds no state, reads no clock and touches no device; the batcher carries out what it says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from inference.batching.costs import Costs, Line
from inference.batching.job import Entry, Key
from market_inference.contract.deadline import NEVER


@dataclass(frozen=True, slots=True)
class Budget:
    """How large a batch may get: padded units (longest item x items) and items."""

    units: int
    items: int


@dataclass(slots=True)
class Plan:
    """The first `taken` entries of queue `key` leave it: `batch` for the device, `dropped` as nobody waits for them.

    With `wait` above zero nothing leaves; ask again after so many seconds, or when something arrives.
    """

    key: Key | None = None
    batch: list[Entry] = field(default_factory=list)
    dropped: list[Entry] = field(default_factory=list)
    wait: float = 0.0

    @property
    def taken(self) -> int:
        return len(self.batch) + len(self.dropped)


def urgency(deadline: float, start: float, patience: float) -> float:
    """When an entry is due: at its deadline, or after `patience`, whichever comes first, so that nothing starves.

    `start` is when its client's fair share reaches it: now for a client with nothing waiting, later for one that has a
    backlog, which is how one client's ten thousand items stand behind another's first.
    """
    return min(deadline, start + patience)


def schedule(
    waiting: Mapping[Key, Sequence[Entry]],
    now: float,
    costs: Costs,
    budget: Budget,
    gap: float,
) -> Plan:
    """The next batch.

    `waiting` holds a queue per (model, bucket), ordered by `due`; `gap` is the mean time between arrivals in seconds.

    The queue whose head is due first wins. Its entries are taken in order until the budget is full, or until one more
    would make an entry already taken miss a deadline that it could have met.
    """
    key = min((key for key, queue in waiting.items() if queue), key=lambda key: waiting[key][0].due, default=None)
    if key is None:
        return Plan()
    plan, line = Plan(key), costs.line(key)
    batch, units = plan.batch, min(budget.units, line.ceiling)
    # A batch's end is line.seconds() from now, taken apart: this loop runs for every item of every request.
    begin, per_unit = now + line.fixed, line.per_unit
    longest, tightest = 0, NEVER
    for entry in waiting[key]:
        job, size = entry.job, entry.size
        deadline = job.deadline
        if deadline <= now or job.settled or entry.index in job.gone:
            plan.dropped.append(entry)
            continue
        # What would be late even alone must not keep the batch small, which would make the next ones late too.
        limit = NEVER if begin + per_unit * size > deadline else deadline
        longer, sooner = max(longest, size), min(tightest, limit)
        if batch:
            padded = longer * (len(batch) + 1)
            if padded > units or len(batch) == budget.items or begin + per_unit * padded > sooner:
                return plan
        batch.append(entry)
        longest, tightest = longer, sooner
    if plan.batch:
        plan.wait = delay(line, len(plan.batch), longest, gap, tightest - now)
        if plan.wait:
            plan.batch, plan.dropped = [], []
    return plan


def delay(line: Line, items: int, longest: int, gap: float, slack: float) -> float:
    """Seconds for which waiting for one more item lowers the mean latency; 0 when it does not, the common case.

    Dispatching `items` now makes the next arrival, `gap` seconds away, wait for this batch and pay the fixed cost
    again. Waiting makes everyone wait `gap`, and the batch one item longer. Adding up both sides, waiting pays when
    fixed > gap * (items + 1) + per_item * items. It must also leave the tightest deadline twice the batch's time.
    """
    per_item = line.per_unit * longest
    if line.fixed <= gap * (items + 1) + per_item * items:
        return 0.0
    if gap + 2 * line.seconds(longest * (items + 1)) > slack:
        return 0.0
    return gap
