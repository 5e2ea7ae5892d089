"""TA-Lib's division and comparison: results are never NaN or infinite, and rounding errors count as zero."""

import torch
from torch import Tensor

_NEGLIGIBLE = 1e-14


def ratio(numerator: Tensor, divisor: Tensor, undefined: float = 0.0) -> Tensor:
    """numerator / divisor for finite operands, and `undefined` where the divisor is 0."""
    return (numerator / divisor).nan_to_num_(nan=undefined, posinf=undefined, neginf=undefined)


def negligible(difference: Tensor, scale: Tensor) -> Tensor:
    """Whether a difference is only rounding error, relative to the scale (not negative) of the operands."""
    return difference.abs() <= scale * _NEGLIGIBLE


def place(x: Tensor, bottom: Tensor, top: Tensor) -> Tensor:
    """The position of x between bottom (0) and top (1); 0 where bottom and top are equal up to rounding."""
    reach = top - bottom
    return torch.where(negligible(reach, top.abs() + bottom.abs()), 0.0, (x - bottom) / reach)
