"""Indicators by torch kernels, many panels at once, and by TA-Lib where a function has no kernel: the model for GPUs.

Owns what the batcher sees of it. The kernels are in kernels/, their batches in batch.py.
"""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np
import torch

from models.indicators import batch, library, selftest
from models.indicators.answer import Answer, cut
from models.indicators.kernels import registry
from models.indicators.panel import Panel
from models.indicators.plan import Plans
from models.indicators.program import Program
from models.indicators.task import Task

_PLAN_BYTES = 64 * 2**20


class TorchModel:
    """Kernels over batches of panels on one device; the thread that calls run() waits for the device."""

    name = "torch-indicators"
    version = library.VERSION
    """Of TA-Lib, whose numbers the kernels give."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._plans = Plans(_PLAN_BYTES)

    def bucket(self, item: Task) -> Hashable:
        """Program and length class: panels of one program run together, the shorter padded to the longest."""
        return item.program, item.panel.bars.bit_length()

    def cost(self, item: Task) -> int:
        """Bars times functions."""
        return item.panel.bars * len(item.program.calls)

    def run(self, items: Sequence[Task]) -> list[Answer]:
        """One answer per task. Tasks of equal programs share a batch; a task's answer depends on it alone."""
        answers: dict[int, Answer] = {}
        for program, places in _by_program(items).items():
            panels = [items[place].panel for place in places]
            answers.update(zip(places, self._compute(program, panels), strict=True))
        return [answers[place] for place in range(len(items))]

    def check(self) -> None:
        """Compute the stored self-test; raises RuntimeError when an output differs."""
        selftest.verify(self)

    def _compute(self, program: Program, panels: Sequence[Panel]) -> list[Answer]:
        outputs = batch.compute(program, panels, self._device)
        rest = [index for index, call in enumerate(program.calls) if not registry.supports(call)]
        if rest:
            remainder = Program([replace(program.calls[index], last=None) for index in rest])
            rows = np.concatenate([np.arange(program.rows[index].start, program.rows[index].stop) for index in rest])
            for panel, block in zip(panels, outputs, strict=True):
                block[rows, : panel.bars] = self._plans.of(remainder, panel.bars).run(panel)
        return [cut(program, block, panel.bars) for panel, block in zip(panels, outputs, strict=True)]


def _by_program(items: Sequence[Task]) -> dict[Program, list[int]]:
    places: defaultdict[Program, list[int]] = defaultdict(list)
    for place, item in enumerate(items):
        places[item.program].append(place)
    return places
