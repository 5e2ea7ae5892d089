"""A program over many panels at once, on one device.

Owns the copies of panels into tensors and of results out of tensors. Panels of different lengths share a batch: all
start at index 0, and a shorter panel is padded by repeating the last bar. Every kernel looks back only, so the padding
does not change earlier results.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from models.indicators.kernels import dispatch
from models.indicators.panel import Panel
from models.indicators.program import Program

_CPU = torch.device("cpu")
_CACHED_VALUES = 32 * 1024
"""Values per column of a CPU batch. Blocks of this size stay in a core's second-level cache through the passes of a
kernel, and malloc reuses the blocks without page faults."""


def rows_at_once(panels: Sequence[Panel], device: torch.device) -> int:
    """Panels per batch: all panels on CUDA; on the CPU as many as fit the cache."""
    if device != _CPU:
        return len(panels)
    return min(len(panels), max(1, _CACHED_VALUES // _longest(panels)))


def compute(
    program: Program, kernels: Sequence[bool], panels: Sequence[Panel], rows: int, device: torch.device
) -> Iterator[tuple[Sequence[Panel], NDArray[np.float64]]]:
    """Yield (panels, outputs [panels, outputs, longest]) for `rows` panels at a time.

    Only calls with a flag in `kernels` are computed; outputs of other calls are unset. Values after a panel's last bar
    are undefined. The next iteration overwrites the yielded array.
    """
    names = sorted(program.needs)
    longest = _longest(panels)
    # Allocated once for all parts, because new memory of this size costs a page fault every 4 KiB.
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
                    dispatch.compute(call, [columns[column] for column in call.function.columns], there[:, at])
            if there is not outputs:
                outputs.copy_(there)
        yield part, outputs.numpy()


def _longest(panels: Sequence[Panel]) -> int:
    return max(panel.bars for panel in panels)


def _stage(names: Sequence[str], panels: Sequence[Panel], staged: NDArray[np.float64]) -> None:
    """Copy the panels' columns into `staged` [names, at least panels, longest], padded with the last bar."""
    for name, rows in zip(names, staged, strict=True):
        for panel, row in zip(panels, rows, strict=False):
            column = getattr(panel, name)
            row[: panel.bars] = column
            if panel.bars < len(row):
                row[panel.bars :] = column[-1]
