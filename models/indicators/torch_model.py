"""Indicators by torch kernels, many panels at once, and by TA-Lib for functions without a kernel: the model for GPUs.

Owns the model interface for the batcher. The kernels are in kernels/, batches of panels in batch.py.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace

import torch

from models.cache import sized_cache
from models.indicators import batch, library, selftest
from models.indicators.answer import Answer, cut
from models.indicators.kernels import dispatch
from models.indicators.panel import Panel
from models.indicators.plan import Plans
from models.indicators.program import Program, Task
from models.indicators.running_sums import SpoiltSumsError
from models.indicators.talib_model import run

_PLAN_BYTES = 16 * 2**20
_CACHED_BYTES = 16 << 20


class TorchModel:
    """Kernels over batches of panels on one device. run() blocks until the device has finished."""

    name = "torch-indicators"
    version = library.VERSION
    """TA-Lib's version, because the kernels reproduce TA-Lib's numbers."""
    fresh_answers = True

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._plans = Plans(_PLAN_BYTES)

    def bucket(self, item: Task) -> Hashable:
        """Program and length class: panels of one program run together, padded to the longest panel."""
        return item.program, item.panel.bars.bit_length()

    def units(self, item: Task) -> int:
        """The cost of the program over the panel, see price.py."""
        return item.program.units(item.panel.bars)

    def run(self, items: Sequence[Task]) -> list[Answer | SpoiltSumsError]:
        """One answer, or error, per task. Tasks of equal programs share a batch; no answer depends on other tasks."""
        answers: dict[int, Answer | SpoiltSumsError] = {}
        for program, places in _by_program(items).items():
            panels = [items[place].panel for place in places]
            answers.update(zip(places, self._compute(program, panels), strict=True))
        return [answers[place] for place in range(len(items))]

    def check(self) -> None:
        """Run the stored self-test. Raises RuntimeError when an output differs."""
        selftest.verify(self)

    def _compute(self, program: Program, panels: Sequence[Panel]) -> Iterator[Answer | SpoiltSumsError]:
        rows = batch.rows_at_once(panels, self._device)
        kernels = tuple(dispatch.pays(call, rows) for call in program.calls)
        rest, rest_rows = _without(program, kernels)
        for part, outputs in batch.compute(program, kernels, panels, rows, self._device):
            for panel, block in zip(part, outputs, strict=True):
                if rest.calls:
                    found = run(self._plans.of(rest, panel.bars), panel)
                    if isinstance(found, SpoiltSumsError):
                        yield found
                        continue
                    block[rest_rows, : panel.bars] = found
                yield cut(program, block, panel.bars)


@sized_cache(_CACHED_BYTES, lambda found: found[0].size_bytes)
def _without(program: Program, kernels: tuple[bool, ...]) -> tuple[Program, list[int]]:
    """The calls without a kernel, as a program over all bars, and the answer rows of these calls."""
    left = [place for place, kernel in enumerate(kernels) if not kernel]
    rows = [row for place in left for row in range(program.rows[place].start, program.rows[place].stop)]
    return Program([replace(program.calls[place], last=None) for place in left]), rows


def _by_program(items: Sequence[Task]) -> dict[Program, list[int]]:
    places: defaultdict[Program, list[int]] = defaultdict(list)
    for place, item in enumerate(items):
        places[item.program].append(place)
    return places
