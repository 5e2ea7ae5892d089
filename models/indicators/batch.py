"""A program over many panels at once, on one device.

Owns the way of panels into tensors and of results out of them. Panels of different lengths share a batch: they start
together, and shorter ones are continued by repeating their last bar. Every kernel looks back only, so what follows a
panel's last bar changes nothing before it.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from models.indicators.kernels import registry
from models.indicators.panel import Panel
from models.indicators.program import Program

_CPU = torch.device("cpu")
_CACHED_VALUES = 32 * 1024
"""Values per column that stay in a CPU core's second-level cache through a kernel's passes, and that malloc hands out
again without the page faults that larger blocks cost."""


def rows_at_once(panels: Sequence[Panel], device: torch.device) -> int:
    """How many panels make a batch on the device: all of them, but on the CPU what fits its cache."""
    if device != _CPU:
        return len(panels)
    return min(len(panels), max(1, _CACHED_VALUES // _longest(panels)))


def compute(
    program: Program, kernels: Sequence[bool], panels: Sequence[Panel], rows: int, device: torch.device
) -> Iterator[tuple[Sequence[Panel], NDArray[np.float64]]]:
    """Outputs [panels, outputs, longest] of the calls whose flag in `kernels` is set, for `rows` panels at a time.

    Other calls' outputs are left unset, and what a row holds after its panel's last bar has no meaning. An array is
    only good until the next one is asked for.
    """
    names = sorted(program.needs)
    longest = _longest(panels)
    # Made once for all parts: fresh memory of this size costs a page fault every 4 KiB.
    staged = torch.empty((len(names), rows, longest), dtype=torch.float64, pin_memory=device.type == "cuda")
    host = torch.empty((rows, len(program.outputs), longest), dtype=torch.float64)
    for first in range(0, len(panels), rows):
        part = panels[first : first + rows]
        _stage(names, part, staged.numpy())
        outputs = host[: len(part)]
        with torch.inference_mode():
            columns = dict(zip(names, staged[:, : len(part)].to(device, non_blocking=True), strict=True))
            there = outputs if device == _CPU else torch.empty_like(outputs, device=device)
            for call, at, kernel in zip(program.calls, program.rows, kernels, strict=True):
                if kernel:
                    registry.compute(call, [columns[column] for column in call.function.columns], there[:, at])
            if there is not outputs:
                outputs.copy_(there)
        yield part, outputs.numpy()


def _longest(panels: Sequence[Panel]) -> int:
    return max(panel.bars for panel in panels)


def _stage(names: Sequence[str], panels: Sequence[Panel], staged: NDArray[np.float64]) -> None:
    """Copy the panels' columns into staged [names, at least panels, longest]; the last bar fills what is left."""
    for name, rows in zip(names, staged, strict=True):
        for panel, row in zip(panels, rows, strict=False):
            column = getattr(panel, name)
            row[: panel.bars] = column
            if panel.bars < len(row):
                row[panel.bars :] = column[-1]
