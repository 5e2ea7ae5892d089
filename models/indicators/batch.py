"""A program over many panels at once, on one device.

Owns the way of panels into tensors and of results out of them. Panels of different lengths share a batch: they start
together, and shorter ones are continued by repeating their last bar. Every kernel looks back only, so what follows a
panel's last bar changes nothing before it.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.indicators.kernels import registry
from models.indicators.panel import Panel
from models.indicators.program import Program

_CPU = torch.device("cpu")
_CACHED_VALUES = 64 * 1024
"""Values per column that stay in a CPU core's second-level cache through a kernel's passes."""


def compute(program: Program, panels: Sequence[Panel], device: torch.device) -> NDArray[np.float64]:
    """Outputs [panels, outputs, longest] of the program's calls that have kernels; rows of other calls are left unset.

    What a row holds after its panel's last bar has no meaning.
    """
    longest = max(panel.bars for panel in panels)
    rows = len(panels) if device != _CPU else max(1, _CACHED_VALUES // longest)
    result = np.empty((len(panels), len(program.outputs), longest))
    with torch.inference_mode():
        for first in range(0, len(panels), rows):
            part = slice(first, first + rows)
            columns = _columns(program, panels[part], longest, device)
            outputs = torch.from_numpy(result[part])
            if device == _CPU:
                _fill(program, columns, outputs)
            else:
                there = torch.empty(outputs.shape, dtype=torch.float64, device=device)
                _fill(program, columns, there)
                outputs.copy_(there)
    return result


def _fill(program: Program, columns: dict[str, Tensor], out: Tensor) -> None:
    for call, rows in zip(program.calls, program.rows, strict=True):
        if registry.supports(call):
            registry.compute(call, [columns[column] for column in call.function.columns], out[:, rows])


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
            row[panel.bars :] = column[-1]
    return dict(zip(names, host.to(device, non_blocking=pinned), strict=True))
