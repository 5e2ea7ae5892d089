"""A program over many panels at once, on one device.

Owns the way of panels into tensors and of results out of them. Panels of different lengths share a batch: they start
together, and shorter ones are continued by repeating their last bar. Every kernel looks back only, so what follows a
panel's last bar changes nothing before it.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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
    longest = _longest(panels)
    host = torch.empty((rows, len(program.outputs), longest), dtype=torch.float64)
    for first in range(0, len(panels), rows):
        part = panels[first : first + rows]
        outputs = host[: len(part)]
        with torch.inference_mode():
            columns = _columns(program, part, longest, device)
            there = outputs if device == _CPU else torch.empty_like(outputs, device=device)
            for call, at, kernel in zip(program.calls, program.rows, kernels, strict=True):
                if kernel:
                    registry.compute(call, [columns[column] for column in call.function.columns], there[:, at])
            if there is not outputs:
                outputs.copy_(there)
        yield part, outputs.numpy()


def _longest(panels: Sequence[Panel]) -> int:
    return max(panel.bars for panel in panels)


def _columns(program: Program, panels: Sequence[Panel], longest: int, device: torch.device) -> dict[str, Tensor]:
    """The program's columns as [panels, longest] on the device, moved in one copy."""
    names = sorted(program.needs)
    pinned = device.type == "cuda"
    host = torch.empty((len(names), len(panels), longest), dtype=torch.float64, pin_memory=pinned)
    values = host.numpy()
    for index, name in enumerate(names):
        for row, panel in zip(values[index], panels, strict=True):
            column = getattr(panel, name)
            row[: panel.bars] = column
            if panel.bars < longest:
                row[panel.bars :] = column[-1]
    return dict(zip(names, host.to(device, non_blocking=pinned), strict=True))
