"""A batch of series as right-aligned paths, and the way from a path's units back to prices.

Owns packing, the choice of logarithms and the return to the series' units. What is predicted on the path is left to
volatility.py and autoregression.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from models.forecast.series import Series

# Tensors are this multiple of steps wide, so that blocked scans need no remainder.
BLOCK = 32
LARGEST_LOG_STEP = 2.0
LARGEST = float(np.finfo(np.float64).max)


def width_class(points: int) -> int:
    """The padded number of steps for a series of ``points``: the next of 32, 64, 96, 128, 192, 256, 384, ..."""
    steps = max(points - 1, BLOCK)
    power = 1 << (steps - 1).bit_length()
    half = power // 4 * 3
    return half if steps <= half and half % BLOCK == 0 else power


@dataclass(frozen=True, slots=True)
class Path:
    """Paths of B series over W steps, the latest step last; padding on the left holds zero steps.

    Attributes:
        level: [B, W + 1], the path relative to its last value: log(x / x_T), or (x - x_T) / unit.
        step: [B, W], its differences.
        mask: [B, W], 1 where a step is real, 0 where it is padding.
        count: [B], the number of real steps, as float64.
        logs: [B], whether the path is logarithmic.
        last: [B], x_T.
        unit: [B], the size that a path of differences was divided by.
    """

    level: torch.Tensor
    step: torch.Tensor
    mask: torch.Tensor
    count: torch.Tensor
    logs: torch.Tensor
    last: torch.Tensor
    unit: torch.Tensor

    def select(self, rows: torch.Tensor | slice) -> "Path":
        """The paths at ``rows`` (int64 [b], or a slice)."""
        return Path(
            self.level[rows],
            self.step[rows],
            self.mask[rows],
            self.count[rows],
            self.logs[rows],
            self.last[rows],
            self.unit[rows],
        )

    def without(self, latest: torch.Tensor) -> "Path":
        """The paths as they were before their ``latest`` steps (int64 [B]), in the same units."""
        columns = torch.arange(self.level.shape[1], device=latest.device) - latest[:, None]
        level = self.level.gather(1, columns.clamp(min=0))
        count = self.count - latest
        return Path(level, level.diff(dim=1), _mask(level, count), count, self.logs, self.last, self.unit)

    def prices(self, level: torch.Tensor) -> torch.Tensor:
        """Path levels [B, ...] in the series' own units, finite also where the true value would overflow."""
        shape = (-1,) + (1,) * (level.dim() - 1)
        last, unit, logs = self.last.view(shape), self.unit.view(shape), self.logs.view(shape)
        return torch.where(logs, last * level.exp(), last + unit * level).clamp(-LARGEST, LARGEST)


def _mask(level: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    return (torch.arange(level.shape[1] - 1, 0, -1, device=level.device) <= count[:, None]).double()


def pack(items: Sequence[Series]) -> tuple[np.ndarray[tuple[int, int], np.dtype[np.float64]], list[int]]:
    """Right-aligned values [B, W + 1], the left filled with each row's oldest value, and the rows' lengths."""
    lengths = [len(item.values) for item in items]
    columns = width_class(max(lengths)) + 1
    values = np.empty((len(items), columns))
    for row, item, length in zip(values, items, lengths, strict=True):
        row[columns - length :] = item.values
        if length < columns:
            row[: columns - length] = item.values[0]
    return values, lengths


def make_path(values: torch.Tensor, count: torch.Tensor) -> Path:
    """The paths of ``values`` [B, W + 1] with ``count`` [B] real steps each (both float64, on one device).

    Logarithms are taken where every value is positive and no step is larger than a factor of e^2.
    """
    last = values[:, -1]
    size = values.abs().amax(1)
    unit = torch.where(size > 0, size, 1.0)
    positive = values.amin(1) > 0
    log = torch.where(positive[:, None], values, 1.0).log()
    log_step = log.diff(dim=1)
    logs = positive & (log_step.abs().amax(1) < LARGEST_LOG_STEP)
    scaled = values / unit[:, None]
    level = torch.where(logs[:, None], log, scaled)
    level = level - level[:, -1:]
    return Path(level, level.diff(dim=1), _mask(level, count), count, logs, last, unit)
