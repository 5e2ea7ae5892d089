"""Costly panels as parts: a panel with part of the indicators is an item of a batch by itself.

Owns the split of indicator tasks by cost, the joining of the parts' answers, and the words of a panel's errors. An item
runs to its end: between the parts of a panel, the batcher serves other clients, and drops the rest after a cancel or a
deadline.
"""

from collections.abc import Iterator, Sequence, Set
from itertools import islice
from typing import Any

from market_inference.contract.errors import InvalidRequestError, ServiceError, Violation
from models.indicators import Program, Task
from models.indicators.running_sums import MOST_STARTS, SpoiltSumsError

PART_UNITS = 1 << 20
"""The largest cost of a part, some 10 ms of one CPU core. A single call may cost up to 50 ms."""


class PanelParts:
    """The parts of tasks, in order.

    `withdrawn`: indices of the tasks that no caller waits for; may grow. `places`: the index of each task's panel in
    the request, which errors name; a request with refused panels has more panels than tasks.
    """

    def __init__(self, tasks: Sequence[Task], withdrawn: Set[int], places: Sequence[int]) -> None:
        self.tasks, self.counts, self._places = tasks, [1] * len(tasks), places
        self.withdrawn = withdrawn
        longest = max((task.panel.bars for task in tasks), default=0)
        # Tasks of one request have equal programs.
        if not tasks or tasks[0].program.units(longest) <= PART_UNITS:
            return
        programs: dict[int, list[Program]] = {}
        for bars in {task.panel.bars for task in tasks}:
            programs[bars] = tasks[0].program.split(bars, PART_UNITS)
        self.counts = [len(programs[task.panel.bars]) for task in tasks]
        self.tasks = [Task(task.panel, part) for task in tasks for part in programs[task.panel.bars]]
        if len(self.tasks) > len(tasks):
            self.withdrawn = _OfParts(self.counts, withdrawn)

    def join(self, outcomes: Sequence[Any]) -> Sequence[Any]:
        """The outcomes of the tasks: the rows of all parts, or the first error."""
        if len(self.tasks) == len(self.counts):
            return [
                _spoilt_sums(place, found) if isinstance(found, SpoiltSumsError) else found
                for place, found in zip(self._places, outcomes, strict=True)
            ]
        rest = iter(outcomes)
        return [
            _joined(place, list(islice(rest, count))) for place, count in zip(self._places, self.counts, strict=True)
        ]


def _spoilt_sums(place: int, spoilt: SpoiltSumsError) -> InvalidRequestError:
    what = (
        f"varies too often by more than {spoilt.ratio:g} times between neighbouring windows (max {MOST_STARTS} times): "
        "the running sums of a requested indicator have no correct value"
    )
    return InvalidRequestError([Violation(f"panels[{place}]", what, "magnitude")])


def _joined(place: int, outcomes: Sequence[Any]) -> Any:
    for outcome in outcomes:
        if isinstance(outcome, SpoiltSumsError):
            return _spoilt_sums(place, outcome)
    if len(outcomes) == 1:
        return outcomes[0]
    error = next((outcome for outcome in outcomes if isinstance(outcome, ServiceError)), None)
    return error or [row for rows in outcomes for row in rows]


class _OfParts(Set[int]):
    """Indices of the parts of withdrawn tasks."""

    def __init__(self, counts: Sequence[int], withdrawn: Set[int]) -> None:
        self._task_of = [task for task, count in enumerate(counts) for _ in range(count)]
        self._withdrawn = withdrawn

    def __contains__(self, part: object) -> bool:
        return isinstance(part, int) and self._task_of[part] in self._withdrawn

    def __iter__(self) -> Iterator[int]:
        return (part for part, task in enumerate(self._task_of) if task in self._withdrawn)

    def __len__(self) -> int:
        return sum(1 for _ in self)
