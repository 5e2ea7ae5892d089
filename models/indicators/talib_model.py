"""Indicators by TA-Lib, one panel after another: the model for CPUs.

Owns the model interface for the batcher. The computation is in plan.py.
"""

from collections.abc import Hashable, Sequence
from itertools import groupby
from operator import attrgetter

from models.indicators import library, selftest
from models.indicators.answer import Answer
from models.indicators.panel import Panel
from models.indicators.plan import Plan, Plans
from models.indicators.program import Task
from models.indicators.running_sums import SpoiltSumsError

_PLAN_BYTES = 16 * 2**20


def run(plan: Plan, panel: Panel) -> Answer | SpoiltSumsError:
    """The answer for a panel, or the error of the panel."""
    try:
        return plan.run(panel)
    except SpoiltSumsError as error:
        return error


class TALibModel:
    """TA-Lib's C functions, one panel after another, on the calling thread of run()."""

    name = "ta-lib"
    version = library.VERSION
    fresh_answers = True

    def __init__(self) -> None:
        self._plans = Plans(_PLAN_BYTES)

    def bucket(self, item: Task) -> Hashable:
        """The length class, so that long panels do not delay short panels. Equal programs bring no gain here."""
        return item.panel.bars.bit_length()

    def units(self, item: Task) -> int:
        """The cost of the program over the panel, see price.py."""
        return item.program.units(item.panel.bars)

    def run(self, items: Sequence[Task]) -> list[Answer | SpoiltSumsError]:
        """One answer, or error, per task. No answer depends on other tasks."""
        answers: list[Answer | SpoiltSumsError] = []
        for program, alike in groupby(items, attrgetter("program")):
            panels = [item.panel for item in alike]
            plan = self._plans.of(program, max([panel.bars for panel in panels]))
            answers += [run(plan, panel) for panel in panels]
        return answers

    def check(self) -> None:
        """Run the stored self-test. Raises RuntimeError when an output differs."""
        selftest.verify(self)
